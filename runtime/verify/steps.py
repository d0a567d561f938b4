"""What the outputs of a quantised model may differ by.

Its values lie on grids. Sums in another order are a hair's breadth apart, and where one stands
halfway between two points of the grid, both roundings are right: one step of an output is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import numpy_helper

from ramforge.runtime.verify.tolerance import Tolerances

# In a subtraction of two multiples of a step there is another rounding.
_STEP = 1.001
_INTEGER = ("QuantizeLinear", "QLinearConv", "QLinearMatMul")


def steps(model: onnx.ModelProto, names: Iterable[str] | None = None) -> Tolerances:
    """One step for each output that a quantiser made; others keep what holds for their type.

    Other tensors than the outputs can be asked for by their names.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    scales = {
        each.name: each
        for each in model.graph.initializer
        if each.data_location != onnx.TensorProto.EXTERNAL
    }
    allowed = {}
    for name in [value.name for value in model.graph.output] if names is None else names:
        node = makers.get(name)
        if node is None:
            continue
        if node.op_type in _INTEGER:
            allowed[name] = 1.0
        elif node.op_type == "DequantizeLinear" and node.input[1] in scales:
            scale = numpy_helper.to_array(scales[node.input[1]])
            allowed[name] = _STEP * float(scale.max())
    return Tolerances(absolute=allowed, relative=dict.fromkeys(allowed, 0.0))


def usual_reference(model: onnx.ModelProto) -> str:
    """onnx.reference for a model with quantised outputs: ONNX Runtime takes such a one not word for
    word, it computes with other roundings.
    """
    return "onnx" if steps(model).absolute else "ort"
