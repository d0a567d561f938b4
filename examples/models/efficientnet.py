"""EfficientNet-B0 (Tan and Le, 2019): inverted residuals with Swish and squeeze-excite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

from ramforge.zoo.builder import Builder
from ramforge.zoo.layers import classify, normalised

# expansion, kernel, stride of the first block, channels, blocks (table 1)
Stage = tuple[int, int, int, int, int]
STAGES: Sequence[Stage] = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
# Swish and the statistics of the normalisation make values smaller, and so do gates around 0.5.
_GAIN = 2.0
_GATED_GAIN = 2.2
# The means that gates are made of are small; their logits should be about -2 to 2.
_SQUEEZE_GAIN = 2.0


def efficientnet_b0(
    stages: Sequence[Stage] = STAGES,
    stem: int = 32,
    head: int = 1280,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    builder = Builder("efficientnet_b0", seed=110)
    x = builder.input("x", (1, 3, image, image))
    x = _active(builder, x, "/stem", 3, stem, 3, 2)
    channels, number = stem, 0
    for expansion, kernel, first_stride, width, blocks in stages:
        for stride in (first_stride, *[1] * (blocks - 1)):
            name = f"/blocks.{number}"
            x = _block(builder, x, name, channels, width, expansion, kernel, stride)
            channels, number = width, number + 1
    x = _active(builder, x, "/head", channels, head)
    return builder.finish([classify(builder, x, head, classes)])


def efficientnet_small() -> onnx.ModelProto:
    stages = ((1, 3, 1, 8, 1), (6, 3, 2, 12, 2), (6, 5, 1, 16, 1))
    return efficientnet_b0(stages, stem=8, head=40, image=27, classes=10)


def _block(
    builder: Builder,
    x: str,
    name: str,
    channels: int,
    width: int,
    expansion: int,
    kernel: int,
    stride: int,
) -> str:
    wide = expansion * channels
    y = x
    if expansion > 1:
        y = _active(builder, y, f"{name}/expand", channels, wide)
    y = _active(builder, y, f"{name}/depthwise", wide, wide, kernel, stride, groups=wide)
    y = _squeeze_excite(builder, y, f"{name}/se", wide, max(1, channels // 4))
    y = normalised(builder, y, f"{name}/project", wide, width, gain=_GATED_GAIN, epsilon=1e-3)
    if stride == 1 and channels == width:
        return builder.node("Add", [x, y], f"{name}/add")
    return y


def _squeeze_excite(builder: Builder, x: str, name: str, channels: int, few: int) -> str:
    """Each channel times a gate between 0 and 1 that depends on the means of all channels."""
    y = builder.node("GlobalAveragePool", [x], f"{name}/pool")
    y = builder.convolution(y, f"{name}/reduce", channels, few, 1, gain=_SQUEEZE_GAIN, bias=True)
    y = _swish(builder, y, f"{name}/reduce")
    y = builder.convolution(y, f"{name}/expand", few, channels, 1, gain=_SQUEEZE_GAIN, bias=True)
    y = builder.node("Sigmoid", [y], f"{name}/gate")
    return builder.node("Mul", [x, y], f"{name}/mul")


def _active(
    builder: Builder,
    x: str,
    name: str,
    channels: int,
    width: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
) -> str:
    # An image has not been through Swish.
    gain = math.sqrt(2) if channels == 3 else _GAIN
    y = normalised(
        builder, x, name, channels, width, kernel, stride, groups=groups, gain=gain, epsilon=1e-3
    )
    return _swish(builder, y, name)


def _swish(builder: Builder, x: str, name: str) -> str:
    """x times its sigmoid, in the two nodes that exporters write."""
    y = builder.node("Sigmoid", [x], f"{name}/sigmoid")
    return builder.node("Mul", [x, y], f"{name}/swish")
