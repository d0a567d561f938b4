"""Replaces If, Loop and Scan by the nodes that they would run.

Input: a SlimModel with inferred types, output: one in which every branch that is known to be taken
and every loop of a known number of iterations stands as plain nodes (one level; the caller repeats,
as bodies may hold more). ``select`` then replaces an If that only a run decides by both branches
and a choice: branches have no effects, so what is not chosen does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import helper

from ramforge.compiler.frontend.inlining import Inliner, names_of
from ramforge.compiler.frontend.slim import SlimModel, dtype_of, static_shape
from ramforge.compiler.frontend.subgraphs import read_names
from ramforge.compiler.frontend.trips import Trips, count_trips
from ramforge.compiler.ir import Array

# More nodes than this take minutes to compile.
MOST_NODES = 20_000
# On a Where that stands for an If: its branches have to be of one shape.
SAME_SHAPE = "ramforge_same_shape"

Types = Mapping[str, onnx.TypeProto]
_OPERATORS = ("If", "Loop", "Scan")


def is_control_flow(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in _OPERATORS


def unroll(slim: SlimModel) -> SlimModel:
    """Replace what is known; the same object if nothing is."""
    graph = slim.proto.graph
    if not any(map(is_control_flow, graph.node)):
        return slim
    types = _types(graph)
    inliner = Inliner(slim)
    changed = False
    for node in graph.node:
        if is_control_flow(node) and not obstacle(node, slim, types):
            inliner.replace(node)
            _EXPANSIONS[node.op_type](node, slim, types, inliner)
            changed = True
        else:
            inliner.keep(node)
    return inliner.result() if changed else slim


def select(slim: SlimModel) -> SlimModel:
    """Replace each If whose condition is computed at run time, by nothing that is still to be
    unrolled; the same object if there is none.
    """
    if not any(map(is_control_flow, slim.proto.graph.node)):
        return slim
    types = _types(slim.proto.graph)
    inliner = Inliner(slim)
    pending: set[str] = set()  # what may still become known
    changed = False
    for node in slim.proto.graph.node:
        late = any(name in pending for name in (*node.input, *_captured(node)))
        if _is_choice(node, types) and node.input[0] not in pending and not _misfit(node):
            inliner.replace(node)
            _choose(node, inliner)
            changed = True
            late = True  # the shape of the result is to be inferred first
        else:
            inliner.keep(node)
            late = late or is_control_flow(node)
        if late:
            pending.update(filter(None, node.output))
    return inliner.result() if changed else slim


def _is_choice(node: onnx.NodeProto, types: Types) -> bool:
    """Whether an If gives tensors alone, which Where can choose from."""
    kinds = {types[name].WhichOneof("value") for name in node.output if name in types}
    return is_control_flow(node) and node.op_type == "If" and kinds <= {"tensor_type", None}


def obstacles(slim: SlimModel) -> dict[str, str]:
    """Why nodes could not be replaced, by their names."""
    types = _types(slim.proto.graph)
    return {
        node.name: obstacle(node, slim, types)
        for node in slim.proto.graph.node
        if is_control_flow(node)
    }


def obstacle(node: onnx.NodeProto, slim: SlimModel, types: Types) -> str:
    """What keeps a node from being replaced, empty if nothing does."""
    misfit = _misfit(node)
    if misfit:
        return misfit
    if node.op_type == "If":
        return "" if node.input[0] in slim.constants else "its condition is computed at run time"
    if node.op_type == "Scan":
        count = _scan_length(node, slim, types)
        if isinstance(count, str):
            return count
        trips = Trips(count)
    else:
        trips = _trips(node, slim)
    if trips.reason:
        return trips.reason
    body = _graph(node, "body")
    if trips.count * max(len(body.node), 1) > MOST_NODES:
        return (
            f"{trips.count} iterations of {len(body.node)} nodes are too many to unroll "
            f"(the most is {MOST_NODES} nodes)"
        )
    if not trips.count:
        first = len(node.output) - _stacked_outputs(node)
        for value in body.output[len(body.output) - _stacked_outputs(node) :]:
            if static_shape(value.type) is None or _dtype(value) is None:
                return f"it runs no iteration, and the shape of {node.output[first]!r} is not known"
    return ""


def _trips(node: onnx.NodeProto, slim: SlimModel) -> Trips:
    return count_trips(node, slim, MOST_NODES // max(len(_graph(node, "body").node), 1))


def _misfit(node: onnx.NodeProto) -> str:
    """What of a subgraph does not go with its node, empty if all does."""
    graphs = {item.name: item.g for item in node.attribute if item.HasField("g")}
    outputs = len(node.output)
    if node.op_type == "If":
        for name in ("then_branch", "else_branch"):
            found = len(graphs[name].output) if name in graphs else 0
            if found != outputs:
                return f"its {name} gives {found} values, expected {outputs}"
        return ""
    if "body" not in graphs:
        return "it has no body"
    body = graphs["body"]
    is_loop = node.op_type == "Loop"
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    scanned = 0 if is_loop else given.get("num_scan_inputs", 0)
    carried = len(node.input) - 2 if is_loop else len(node.input) - scanned
    if carried < 0 or (not is_loop and scanned < 1):
        return f"it has {len(node.input)} inputs, too few"
    if len(body.input) != carried + (2 if is_loop else scanned):
        return f"its body takes {len(body.input)} values, which is not what the node has for it"
    if len(body.output) != outputs + is_loop or outputs < carried:
        return f"its body gives {len(body.output)} values, which is not what the node has"
    for name in ("scan_input_axes", "scan_input_directions"):
        if len(given.get(name) or [0] * scanned) != scanned:
            return f"{name} has {len(given[name])} entries, expected {scanned}"
    for name in ("scan_output_axes", "scan_output_directions"):
        if len(given.get(name) or [0] * (outputs - carried)) != outputs - carried:
            return f"{name} has {len(given[name])} entries, expected {outputs - carried}"
    return ""


def _types(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    return {value.name: value.type for value in (*graph.value_info, *graph.output, *graph.input)}


def _captured(node: onnx.NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from read_names(attribute.g)


def _graph(node: onnx.NodeProto, name: str) -> onnx.GraphProto:
    graph: onnx.GraphProto = next(item.g for item in node.attribute if item.name == name)
    return graph


def _dtype(value: onnx.ValueInfoProto) -> object:
    return dtype_of(value.type.tensor_type.elem_type)


def _branch(node: onnx.NodeProto, name: str, inliner: Inliner) -> list[str]:
    graph = _graph(node, name)
    return inliner.body(graph, inliner.initializers(graph))


def _take(node: onnx.NodeProto, slim: SlimModel, types: Types, inliner: Inliner) -> None:
    taken = "then_branch" if np.any(slim.constants[node.input[0]]) else "else_branch"
    for name, output in zip(_branch(node, taken, inliner), node.output, strict=True):
        if output:
            inliner.add("Identity", [name], output)


def _choose(node: onnx.NodeProto, inliner: Inliner) -> None:
    condition = inliner.add("Squeeze", [node.input[0]])
    yes, no = (_branch(node, name, inliner) for name in ("then_branch", "else_branch"))
    for first, second, output in zip(yes, no, node.output, strict=True):
        if output:
            _where(inliner, condition, first, second, output)


def _where(inliner: Inliner, condition: str, yes: str, no: str, output: str = "") -> str:
    return inliner.add("Where", [condition, yes, no], output, **{SAME_SHAPE: 1})


def _unroll_loop(node: onnx.NodeProto, slim: SlimModel, types: Types, inliner: Inliner) -> None:
    trips = _trips(node, slim)
    body = _graph(node, "body")
    shared = inliner.initializers(body)
    number, condition, *carried = names_of(body.input)
    values = list(node.input[2 : 2 + len(carried)])
    stacks: list[list[str]] = [[] for _ in node.output[len(carried) :]]
    going = node.input[1] if len(node.input) > 1 and node.input[1] else ""
    going = going or inliner.constant(np.array(True))
    if trips.is_open:
        going = inliner.add("Squeeze", [going])
    for trip in range(trips.count):
        bound = dict(zip(carried, values, strict=True))
        index = inliner.constant(np.array(trip, np.int64))
        outputs = inliner.body(body, {**shared, **bound, number: index, condition: going}, trip)
        after, *made = outputs
        if trips.is_open:
            pairs = zip(made, values, strict=True)
            values = [_where(inliner, going, new, old) for new, old in pairs]
            after = inliner.add("Squeeze", [after])
            going = inliner.add("And", [going, after])
            continue
        going, values = after, made[: len(carried)]
        for stack, name in zip(stacks, made[len(carried) :], strict=True):
            stack.append(name)
    _finish(node, body, values, [(stack, 0) for stack in stacks], inliner)


def _unroll_scan(node: onnx.NodeProto, slim: SlimModel, types: Types, inliner: Inliner) -> None:
    body = _graph(node, "body")
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    inputs = int(given["num_scan_inputs"])
    states = len(node.input) - inputs
    length = _scan_length(node, slim, types)
    assert isinstance(length, int)
    in_axes = given.get("scan_input_axes") or [0] * inputs
    in_directions = given.get("scan_input_directions") or [0] * inputs
    stacked = len(node.output) - states
    out_axes = given.get("scan_output_axes") or [0] * stacked
    out_directions = given.get("scan_output_directions") or [0] * stacked
    shared = inliner.initializers(body)
    values = list(node.input[:states])
    stacks: list[list[str]] = [[] for _ in range(stacked)]
    places = [inliner.constant(np.array(place, np.int64)) for place in range(length)]
    for trip in range(length):
        elements = [
            inliner.add("Gather", [name, places[-1 - trip if backward else trip]], axis=axis)
            for name, axis, backward in zip(
                node.input[states:], in_axes, in_directions, strict=True
            )
        ]
        bound = dict(zip(names_of(body.input), (*values, *elements), strict=True))
        made = inliner.body(body, {**shared, **bound}, trip)
        values = made[:states]
        for stack, name in zip(stacks, made[states:], strict=True):
            stack.append(name)
    ordered = [
        (stack[::-1] if backward else stack, axis)
        for stack, axis, backward in zip(stacks, out_axes, out_directions, strict=True)
    ]
    _finish(node, body, values, ordered, inliner)


def _finish(
    node: onnx.NodeProto,
    body: onnx.GraphProto,
    values: list[str],
    stacks: list[tuple[list[str], int]],
    inliner: Inliner,
) -> None:
    """The outputs: the last values of what is carried, then all values of the rest."""
    for name, output in zip(values, node.output, strict=False):
        if output:
            inliner.add("Identity", [name], output)
    elements = body.output[len(body.output) - len(stacks) :]
    for (stack, axis), output, element in zip(
        stacks, node.output[len(values) :], elements, strict=True
    ):
        if not output:
            continue
        if not stack:
            inliner.add("Identity", [inliner.constant(_nothing(element, axis))], output)
            continue
        axes = inliner.constant(np.array([axis], np.int64))
        parts = [inliner.add("Unsqueeze", [name, axes]) for name in stack]
        inliner.stacked(parts, axis, output)


def _nothing(element: onnx.ValueInfoProto, axis: int) -> Array:
    shape = list(static_shape(element.type) or ())
    shape.insert(axis + len(shape) + 1 if axis < 0 else axis, 0)
    dtype = dtype_of(element.type.tensor_type.elem_type)
    assert dtype is not None
    return np.zeros(shape, dtype.numpy)


def _stacked_outputs(node: onnx.NodeProto) -> int:
    """How many of a loop's outputs collect a value from every iteration."""
    if node.op_type == "Loop":
        return len(_graph(node, "body").output) - 1 - max(len(node.input) - 2, 0)
    inputs = next(item.i for item in node.attribute if item.name == "num_scan_inputs")
    return len(_graph(node, "body").output) - (len(node.input) - int(inputs))


def _scan_length(node: onnx.NodeProto, slim: SlimModel, types: Types) -> int | str:
    """The number of iterations of a Scan, or why it is not known."""
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    count = int(given["num_scan_inputs"])
    axes = given.get("scan_input_axes") or [0] * count
    lengths: set[int | None] = set()
    for name, axis in zip(node.input[len(node.input) - count :], axes, strict=True):
        constant = slim.constants.get(name)
        shape = constant.shape if constant is not None else _dims(types.get(name))
        if shape is None or not -len(shape) <= axis < len(shape):
            return f"the shape of {name!r} is not known"
        if shape[axis] is None:
            return f"the length of {name!r} along axis {axis} is not known"
        lengths.add(shape[axis])
    if len(lengths) != 1:
        return f"its sequences are of {len(lengths)} lengths: {sorted(map(str, lengths))}"
    (length,) = lengths
    assert length is not None
    return length


def _dims(known: onnx.TypeProto | None) -> tuple[int | None, ...] | None:
    if known is None or not known.tensor_type.HasField("shape"):
        return None
    dims = known.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


_EXPANSIONS = {"If": _take, "Loop": _unroll_loop, "Scan": _unroll_scan}
