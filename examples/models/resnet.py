"""Residual networks (He et al., 2015), with batch normalisation as nodes of its own."""

from __future__ import annotations

import onnx

from examples.models.builder import Builder


def resnet18(image: int = 224, batch: int = 1, classes: int = 1000) -> onnx.ModelProto:
    """ResNet-18 as published: a 7x7 stem and four stages of two basic blocks."""
    builder = Builder("resnet18", seed=18)
    x = builder.input("x", (batch, 3, image, image))
    x = _convolution(builder, x, "", "1", 3, 64, kernel=7, stride=2)
    x = builder.node("Relu", [x], "/relu")
    x = _max_pool(builder, x)
    return _stages(builder, x, (64, 128, 256, 512), 2, classes)


def resnet_small(image: int = 32) -> onnx.ModelProto:
    """The same structure at a size for tests: a 3x3 stem and three stages of one block."""
    builder = Builder("resnet_small", seed=3)
    x = builder.input("x", (1, 3, image, image))
    x = _convolution(builder, x, "", "1", 3, 16, kernel=3, stride=1)
    x = builder.node("Relu", [x], "/relu")
    x = _max_pool(builder, x)
    return _stages(builder, x, (16, 32, 64), 1, classes=10)


def _stages(
    builder: Builder, x: str, widths: tuple[int, ...], blocks: int, classes: int
) -> onnx.ModelProto:
    channels = widths[0]
    for stage, width in enumerate(widths, start=1):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 1 else 1
            x = _basic_block(builder, x, f"/layer{stage}.{block}", channels, width, stride)
            channels = width
    x = builder.node("GlobalAveragePool", [x], "/avgpool")
    x = builder.node("Flatten", [x], "/flatten", axis=1)
    weight = builder.weight("fc.weight", (classes, channels), channels)
    bias = builder.bias("fc.bias", classes)
    return builder.finish([builder.node("Gemm", [x, weight, bias], "/fc", "logits", transB=1)])


def _basic_block(
    builder: Builder, x: str, name: str, channels: int, width: int, stride: int
) -> str:
    shortcut = x
    if stride != 1 or channels != width:
        shortcut = _convolution(
            builder, x, f"{name}/downsample", "", channels, width, kernel=1, stride=stride
        )
    y = _convolution(builder, x, name, "1", channels, width, kernel=3, stride=stride)
    y = builder.node("Relu", [y], f"{name}/relu")
    y = _convolution(builder, y, name, "2", width, width, kernel=3, stride=1)
    y = builder.node("Add", [y, shortcut], f"{name}/add")
    return builder.node("Relu", [y], f"{name}/relu_1")


def _convolution(
    builder: Builder,
    x: str,
    name: str,
    suffix: str,
    channels: int,
    width: int,
    *,
    kernel: int,
    stride: int,
) -> str:
    """A convolution and its batch normalisation."""
    x = builder.convolution(x, f"{name}/conv{suffix}", channels, width, kernel, stride)
    return builder.batch_norm(x, f"{name}/bn{suffix}", width)


def _max_pool(builder: Builder, x: str) -> str:
    return builder.node(
        "MaxPool", [x], "/maxpool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
