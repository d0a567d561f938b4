"""A small MobileNet: depthwise and pointwise convolutions, ReLU6 as Clip, one grouped one."""

from __future__ import annotations

import onnx

from ramforge.zoo.builder import Builder

# High enough that some values do meet the 6 of ReLU6.
_GAIN = 2.2


def mobilenet_small(image: int = 32, classes: int = 10) -> onnx.ModelProto:
    """A stem, four depthwise-separable blocks (one of them residual) and a grouped mixer."""
    builder = Builder("mobilenet_small", seed=6)
    builder.constant("zero", 0.0)
    builder.constant("six", 6.0)
    x = builder.input("x", (1, 3, image, image))
    x = _relu6(builder, _convolution(builder, x, "/stem", 3, 16, kernel=3, stride=2), "/stem")
    x = _separable(builder, x, "/blocks.0", 16, 24, stride=1)
    x = _separable(builder, x, "/blocks.1", 24, 32, stride=2)
    x = builder.node(
        "Add", [_separable(builder, x, "/blocks.2", 32, 32, stride=1), x], "/blocks.2/add"
    )
    x = _convolution(builder, x, "/mixer", 32, 48, kernel=3, stride=1, groups=4)
    x = _relu6(builder, x, "/mixer")
    x = _separable(builder, x, "/blocks.3", 48, 64, stride=2)
    x = builder.node("GlobalAveragePool", [x], "/pool")
    x = builder.node("Flatten", [x], "/flatten", axis=1)
    weight = builder.weight("classifier.weight", (classes, 64), 64)
    bias = builder.bias("classifier.bias", classes)
    logits = builder.node("Gemm", [x, weight, bias], "/classifier", "logits", transB=1)
    return builder.finish([logits])


def _separable(builder: Builder, x: str, name: str, channels: int, width: int, stride: int) -> str:
    x = _convolution(
        builder,
        x,
        f"{name}/depthwise",
        channels,
        channels,
        kernel=3,
        stride=stride,
        groups=channels,
    )
    x = _relu6(builder, x, f"{name}/depthwise")
    x = _convolution(builder, x, f"{name}/pointwise", channels, width, kernel=1, stride=1)
    return _relu6(builder, x, f"{name}/pointwise")


def _relu6(builder: Builder, x: str, name: str) -> str:
    return builder.node("Clip", [x, "zero", "six"], f"{name}/relu6")


def _convolution(
    builder: Builder, x: str, name: str, channels: int, width: int, **options: int
) -> str:
    """A convolution with a bias, as it stands once batch normalisation is folded."""
    return builder.convolution(x, f"{name}/conv", channels, width, gain=_GAIN, bias=True, **options)
