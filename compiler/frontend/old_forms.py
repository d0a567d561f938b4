"""Rewrites what opsets before 13 wrote in another way, and onnx's converter gets wrong or lacks.

Input: a checked SlimModel of any opset; output: one of opset 7 or newer that computes the same,
or errors.UnsupportedModel with everything that cannot be said in newer forms. Subgraphs are
rewritten too. Only what differs is here (seen with onnx 1.23): all else the converter does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from ramforge.compiler.errors import Problem, UnsupportedModel
from ramforge.compiler.frontend import problems
from ramforge.compiler.frontend.origins import adopt
from ramforge.compiler.frontend.slim import (
    Origin,
    SlimModel,
    copy_with_nodes,
    lift_constant_nodes,
    unique_name,
)
from ramforge.compiler.frontend.subgraphs import all_names, all_nodes, read_names, subgraphs
from ramforge.compiler.ir import Array

# Every form of this opset is one that the converter upgrades faithfully, but for those below.
OLDEST_CONVERTED = 7
Nodes = Iterator[onnx.NodeProto]


class _CannotSay(Exception):
    """A node that has no faithful newer form, with the reason."""


@dataclass
class _Context:
    """What a rewrite may ask about the model around its node."""

    opset: int
    constants: Mapping[str, Array]
    shapes: Mapping[str, tuple[int | None, ...]]
    read: frozenset[str]
    taken: set[str]
    found: list[Problem] = field(default_factory=list)

    def rank(self, name: str) -> int:
        return len(self.shape(name))

    def shape(self, name: str) -> tuple[int | None, ...]:
        if name not in self.shapes:
            raise _CannotSay(f"the rank of {name!r} is not known")
        return self.shapes[name]

    def fresh(self, name: str) -> str:
        return unique_name(name, self.taken)

    def constant(self, name: str) -> Array:
        if name not in self.constants:
            raise _CannotSay(f"{name!r} has to be a constant")
        return self.constants[name]

    def unsqueezed(self, name: str, axes: Iterable[int]) -> tuple[onnx.NodeProto, str]:
        result = self.fresh(f"{name}_unsqueezed")
        return helper.make_node("Unsqueeze", [name], [result], axes=list(axes)), result


Rewrite = Callable[[onnx.NodeProto, _Context], Nodes]


def rewrite_old_forms(slim: SlimModel) -> SlimModel:
    """The same object where every node is in a form that the converter knows to upgrade."""
    opset = slim.opset
    nodes = list(all_nodes(slim.proto.graph))
    if opset >= OLDEST_CONVERTED and not any(_rewrite_of(node, opset) for node in nodes):
        return slim
    context = _Context(
        opset,
        slim.constants,
        _shapes(slim.proto),
        frozenset(read_names(slim.proto.graph)),
        all_names(slim.proto.graph),
    )
    rewritten = list(_rewritten(slim.proto.graph.node, context, slim.origins, None))
    if context.found:
        raise UnsupportedModel(slim.name, tuple(context.found))
    proto = copy_with_nodes(slim.proto, rewritten)
    for entry in proto.opset_import:
        if not entry.domain:
            entry.version = max(entry.version, OLDEST_CONVERTED)
    return lift_constant_nodes(adopt(slim, proto))


def _shapes(proto: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """The shapes that inference finds, those in subgraphs too; None for unknown sizes."""
    try:
        graph = shape_inference.infer_shapes(proto).graph
    except Exception:  # C++ errors without a common base: then what is declared has to do
        graph = proto.graph
    shapes: dict[str, tuple[int | None, ...]] = {}
    for inner in (graph, *(inner for node in all_nodes(graph) for inner in subgraphs(node))):
        shapes.update({tensor.name: tuple(tensor.dims) for tensor in inner.initializer})
        for value in (*inner.value_info, *inner.output, *inner.input):
            if value.type.tensor_type.HasField("shape"):
                dims = value.type.tensor_type.shape.dim
                sizes = (dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
                shapes[value.name] = tuple(sizes)
    return shapes


def _rewritten(
    nodes: Iterable[onnx.NodeProto],
    context: _Context,
    origins: Mapping[str, Origin],
    owner: Origin | None,
) -> Nodes:
    for node in nodes:
        origin = owner or origins[node.name]
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for graph in subgraphs(copy):
            inner = list(_rewritten(graph.node, context, origins, origin))
            del graph.node[:]
            graph.node.extend(inner)
        _drop_attributes(copy, "consumed_inputs")
        rewrite = _rewrite_of(copy, context.opset)
        try:
            yield from rewrite(copy, context) if rewrite else (copy,)
        except _CannotSay as error:
            context.found.append(problems.old_form(origin, node.op_type, context.opset, str(error)))
            yield copy


def _rewrite_of(node: onnx.NodeProto, opset: int) -> Rewrite | None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in _REWRITES:
        return None
    before, rewrite = _REWRITES[node.op_type]
    return rewrite if opset < before else None


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _drop_attributes(node: onnx.NodeProto, *names: str) -> None:
    kept = [item for item in node.attribute if item.name not in names]
    if len(kept) < len(node.attribute):
        del node.attribute[:]
        node.attribute.extend(kept)


def _set(node: onnx.NodeProto, **values: object) -> None:
    _drop_attributes(node, *values)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())


def _with_defaults(**defaults: object) -> Rewrite:
    """Write out what was the default then, and is not now."""

    def rewrite(node: onnx.NodeProto, context: _Context) -> Nodes:
        present = _attributes(node)
        _set(node, **{name: value for name, value in defaults.items() if name not in present})
        yield node

    return rewrite


def _constant(name: str, array: Array) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))


def _broadcast(node: onnx.NodeProto, context: _Context) -> Nodes:
    """``axis`` says where the axes of B start in those of A; without it they are the last ones."""
    given = _attributes(node)
    _drop_attributes(node, "axis", "broadcast")
    first, second = node.input
    if not given.get("broadcast"):
        shapes = [context.shapes.get(name, (None,)) for name in node.input]
        if all(None not in shape for shape in shapes) and shapes[0] != shapes[1]:
            raise _CannotSay(
                f"its shapes are {list(shapes[0])} and {list(shapes[1])}, without broadcast"
            )
    elif "axis" in given:
        axis, rank = int(given["axis"]), context.rank(first)  # type: ignore[call-overload]
        size = context.rank(second)
        missing = rank - (axis + rank if axis < 0 else axis) - size
        if missing < 0:
            raise _CannotSay(f"{size} axes do not fit into {rank} from axis {axis} on")
        if missing:
            move, node.input[1] = context.unsqueezed(second, range(size, size + missing))
            yield move
    yield node


def _prelu(node: onnx.NodeProto, context: _Context) -> Nodes:
    """A list of slopes is one for each channel, and now stands at the last axis."""
    source, slope = node.input
    if context.rank(slope) == 1 and context.shape(slope) != (1,) and context.rank(source) > 2:
        move, node.input[1] = context.unsqueezed(slope, range(1, context.rank(source) - 1))
        yield move
    yield node


def _batch_normalization(node: onnx.NodeProto, context: _Context) -> Nodes:
    given = _attributes(node)
    if context.opset < 7:
        if not given.get("is_test", 0):
            raise _CannotSay("is_test is 0: it is for training")
        _keep_read_outputs(node, context)
    _drop_attributes(node, "is_test", "spatial")
    if given.get("spatial", 1):
        yield node
        return
    if len(node.output) > 1:
        raise _CannotSay("it is for training")
    source, scale, bias, mean, variance = node.input
    centred, safe, deviation, unit, scaled, epsilon = (
        context.fresh(f"{node.output[0]}_{part}")
        for part in ("centred", "safe", "deviation", "unit", "scaled", "epsilon")
    )
    yield _constant(epsilon, np.array(given.get("epsilon", 1e-5), np.float32))
    yield helper.make_node("Sub", [source, mean], [centred])
    yield helper.make_node("Add", [variance, epsilon], [safe])
    yield helper.make_node("Sqrt", [safe], [deviation])
    yield helper.make_node("Div", [centred, deviation], [unit])
    yield helper.make_node("Mul", [unit, scale], [scaled])
    yield helper.make_node("Add", [scaled, bias], [node.output[0]], name=node.name)


def _keep_read_outputs(node: onnx.NodeProto, context: _Context) -> None:
    """Drop the outputs behind the first that nothing reads."""
    if not any(name in context.read for name in node.output[1:]):
        del node.output[1:]


def _dropout(node: onnx.NodeProto, context: _Context) -> Nodes:
    given = _attributes(node)
    if context.opset < 7 and not given.get("is_test", 0) and given.get("ratio", 0.5):
        raise _CannotSay("is_test is 0: it drops at random, for training")
    _drop_attributes(node, "is_test")
    _keep_read_outputs(node, context)
    if len(node.output) > 1:
        raise _CannotSay("its mask is used, which had no meaning outside of training")
    yield node


def _without(*names: str) -> Rewrite:
    def rewrite(node: onnx.NodeProto, context: _Context) -> Nodes:
        _drop_attributes(node, *names)
        yield node

    return rewrite


def _recurrent(node: onnx.NodeProto, context: _Context) -> Nodes:
    """``output_sequence`` only says whether Y is wanted; the first GRU misspelt its default."""
    _drop_attributes(node, "output_sequence")
    if _attributes(node).get("direction") in (None, b"foward"):
        _set(node, direction="forward")
    yield node


def _pad(node: onnx.NodeProto, context: _Context) -> Nodes:
    given = _attributes(node)
    if "paddings" in given:
        _drop_attributes(node, "paddings")
        _set(node, pads=given["paddings"])
    yield node


def _reshape(node: onnx.NodeProto, context: _Context) -> Nodes:
    given = _attributes(node)
    if len(node.input) == 1:
        if "shape" not in given:
            raise _CannotSay("it has no shape")
        _drop_attributes(node, "shape")
        name = context.fresh(f"{node.output[0]}_shape")
        yield _constant(name, np.array(given["shape"], np.int64))
        node.input.append(name)
    yield node


def _split(node: onnx.NodeProto, context: _Context) -> Nodes:
    if len(node.input) > 1:
        sizes = context.constant(node.input[1])
        del node.input[1:]
        _set(node, split=[int(size) for size in sizes.ravel()])
    yield from _with_defaults(axis=0)(node, context)


def _cast(node: onnx.NodeProto, context: _Context) -> Nodes:
    wanted = _attributes(node).get("to")
    if isinstance(wanted, bytes):
        name = wanted.decode("ascii", "replace").upper()
        if name not in onnx.TensorProto.DataType.keys():  # noqa: SIM118  (no dict)
            raise _CannotSay(f"ONNX has no type {name}")
        _set(node, to=int(onnx.TensorProto.DataType.Value(name)))
    yield node


def _whole_norm(node: onnx.NodeProto, context: _Context) -> Nodes:
    power = _attributes(node).get("p", 2.0)
    assert isinstance(power, float | int)
    if power != int(power):
        raise _CannotSay(f"p is {power}, and has to be whole by now")
    _set(node, p=int(power))
    yield node


def _tile(node: onnx.NodeProto, context: _Context) -> Nodes:
    if len(node.input) == 3:
        tiles, axis = (int(context.constant(name).item()) for name in node.input[1:])
        repeats = np.ones(context.rank(node.input[0]), np.int64)
        repeats[axis] = tiles
        name = context.fresh(f"{node.output[0]}_repeats")
        yield _constant(name, repeats)
        del node.input[1:]
        node.input.append(name)
    yield node


def _upsample(node: onnx.NodeProto, context: _Context) -> Nodes:
    given = _attributes(node)
    if "height_scale" in given:
        _drop_attributes(node, "height_scale", "width_scale")
        _set(node, scales=[1.0, 1.0, given["height_scale"], given["width_scale"]])
    yield node


def _hardmax(node: onnx.NodeProto, context: _Context) -> Nodes:
    """Over all axes from ``axis`` on."""
    source, output = node.input[0], node.output[0]
    axis = _attributes(node).get("axis", 1)
    shape, flat, result = (context.fresh(f"{output}_{part}") for part in ("shape", "flat", "2d"))
    yield helper.make_node("Shape", [source], [shape])
    yield helper.make_node("Flatten", [source], [flat], axis=axis)
    yield helper.make_node("Hardmax", [flat], [result], name=node.name, axis=1)
    yield helper.make_node("Reshape", [result, shape], [output])


def _scan(node: onnx.NodeProto, context: _Context) -> Nodes:
    """States and sequences had the batch as their first axis: a Scan for each of it."""
    given = _attributes(node)
    lengths, *operands = node.input
    if lengths:
        raise _CannotSay("sequences of several lengths are not supported")
    body = next(subgraphs(node))
    count = int(given["num_scan_inputs"])  # type: ignore[call-overload]
    sizes = {context.shape(name)[0] for name in operands}
    if len(sizes) != 1 or None in sizes:
        raise _CannotSay("the size of the batch is not known")
    (batch,) = sizes
    assert batch is not None
    directions = given.get("directions", [0] * count)
    parts: list[list[str]] = [[] for _ in node.output]
    for number in range(batch):
        index = context.fresh(f"{node.output[0]}_index")
        yield _constant(index, np.array(number, np.int64))
        taken = [context.fresh(f"{name}_part") for name in operands]
        for name, part in zip(operands, taken, strict=True):
            yield helper.make_node("Gather", [name, index], [part], axis=0)
        made = [context.fresh(f"{name}_part") for name in node.output]
        # the converter drops the first input, and renames the directions
        scan = helper.make_node(
            "Scan", ["", *taken], made, num_scan_inputs=count, directions=directions
        )
        scan.attribute.append(helper.make_attribute("body", body))
        yield scan
        for name, mine in zip(made, parts, strict=True):
            move, result = context.unsqueezed(name, [0])
            yield move
            mine.append(result)
    for name, mine in zip(node.output, parts, strict=True):
        if name:
            yield helper.make_node("Concat", mine, [name], axis=0)


# The first opset that writes each operator in a form that the converter upgrades faithfully.
_REWRITES: Mapping[str, tuple[int, Rewrite]] = {
    **{name: (7, _broadcast) for name in ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor")},
    **{name: (7, _broadcast) for name in ("Equal", "Greater", "Less")},
    **{name: (7, _recurrent) for name in ("LSTM", "GRU", "RNN")},
    **{name: (2, _whole_norm) for name in ("LpPool", "GlobalLpPool")},
    "BatchNormalization": (9, _batch_normalization),
    "Cast": (6, _cast),
    "Clip": (6, _with_defaults(min=-math.inf, max=math.inf)),
    "Concat": (4, _with_defaults(axis=1)),
    "Dropout": (12, _dropout),
    "Gemm": (7, _without("broadcast")),
    "Hardmax": (13, _hardmax),
    "PRelu": (7, _prelu),
    "Pad": (2, _pad),
    "Reshape": (5, _reshape),
    "Scan": (9, _scan),
    "Selu": (6, _with_defaults(alpha=1.6732, gamma=1.0507)),
    "Split": (2, _split),
    "Tile": (6, _tile),
    "Upsample": (7, _upsample),
}
