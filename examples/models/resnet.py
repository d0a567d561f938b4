"""Residual networks (He et al., 2015), with batch normalisation as nodes of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx

from ramforge.zoo.builder import Builder
from ramforge.zoo.non_local import disentangled_non_local
from ramforge.zoo.quantise import quantised

# x, name, channels in, width and stride: a residual block and the channels that come out
Block = Callable[[Builder, str, str, int, int, int], tuple[str, int]]
# something of x that stands before a block
Insertion = Callable[[Builder, str], str]


def resnet18(
    image: int = 224, batch: int = 1, classes: int = 1000, make: type[Builder] = Builder
) -> onnx.ModelProto:
    """ResNet-18 as published: a 7x7 stem and four stages of two basic blocks."""
    builder = make("resnet18", seed=18)
    x = _stem(builder, builder.input("x", (batch, 3, image, image)), 64, kernel=7, stride=2)
    return _stages(builder, x, _basic_block, (64, 128, 256, 512), (2, 2, 2, 2), classes)


def resnet50(image: int = 224, batch: int = 1, classes: int = 1000) -> onnx.ModelProto:
    """ResNet-50 as published: the same stem and sixteen bottlenecks."""
    builder = Builder("resnet50", seed=54)
    x = _stem(builder, builder.input("x", (batch, 3, image, image)), 64, kernel=7, stride=2)
    return _stages(builder, x, _bottleneck, (64, 128, 256, 512), (3, 4, 6, 3), classes)


def resnet50_dnl(image: int = 224, classes: int = 1000) -> onnx.ModelProto:
    """ResNet-50 with a non-local block where Wang et al. put theirs: before the last of layer3."""
    builder = Builder("resnet50_dnl", seed=55)
    x = _stem(builder, builder.input("x", (1, 3, image, image)), 64, kernel=7, stride=2)
    before = {"/layer3.5": _non_local(1024, image // 16)}
    return _stages(builder, x, _bottleneck, (64, 128, 256, 512), (3, 4, 6, 3), classes, before)


def resnet50_dnl_small(image: int = 28) -> onnx.ModelProto:
    builder = Builder("resnet50_dnl_small", seed=55)
    x = _stem(builder, builder.input("x", (1, 3, image, image)), 8, kernel=3, stride=1)
    before = {"/layer2.1": _non_local(64, image // 4)}
    return _stages(builder, x, _bottleneck, (8, 16), (1, 2), 10, before)


def resnet_small(
    image: int = 32, width: int = 16, classes: int = 10, make: type[Builder] = Builder
) -> onnx.ModelProto:
    """The same structure at a size for tests: a 3x3 stem and three stages of one block."""
    builder = make("resnet_small", seed=3)
    x = _stem(builder, builder.input("x", (1, 3, image, image)), width, kernel=3, stride=1)
    widths = (width, 2 * width, 4 * width)
    return _stages(builder, x, _basic_block, widths, (1, 1, 1), classes)


def resnet50_small(image: int = 32) -> onnx.ModelProto:
    """The same with bottlenecks, two of them in the first stage."""
    builder = Builder("resnet50_small", seed=5)
    x = _stem(builder, builder.input("x", (1, 3, image, image)), 8, kernel=3, stride=1)
    return _stages(builder, x, _bottleneck, (8, 16, 32), (2, 1, 1), classes=10)


def resnet18_int8() -> onnx.ModelProto:
    return quantised(resnet18(make=_Differing), "resnet18_int8", seed=8)


def resnet18_int8_small() -> onnx.ModelProto:
    small = resnet_small(image=30, width=8, classes=64, make=_Differing)
    return quantised(small, "resnet18_int8_small", seed=8)


class _Differing(Builder):
    """Weights that let little get lost in rounding.

    Each output answers to differences between its inputs and not to what all of them share, which
    would take up the range; and what a block adds is louder than its shortcut.
    """

    def weight(self, name: str, *args: Any, **options: Any) -> str:
        values = self.taken(super().weight(name, *args, **options))
        values = values - values.mean(axis=tuple(range(1, values.ndim)), keepdims=True)
        return self.constant(name, 2 * values if "/conv2." in name else values)


def _stem(builder: Builder, x: str, width: int, *, kernel: int, stride: int) -> str:
    x = _convolution(builder, x, "", "1", 3, width, kernel=kernel, stride=stride)
    x = builder.node("Relu", [x], "/relu")
    return builder.node(
        "MaxPool", [x], "/maxpool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )


def _stages(
    builder: Builder,
    x: str,
    block: Block,
    widths: Sequence[int],
    blocks: Sequence[int],
    classes: int,
    before: Mapping[str, Insertion] | None = None,
) -> onnx.ModelProto:
    channels = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
        for number in range(count):
            stride = 2 if number == 0 and stage > 1 else 1
            name = f"/layer{stage}.{number}"
            if before and name in before:
                x = before[name](builder, x)
            x, channels = block(builder, x, name, channels, width, stride)
    x = builder.node("GlobalAveragePool", [x], "/avgpool")
    x = builder.node("Flatten", [x], "/flatten", axis=1)
    weight = builder.weight("fc.weight", (classes, channels), channels)
    bias = builder.bias("fc.bias", classes)
    return builder.finish([builder.node("Gemm", [x, weight, bias], "/fc", "logits", transB=1)])


def _basic_block(
    builder: Builder, x: str, name: str, channels: int, width: int, stride: int
) -> tuple[str, int]:
    shortcut = _shortcut(builder, x, name, channels, width, stride)
    y = _convolution(builder, x, name, "1", channels, width, kernel=3, stride=stride)
    y = builder.node("Relu", [y], f"{name}/relu")
    y = _convolution(builder, y, name, "2", width, width, kernel=3, stride=1)
    y = builder.node("Add", [y, shortcut], f"{name}/add")
    return builder.node("Relu", [y], f"{name}/relu_1"), width


def _bottleneck(
    builder: Builder, x: str, name: str, channels: int, width: int, stride: int
) -> tuple[str, int]:
    """Down to ``width`` channels, with the stride, and up to four times as many."""
    shortcut = _shortcut(builder, x, name, channels, 4 * width, stride)
    y = _convolution(builder, x, name, "1", channels, width, kernel=1, stride=stride)
    y = builder.node("Relu", [y], f"{name}/relu")
    y = _convolution(builder, y, name, "2", width, width, kernel=3, stride=1)
    y = builder.node("Relu", [y], f"{name}/relu_1")
    y = _convolution(builder, y, name, "3", width, 4 * width, kernel=1, stride=1)
    y = builder.node("Add", [y, shortcut], f"{name}/add")
    return builder.node("Relu", [y], f"{name}/relu_2"), 4 * width


def _non_local(channels: int, size: int) -> Insertion:
    return lambda builder, x: disentangled_non_local(builder, x, "/non_local", channels, size)


def _shortcut(builder: Builder, x: str, name: str, channels: int, out: int, stride: int) -> str:
    if stride == 1 and channels == out:
        return x
    return _convolution(
        builder, x, f"{name}/downsample", "", channels, out, kernel=1, stride=stride
    )


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
