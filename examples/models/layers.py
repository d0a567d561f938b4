"""Parts that most convolutional networks share: a normalised convolution, ReLU6, the classifier."""

from __future__ import annotations

import math

from ramforge.zoo.builder import Builder


def normalised(
    builder: Builder,
    x: str,
    name: str,
    channels: int,
    width: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    groups: int = 1,
    gain: float = math.sqrt(2),
    epsilon: float = 1e-5,
) -> str:
    """A convolution without bias and its batch normalisation."""
    x = builder.convolution(
        x, f"{name}/conv", channels, width, kernel, stride, groups=groups, gain=gain
    )
    return builder.batch_norm(x, f"{name}/norm", width, epsilon)


def relu6(builder: Builder, x: str, name: str) -> str:
    """ReLU6 as exporters write it; the bounds are made by ``relu6_bounds``."""
    return builder.node("Clip", [x, "relu6.low", "relu6.high"], f"{name}/relu6")


def relu6_bounds(builder: Builder) -> None:
    builder.constant("relu6.low", 0.0)
    builder.constant("relu6.high", 6.0)


def classify(builder: Builder, x: str, channels: int, classes: int) -> str:
    """The mean of each channel and a linear layer over them."""
    x = builder.node("GlobalAveragePool", [x], "/pool")
    x = builder.node("Flatten", [x], "/flatten", axis=1)
    weight = builder.weight("fc.weight", (classes, channels), channels)
    bias = builder.bias("fc.bias", classes)
    return builder.node("Gemm", [x, weight, bias], "/fc", "logits", transB=1)


def divisible(width: float, by: int = 8) -> int:
    """The nearest multiple, as mobile networks round their channels, at most 10% less."""
    rounded = max(by, int(width + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * width else rounded
