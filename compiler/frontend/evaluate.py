"""The value of one node whose operands are known, as the compiled program would compute it.

Input: a node and its constants, output: a value for each of its outputs, or None. What has no
kernel is computed by onnx.reference, and so is a result whose shape only the values tell. The rest
is not: onnx.reference is wrong here and there (LpNormalization, pooling with ceil_mode).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from ramforge.compiler import registry
from ramforge.compiler.errors import CompileError
from ramforge.compiler.expressions import interpret
from ramforge.compiler.expressions.computation import computation_of
from ramforge.compiler.frontend.build import build
from ramforge.compiler.frontend.slim import Inferred, Origin, SlimModel, opset_of, static_shape
from ramforge.compiler.ir import Array, DType, Graph
from ramforge.compiler.passes.express import express

Known = Mapping[str, Array]
Types = Mapping[str, onnx.TypeProto]

# Elements that one step may go through; what takes more is left to fold_constants.
MOST_ELEMENTS = 1 << 22


def evaluate(
    node: onnx.NodeProto, proto: onnx.ModelProto, known: Known, types: Types
) -> dict[str, Array] | None:
    inputs = {name: known[name] for name in dict.fromkeys(node.input) if name}
    outputs = [name for name in node.output if name]
    has_shapes = all(static_shape(types.get(name)) is not None for name in outputs)
    if has_shapes and outputs and registry.find(node.op_type) is not None:
        graph = _expressed(node, proto, inputs, types)
        if graph is not None:
            try:
                return _computed(graph)
            except (IndexError, ValueError):  # of a model that contradicts itself
                return None
    return _referenced(node, proto, inputs)


def _expressed(
    node: onnx.NodeProto, proto: onnx.ModelProto, inputs: Known, types: Types
) -> Graph | None:
    """The node as computations; None if its kernel cannot do it."""
    ports = [onnx.ValueInfoProto(name=name, type=types[name]) for name in node.output if name]
    alone = helper.make_model(
        helper.make_graph([node], "one_node", [], ports), opset_imports=proto.opset_import
    )
    origins = {node.name: Origin(node.name, node.op_type)}
    slim = SlimModel("one_node", alone, inputs, {}, origins, opset_of(proto))
    try:
        graph = express(build(Inferred(slim, ""), "one_node"))
    except CompileError:
        return None
    made = {*graph.constants, *(name for step in graph.nodes for name in step.outputs)}
    return graph if made.issuperset(graph.outputs) else None


def _computed(graph: Graph) -> dict[str, Array] | None:
    values = dict(graph.constants)
    for step in graph.nodes:
        computation = computation_of(step)
        if math.prod(computation.shape) * computation.reduction_size > MOST_ELEMENTS:
            return None
        operands = [values[name] for name in step.inputs]
        values[step.outputs[0]] = interpret.run(computation, operands)
    if any(np.any(values[name]) for name in graph.checks):
        return None
    return {name: values[name] for name in graph.outputs if name not in graph.checks}


def _referenced(
    node: onnx.NodeProto, proto: onnx.ModelProto, inputs: Known
) -> dict[str, Array] | None:
    from onnx.reference import ReferenceEvaluator  # many models have nothing to fold

    outputs = [name for name in node.output if name]
    graph = helper.make_graph(
        [node],
        "one_node",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=proto.opset_import)
    try:
        with np.errstate(all="ignore"):
            values = ReferenceEvaluator(model).run(None, dict(inputs))
    except Exception:  # the reference lacks some operators; then the node stays
        return None
    results = {}
    for name, value in zip(outputs, values, strict=True):
        if not isinstance(value, (np.ndarray, np.generic)):
            return None
        try:
            DType.of(value)
        except (KeyError, TypeError):
            return None
        results[name] = np.asarray(value)
    return results
