"""What the outputs of a quantised model may differ by.

Its values lie on grids. Sums in another order are a hair's breadth apart, and where one stands
halfway between two points of the grid, both roundings are right: one step of an output is allowed.
"""

from __future__ import annotations

import onnx
from onnx import numpy_helper

from ramforge.runtime.verify.tolerance import Tolerances

# In a subtraction of two multiples of a step there is another rounding.
_STEP = 1.001
_INTEGER = ("QuantizeLinear", "QLinearConv", "QLinearMatMul")


def steps(model: onnx.ModelProto) -> Tolerances:
    """One step for each output that a quantiser made; others keep what holds for their type."""
    makers = {name: node for node in model.graph.node for name in node.output}
    scales = {each.name: each for each in model.graph.initializer}
    allowed = {}
    for output in model.graph.output:
        node = makers.get(output.name)
        if node is None:
            continue
        if node.op_type in _INTEGER:
            allowed[output.name] = 1.0
        elif node.op_type == "DequantizeLinear" and node.input[1] in scales:
            scale = numpy_helper.to_array(scales[node.input[1]])
            allowed[output.name] = _STEP * float(scale.max())
    return Tolerances(absolute=allowed, relative=dict.fromkeys(allowed, 0.0))
