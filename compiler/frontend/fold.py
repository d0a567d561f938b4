"""Infers shapes and computes what is known, until nothing changes.

Input: a SlimModel, output: the same model with types of all tensors that can be known, where chains
such as Shape - Gather - Concat - Reshape have become constants.

The values are computed one node at a time: importing onnxscript's optimizer alone takes longer than
a whole import here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, shape_inference

from ramforge.compiler import registry
from ramforge.compiler.frontend.evaluate import evaluate
from ramforge.compiler.frontend.slim import (
    Inferred,
    SlimModel,
    copy_with_nodes,
    dtype_of,
    static_shape,
    with_constants,
)
from ramforge.compiler.ir import Array

FOLD_BYTES = 1 << 16
LONGEST_LIST = 1 << 16
# Random operators, and quantisation, whose pairs the passes want to see.
_NEVER = frozenset(
    (
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
        "Dropout",
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
    )
)
# Their result may be large although their inputs are small: folded once its size is known.
_GROWING = frozenset(
    ("Expand", "Tile", "ConstantOfShape", "Range", "Pad", "Resize", "OneHot", "EyeLike", "Upsample")
)

# Defaults that onnx's shape inference does not know (seen with onnx 1.23).
_UNKNOWN_DEFAULTS = {
    "STFT": helper.make_attribute("onesided", 1),
}

Shape = tuple[int, ...]


def infer(slim: SlimModel) -> Inferred:
    """One run of onnx's shape inference; errors do not stop it."""
    proto = copy_with_nodes(slim.proto, slim.proto.graph.node)
    _write_defaults(proto)
    _stand_in(proto)
    types = {value.name: value.type for value in proto.graph.input}
    for tensor in proto.graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    for value in proto.graph.output:
        if value.name in types:
            value.type.CopyFrom(types[value.name])
            continue
        if value.name in slim.settled:
            value.CopyFrom(slim.settled[value.name])
        # What the exporter wrote may be for other sizes; inference finds the true ones.
        elif value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    outputs = {value.name for value in proto.graph.output}
    proto.graph.value_info.extend(v for name, v in slim.settled.items() if name not in outputs)
    # of an unsupported type there is a problem anyhow, and it is the one to tell of
    plain = all(dtype_of(value.type.tensor_type.elem_type) for value in proto.graph.input)
    # onnx makes an object for each element of a list that might say a shape
    short = all(_list_length(value.type) <= LONGEST_LIST for value in proto.graph.input)
    try:
        inferred = shape_inference.infer_shapes(
            proto, check_type=plain, strict_mode=True, data_prop=short
        )
        return Inferred(_as_before(slim, inferred), "")
    except Exception as error:  # C++ errors without a common base; the message is kept
        complaint = str(error)
    try:
        inferred = shape_inference.infer_shapes(proto, data_prop=short)
    except Exception:  # then there are no types, and the complaint says why
        inferred = proto
    return Inferred(_as_before(slim, inferred), complaint)


def _list_length(known: onnx.TypeProto) -> int:
    dims = known.tensor_type.shape.dim
    return int(dims[0].dim_value) if len(dims) == 1 else 0


def _stand_in(proto: onnx.ModelProto) -> None:
    """Put an Identity where the output is like the input: of some of these onnx infers nothing, or
    only through a function body that does not have all types.
    """
    for node in proto.graph.node:
        operator = None if node.domain else registry.find(node.op_type)
        if operator is not None and operator.like_input and node.input and node.output:
            ends = [node.input[0]], [node.output[0]]
            node.CopyFrom(helper.make_node("Identity", *ends, name=node.name))


def _as_before(slim: SlimModel, inferred: onnx.ModelProto) -> SlimModel:
    """The inferred types around the nodes that there were."""
    del inferred.graph.node[:]
    inferred.graph.node.extend(slim.proto.graph.node)
    return slim.with_proto(inferred)


def _write_defaults(proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        default = _UNKNOWN_DEFAULTS.get(node.op_type)
        if default and not any(attribute.name == default.name for attribute in node.attribute):
            node.attribute.append(default)


def infer_and_fold(slim: SlimModel) -> Inferred:
    """Infer and fold in turns: each folded chain may give the next one its shape."""
    while True:
        inferred = infer(slim)
        folded = fold(inferred.model)
        if folded is inferred.model:
            return inferred
        slim = folded


def fold(slim: SlimModel) -> SlimModel:
    """Replace nodes whose result is known; the same object when there is none."""
    graph = slim.proto.graph
    types = {value.name: value.type for value in (*graph.value_info, *graph.output, *graph.input)}
    known = {name: array for name, array in slim.constants.items() if array.nbytes <= FOLD_BYTES}
    found: dict[str, Array] = {}
    kept: list[onnx.NodeProto] = []
    for node in slim.proto.graph.node:
        results = _results(node, slim.proto, known, types)
        if results is not None:
            known.update(results)
            found.update(results)
            continue
        kept.append(node)
    if not found:
        return slim
    return with_constants(slim.with_proto(copy_with_nodes(slim.proto, kept)), found)


def _results(
    node: onnx.NodeProto,
    proto: onnx.ModelProto,
    known: Mapping[str, Array],
    types: Mapping[str, onnx.TypeProto],
) -> dict[str, Array] | None:
    """The values of a node's outputs, None where they are not known."""
    if node.domain not in ("", "ai.onnx") or node.op_type in _NEVER:
        return None
    if node.op_type in ("Shape", "Size"):
        return _measure(node, known, types)
    if any(name and name not in known for name in node.input):
        return None
    if any(
        attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        for attribute in node.attribute
    ):
        return None
    for output in filter(None, node.output):
        shape = static_shape(types.get(output))
        element_type = types[output].tensor_type.elem_type if output in types else 0
        dtype = dtype_of(element_type)
        if shape is not None and dtype:
            if math.prod(shape) * dtype.itemsize > FOLD_BYTES:
                return None
        elif node.op_type in _GROWING or (element_type and dtype is None):
            return None
    return evaluate(node, proto, known, types)


def _measure(
    node: onnx.NodeProto, known: Mapping[str, Array], types: Mapping[str, onnx.TypeProto]
) -> dict[str, Array] | None:
    name = node.input[0]
    shape = known[name].shape if name in known else static_shape(types.get(name))
    if shape is None:
        return None
    if node.op_type == "Size":
        return {node.output[0]: np.array(np.prod(shape, dtype=np.int64), np.int64)}
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    part = slice(bounds.get("start", 0), bounds.get("end", len(shape)))
    return {node.output[0]: np.array(shape[part], np.int64)}
