"""A classifier of fully connected layers, with a batch size that is left open."""

from __future__ import annotations

import math

import onnx

from ramforge.zoo.builder import Builder


def mlp(
    features: int = 64, hidden: int = 128, layers: int = 2, classes: int = 10
) -> onnx.ModelProto:
    """Probabilities from features; the dropout does nothing at inference."""
    builder = Builder("mlp", seed=1)
    x = builder.input("x", ("batch", features))
    width = features
    for layer in range(layers):
        x = _gemm(builder, x, f"/hidden.{layer}", width, hidden, math.sqrt(2))
        x = builder.node("Relu", [x], f"/relu.{layer}")
        width = hidden
    x = builder.node("Dropout", [x, builder.constant("ratio", 0.5)], "/dropout")
    x = _gemm(builder, x, "/classifier", width, classes, 2.0)
    return builder.finish([builder.node("Softmax", [x], "/softmax", "probabilities", axis=-1)])


def _gemm(builder: Builder, x: str, name: str, inputs: int, outputs: int, gain: float) -> str:
    weight = builder.weight(f"{name}.weight", (outputs, inputs), inputs, gain)
    return builder.node("Gemm", [x, weight, builder.bias(f"{name}.bias", outputs)], name, transB=1)
