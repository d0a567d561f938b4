"""A small builder of ONNX models with seeded weights, so that each network reads like its paper.

Weights are scaled so that activations keep about the size of the input through any depth: a wrong
stride, axis or missing bias then shows in the output, and nothing overflows or dies out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
# A constant of more bytes says no shape, and is kept from what only looks at shapes.
_SMALL_BYTES = 1024

Dimension = int | str
Attribute = int | float | str | Sequence[int]


class Builder:
    """Collects nodes and weights; values are handled by their ONNX names."""

    def __init__(self, name: str, seed: int = 0, opset: int = OPSET) -> None:
        self._name = name
        self._opset = helper.make_opsetid("", opset)
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._constants: dict[str, NDArray[Any]] = {}

    def input(self, name: str, shape: Sequence[Dimension], dtype: int = TensorProto.FLOAT) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def constant(self, name: str, value: NDArray[Any] | Sequence[int] | float) -> str:
        """A known value; plain integers become int64 as shapes want it, a plain float float32."""
        dtype = np.float32 if isinstance(value, float) else None
        self._constants[name] = np.asarray(value, dtype=dtype)
        return name

    def taken(self, name: str) -> NDArray[Any]:
        """The value of a constant, which then is none of the model's: to make another one of it."""
        return self._constants.pop(name)

    def weight(
        self,
        name: str,
        shape: Sequence[int],
        fan_in: int,
        gain: float = 1.0,
        dtype: type[np.floating[Any]] = np.float32,
    ) -> str:
        """Normal weights; a gain of sqrt(2) keeps the size of what passes a ReLU."""
        values = self._random.standard_normal(tuple(shape))
        values *= gain
        values /= np.sqrt(fan_in)
        return self.constant(name, values.astype(dtype))

    def bias(self, name: str, size: int, mean: float = 0.0, spread: float = 0.2) -> str:
        return self.constant(name, self._random.normal(mean, spread, size).astype(np.float32))

    def spread(self, name: str, size: int, low: float, high: float) -> str:
        """Values between two bounds, for scales and variances."""
        return self.constant(name, self._random.uniform(low, high, size).astype(np.float32))

    def node(
        self, op: str, inputs: Sequence[str], name: str, output: str = "", **attributes: Attribute
    ) -> str:
        """Add a node with one output, which is named after it unless ``output`` says otherwise."""
        return self.nodes(op, inputs, name, (output or f"{name}_output_0",), **attributes)[0]

    def nodes(
        self,
        op: str,
        inputs: Sequence[str],
        name: str,
        outputs: Sequence[str],
        **attributes: Attribute,
    ) -> tuple[str, ...]:
        """Add a node with several outputs."""
        node = helper.make_node(op, inputs, outputs, name=name)
        for key, value in sorted(attributes.items()):
            node.attribute.append(helper.make_attribute(key, value))
        self._nodes.append(node)
        return tuple(outputs)

    def convolution(
        self,
        x: str,
        name: str,
        channels: int,
        width: int,
        kernel: int,
        stride: int = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
        gain: float = math.sqrt(2),
        bias: bool = False,
    ) -> str:
        """A square convolution, padded to keep the size unless ``padding`` says otherwise."""
        shape = (width, channels // groups, kernel, kernel)
        operands = [x, self.weight(f"{name}.weight", shape, shape[1] * kernel * kernel, gain)]
        if bias:
            operands.append(self.bias(f"{name}.bias", width))
        return self.node(
            "Conv",
            operands,
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2 if padding is None else padding] * 4,
            group=groups,
        )

    def batch_norm(self, x: str, name: str, width: int, epsilon: float = 1e-5) -> str:
        """Batch normalisation whose statistics are far from (0, 1)."""
        statistics = [
            self.spread(f"{name}.weight", width, 0.5, 1.0),
            self.bias(f"{name}.bias", width),
            self.bias(f"{name}.running_mean", width),
            self.spread(f"{name}.running_var", width, 0.5, 2.0),
        ]
        return self.node("BatchNormalization", [x, *statistics], name, epsilon=epsilon)

    def finish(self, outputs: Sequence[str]) -> onnx.ModelProto:
        """The checked model, to which the weights go over; its outputs' shapes are inferred.

        The checks copy what they look at, and protobuf ends at 2 GB. They see large weights as
        further inputs.
        """
        large = {k: v for k, v in self._constants.items() if v.nbytes > _SMALL_BYTES}
        seen = self._model([helper.make_empty_tensor_value_info(name) for name in outputs])
        for name, value in self._constants.items():
            if name not in large:
                seen.graph.initializer.append(numpy_helper.from_array(value, name))
        for name, value in large.items():
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            seen.graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
        inferred = onnx.shape_inference.infer_shapes(seen, strict_mode=True)
        del seen.graph.output[:]
        seen.graph.output.extend(inferred.graph.output)
        onnx.checker.check_model(seen, full_check=True)
        model = self._model(inferred.graph.output)
        large.clear()
        for name in tuple(self._constants):
            model.graph.initializer.append(numpy_helper.from_array(self.taken(name), name))
        return model

    def _model(self, outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """The model without constants."""
        return helper.make_model(
            helper.make_graph(self._nodes, self._name, self._inputs, list(outputs)),
            producer_name="ramforge-examples",
            opset_imports=[self._opset],
            ir_version=helper.find_min_ir_version_for([self._opset]),
        )
