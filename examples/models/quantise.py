"""A float network as a quantised one, in the form that ONNX Runtime's static quantiser writes.

Normalisations are folded into their convolutions. Then every value passes through QuantizeLinear
and DequantizeLinear: activations as int8 with one scale and zero point each, from the range that
they have for a sample; weights as int8 with a scale for each output channel; biases as int32. A
ReLU goes away where the quantised range begins at 0, for there rounding into it does the same.
All scales are powers of two. Then sums of products are exact in float32, in whatever order they are
made, and no layer makes another layer's rounding go the other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ramforge.zoo.builder import Builder

Array = NDArray[Any]

# What gives its input on in the same range, and so with the same scale.
_KEEP_RANGE = ("MaxPool", "Flatten")
_WITH_WEIGHTS = ("Conv", "Gemm")
_LOWEST, _HIGHEST = -128, 127
# The first for which onnx.reference dequantises.
_OPSET = 19


def quantised(model: onnx.ModelProto, name: str, seed: int) -> onnx.ModelProto:
    """The chain of Conv, BatchNormalization, Relu, Add, pooling and Gemm, as int8."""
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = _folded(list(graph.node), weights)
    network = _Quantised(Builder(name, opset=_OPSET), _ranges(model, nodes, weights, seed), weights)
    for value in graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        network.through_int8(network.builder.input(value.name, shape), value.name)
    final = [value.name for value in graph.output]
    for node in nodes:
        network.add(node, node.output[0] in final)
    return network.builder.finish(final)


@dataclass
class _Scale:
    """How numbers lie on a grid."""

    step: float
    zero: int


class _Quantised:
    """Writes the nodes; ``now`` tells what stands for each value of the float network."""

    def __init__(
        self, builder: Builder, ranges: Mapping[str, tuple[float, float]], weights: dict[str, Array]
    ) -> None:
        self.builder = builder
        self._ranges = ranges
        self._weights = weights
        self._now: dict[str, str] = {}
        self._scales: dict[str, _Scale] = {}

    def add(self, node: onnx.NodeProto, is_final: bool) -> None:
        source, (result,) = node.input[0], node.output
        if node.op_type == "Relu":
            self._now[result] = self._now[source]
            self._scales[result] = self._scales[source]
            return
        operands = [self._now[name] for name in node.input if name in self._now]
        if node.op_type in _WITH_WEIGHTS:
            operands += self._constants(node, self._scales[source].step)
        if node.op_type in _KEEP_RANGE:
            self._scales[result] = self._scales[source]
        copy = self.builder.node(
            node.op_type,
            operands,
            node.name,
            f"{result}_float",
            **{each.name: helper.get_attribute_value(each) for each in node.attribute},
        )
        self.through_int8(copy, result, is_final)

    def through_int8(self, x: str, name: str, is_final: bool = False) -> None:
        """Round to the grid of the value called ``name`` in the float network."""
        if name not in self._scales:
            low, high = self._ranges[name]
            step = float(_step((high - low) / (_HIGHEST - _LOWEST)))
            self._scales[name] = _Scale(step, round(_LOWEST - low / step))
        scale = self._scales[name]
        grid = [
            self.builder.constant(f"{name}_scale", scale.step),
            self.builder.constant(f"{name}_zero_point", np.array(scale.zero, np.int8)),
        ]
        rounded = self.builder.node("QuantizeLinear", [x, *grid], f"{name}_QuantizeLinear")
        output = name if is_final else ""
        self._now[name] = self.builder.node(
            "DequantizeLinear", [rounded, *grid], f"{name}_DequantizeLinear", output
        )

    def _constants(self, node: onnx.NodeProto, step: float) -> list[str]:
        """Weights and bias; a step of the bias is what a product of single steps makes."""
        weight, bias = (self._weights[name] for name in node.input[1:])
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        steps = _step(largest / _HIGHEST)
        grid = np.rint(weight / steps.reshape(-1, *[1] * (weight.ndim - 1)))
        both = steps * np.float32(step)
        return [
            self._stored(node.input[1], grid.astype(np.int8), steps),
            self._stored(node.input[2], np.rint(bias / both).astype(np.int32), both),
        ]

    def _stored(self, name: str, values: Array, steps: Array) -> str:
        operands = [
            self.builder.constant(f"{name}_quantized", values),
            self.builder.constant(f"{name}_scale", steps),
            self.builder.constant(f"{name}_zero_point", np.zeros(len(steps), values.dtype)),
        ]
        return self.builder.node("DequantizeLinear", operands, f"{name}_DequantizeLinear", axis=0)


def _step(least: Any) -> Any:
    """The least power of two that is not below."""
    return np.exp2(np.ceil(np.log2(least))).astype(np.float32)


def _folded(nodes: list[onnx.NodeProto], weights: dict[str, Array]) -> list[onnx.NodeProto]:
    """Each convolution with the normalisation behind it, as a convolution with a bias."""
    folded: list[onnx.NodeProto] = []
    for node in nodes:
        if node.op_type != "BatchNormalization":
            folded.append(node)
            continue
        convolution = folded.pop()
        assert convolution.op_type == "Conv" and list(convolution.output) == [node.input[0]]
        scale, shift, mean, variance = (weights[name] for name in node.input[1:])
        epsilon = next(each.f for each in node.attribute if each.name == "epsilon")
        factor = scale / np.sqrt(variance + epsilon)
        weight, bias = convolution.input[1], f"{convolution.input[1]}.bias"
        weights[weight] = weights[weight] * factor.reshape(-1, 1, 1, 1)
        weights[bias] = shift - mean * factor
        joined = onnx.NodeProto()
        joined.CopyFrom(convolution)
        joined.input.append(bias)
        joined.output[0] = node.output[0]
        folded.append(joined)
    return folded


def _ranges(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], weights: Mapping[str, Array], seed: int
) -> dict[str, tuple[float, float]]:
    """Between what all values lie for a random sample; 0 always belongs to it.

    What only a ReLU reads has the range that is left behind it.
    """
    names = [node.output[0] for node in nodes]
    graph = helper.make_graph(
        nodes,
        "sample",
        model.graph.input,
        [helper.make_empty_tensor_value_info(name) for name in names],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    sample = helper.make_model(graph, opset_imports=model.opset_import)
    random = np.random.default_rng(seed)
    values: dict[str, Array] = {}
    for value in model.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        values[value.name] = random.standard_normal(shape).astype(np.float32)
    found: list[Any] = list(ReferenceEvaluator(sample).run(names, values))
    values |= zip(names, found, strict=True)
    ranges = {
        name: (min(0.0, float(array.min())), max(0.0, float(array.max())))
        for name, array in values.items()
    }
    for node in nodes:
        if node.op_type == "Relu":
            ranges[node.input[0]] = ranges[node.output[0]]
    return ranges
