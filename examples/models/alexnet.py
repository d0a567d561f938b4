"""AlexNet (Krizhevsky et al., 2012): five convolutions, three dense layers with most weights."""

from __future__ import annotations

import math

import onnx

from ramforge.zoo.builder import Builder

_RELU_GAIN = math.sqrt(2)
# (channels out, kernel, stride, padding, pooled afterwards)
_CONVOLUTIONS = (
    (96, 11, 4, 0, True),
    (256, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)


def alexnet(image: int = 227, divide: int = 1, classes: int = 1000) -> onnx.ModelProto:
    """As published, in one tower; ``divide`` makes every layer that much narrower."""
    builder = Builder("alexnet", seed=5)
    x = builder.input("x", (1, 3, image, image))
    channels, size = 3, image
    for number, (width, kernel, stride, padding, pooled) in enumerate(_CONVOLUTIONS, start=1):
        width //= divide
        name = f"/conv{number}"
        x = builder.convolution(
            x, name, channels, width, kernel, stride, padding=padding, bias=True
        )
        x = builder.node("Relu", [x], f"{name}/relu")
        size = (size + 2 * padding - kernel) // stride + 1
        channels = width
        if pooled:
            x = builder.node("MaxPool", [x], f"/pool{number}", kernel_shape=[3, 3], strides=[2, 2])
            size = (size - 3) // 2 + 1
    x = builder.node("Flatten", [x], "/flatten", axis=1)
    features = channels * size * size
    for number, width in ((6, 4096 // divide), (7, 4096 // divide)):
        x = _dense(builder, x, f"/fc{number}", features, width)
        x = builder.node("Relu", [x], f"/fc{number}/relu")
        features = width
    return builder.finish([_dense(builder, x, "/fc8", features, classes, "logits")])


def alexnet_small() -> onnx.ModelProto:
    return alexnet(image=67, divide=16, classes=10)


def _dense(builder: Builder, x: str, name: str, features: int, width: int, output: str = "") -> str:
    weight = builder.weight(f"{name}.weight", (width, features), features, _RELU_GAIN)
    # with a mean of 0 half of the units would be shut, and with them mistakes in their weights
    bias = builder.bias(f"{name}.bias", width, mean=2.0)
    return builder.node("Gemm", [x, weight, bias], name, output, transB=1)
