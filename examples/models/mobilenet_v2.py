"""MobileNetV2 (Sandler et al., 2018): inverted residuals with linear bottlenecks.

A block widens its few channels with a 1x1 convolution, filters each with a depthwise 3x3 and
projects back without an activation; narrow ends are joined by a shortcut.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from ramforge.zoo.builder import Builder
from ramforge.zoo.layers import classify, normalised, relu6, relu6_bounds

# expansion, channels, blocks and the stride of the first one (table 2)
Stage = tuple[int, int, int, int]
STAGES: Sequence[Stage] = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# High enough that some values do meet the 6 of ReLU6.
_GAIN = 2.5


def mobilenet_v2(
    stages: Sequence[Stage] = STAGES,
    stem: int = 32,
    head: int = 1280,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    builder = Builder("mobilenet_v2", seed=202)
    relu6_bounds(builder)
    x = builder.input("x", (1, 3, image, image))
    x = _active(builder, x, "/stem", 3, stem, 3, 2)
    channels, number = stem, 0
    for expansion, width, blocks, first_stride in stages:
        for stride in (first_stride, *[1] * (blocks - 1)):
            x = _block(builder, x, f"/blocks.{number}", channels, width, expansion, stride)
            channels, number = width, number + 1
    x = _active(builder, x, "/head", channels, head)
    return builder.finish([classify(builder, x, head, classes)])


def mobilenet_v2_small() -> onnx.ModelProto:
    stages = ((1, 8, 1, 1), (6, 12, 2, 2), (3, 20, 1, 1))
    return mobilenet_v2(stages, stem=12, head=40, image=27, classes=10)


def _block(
    builder: Builder, x: str, name: str, channels: int, width: int, expansion: int, stride: int
) -> str:
    wide = expansion * channels
    y = x
    if expansion > 1:
        y = _active(builder, y, f"{name}/expand", channels, wide)
    y = _active(builder, y, f"{name}/depthwise", wide, wide, 3, stride, groups=wide)
    y = normalised(builder, y, f"{name}/project", wide, width)
    if stride == 1 and channels == width:
        return builder.node("Add", [x, y], f"{name}/add")
    return y


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
    y = normalised(builder, x, name, channels, width, kernel, stride, groups=groups, gain=_GAIN)
    return relu6(builder, y, name)
