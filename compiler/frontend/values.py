"""Inputs whose value is known at compile time, and which ones are worth knowing.

``give`` turns inputs into constants (``--bind``, ``values=``). ``deciding_inputs`` names those that
shapes depend on: no program of fixed shapes can be made before they are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from onnx import helper

from ramforge.compiler import registry
from ramforge.compiler.errors import CompileError
from ramforge.compiler.frontend.slim import (
    SlimModel,
    copy_with_nodes,
    element_label,
    with_constants,
)
from ramforge.compiler.frontend.subgraphs import all_nodes, subgraphs
from ramforge.compiler.ir import Array, DType

# What an operand has to be small for: it lists sizes, axes, offsets or repeats.
MOST_ELEMENTS = 1024

# Operands that decide what the front end replaces a node with.
_OF_REPLACED: Mapping[str, tuple[int, ...]] = {
    "Dropout": (1, 2),
    "If": (0,),
    "Loop": (0, 1),
    "SequenceAt": (1,),
    "SequenceErase": (1,),
    "SequenceInsert": (2,),
    "SplitToSequence": (1,),
    "Upsample": (1,),
}


def give(slim: SlimModel, values: Mapping[str, Array]) -> SlimModel:
    """The model with these inputs as constants."""
    if not values:
        return slim
    inputs = {value.name: value for value in slim.inputs}
    complaints = []
    for name, array in values.items():
        if name not in inputs:
            known = ", ".join(map(repr, inputs)) or "none"
            complaints.append(f"the model has no input {name!r}; it has: {known}")
        else:
            complaints.extend(_disagreements(inputs[name], np.asarray(array)))
    if complaints:
        raise CompileError(
            "\n".join(
                [
                    f"{slim.name}: the given values do not fit the model",
                    *(f"  {complaint}" for complaint in complaints),
                    "    fix: give each input an array of its own type and shape",
                ]
            )
        )
    proto = copy_with_nodes(slim.proto, slim.proto.graph.node)
    kept = [value for value in proto.graph.input if value.name not in values]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    return with_constants(slim.with_proto(proto), {n: np.asarray(a) for n, a in values.items()})


def _disagreements(declared: onnx.ValueInfoProto, array: Array) -> Iterator[str]:
    tensor = declared.type.tensor_type
    try:
        DType.of(array)
        found = element_label(helper.np_dtype_to_tensor_dtype(array.dtype))
    except (KeyError, ValueError):
        found = str(array.dtype)
    expected = element_label(tensor.elem_type)
    if found != expected:
        yield f"input {declared.name!r}: expected {expected}, found {found}"
    if not tensor.HasField("shape"):
        return
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if len(sizes) != array.ndim or any(
        size is not None and size >= 0 and size != given
        for size, given in zip(sizes, array.shape, strict=True)
    ):
        wanted = "x".join("?" if size is None else str(size) for size in sizes) or "scalar"
        yield (
            f"input {declared.name!r}: expected shape {wanted}, "
            f"found {'x'.join(map(str, array.shape)) or 'scalar'}"
        )


def deciding_inputs(model: onnx.ModelProto) -> frozenset[str]:
    """The inputs of a model that a shape depends on, directly or through arithmetic on integers."""
    return sources(model.graph, _operands(model.graph.node))


def sources(graph: onnx.GraphProto, names: Iterable[str]) -> frozenset[str]:
    """The small inputs of a graph that the values of these tensors come from."""
    inputs = {value.name: value for value in graph.input}
    makers = {name: node for node in all_nodes(graph) for name in node.output}
    pending = list(names)
    seen: set[str] = set()
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        if name in inputs:
            if _is_small(inputs[name]):
                found.add(name)
        elif name in makers and makers[name].op_type not in ("Shape", "Size"):
            pending.extend(makers[name].input)
            for inner in subgraphs(makers[name]):
                pending.extend(value.name for value in inner.output)
    return frozenset(found)


def deciding_slots(op: str) -> tuple[int, ...]:
    """Which operands of an operator decide a shape."""
    operator = registry.find(op)
    return operator.deciding if operator is not None else _OF_REPLACED.get(op, ())


def _operands(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """What decides a shape somewhere in these nodes or their subgraphs."""
    for node in nodes:
        for slot in deciding_slots(node.op_type):
            if slot < len(node.input):
                yield node.input[slot]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _operands(attribute.g.node)


def _is_small(value: onnx.ValueInfoProto) -> bool:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or len(tensor.shape.dim) > 1:
        return False
    sizes = [dim.dim_value for dim in tensor.shape.dim if dim.HasField("dim_value")]
    return all(size <= MOST_ELEMENTS for size in sizes)
