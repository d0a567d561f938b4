"""MobileNeXt (Zhou et al., 2020): sandglass blocks, which are inverted residuals turned around.

The shortcut joins the wide ends, the depthwise convolutions work on all channels there, and the
two 1x1 convolutions between them go down to few channels without an activation and up again.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from ramforge.zoo.builder import Builder
from ramforge.zoo.layers import classify, divisible, normalised, relu6, relu6_bounds

# reduction, channels, blocks and the stride of the first one (table 2)
Stage = tuple[int, int, int, int]
STAGES: Sequence[Stage] = (
    (2, 96, 1, 2),
    (6, 144, 1, 1),
    (6, 192, 3, 2),
    (6, 288, 3, 2),
    (6, 384, 4, 1),
    (6, 576, 4, 2),
    (6, 960, 2, 1),
    (6, 1280, 1, 1),
)
# High enough that some values do meet the 6 of ReLU6.
_GAIN = 2.5


def mobilenext(
    stages: Sequence[Stage] = STAGES,
    stem: int = 32,
    image: int = 224,
    classes: int = 1000,
    joined: float = 1.0,
) -> onnx.ModelProto:
    """``joined`` is the share of the channels that the shortcuts carry; a half saves half of it."""
    builder = Builder("mobilenext", seed=2020)
    relu6_bounds(builder)
    x = builder.input("x", (1, 3, image, image))
    x = relu6(builder, normalised(builder, x, "/stem", 3, stem, 3, 2, gain=_GAIN), "/stem")
    channels, number = stem, 0
    for reduction, width, blocks, first_stride in stages:
        for stride in (first_stride, *[1] * (blocks - 1)):
            name = f"/blocks.{number}"
            y = _sandglass(builder, x, name, channels, width, reduction, stride)
            if stride == 1 and channels == width:
                y = _joined(builder, x, y, name, width, joined)
            x, channels, number = y, width, number + 1
    return builder.finish([classify(builder, x, channels, classes)])


def mobilenext_small(joined: float = 1.0) -> onnx.ModelProto:
    stages = ((2, 24, 1, 2), (6, 36, 2, 1), (6, 48, 2, 2))
    return mobilenext(stages, stem=8, image=27, classes=10, joined=joined)


def _sandglass(
    builder: Builder, x: str, name: str, channels: int, width: int, reduction: int, stride: int
) -> str:
    narrow = divisible(max(channels // reduction, width // 6), 16 if channels > 64 else 4)
    y = normalised(builder, x, f"{name}/first", channels, channels, 3, groups=channels, gain=_GAIN)
    y = relu6(builder, y, f"{name}/first")
    y = normalised(builder, y, f"{name}/reduce", channels, narrow)
    y = normalised(builder, y, f"{name}/expand", narrow, width, gain=_GAIN)
    y = relu6(builder, y, f"{name}/expand")
    return normalised(builder, y, f"{name}/last", width, width, 3, stride, groups=width)


def _joined(builder: Builder, x: str, y: str, name: str, width: int, share: float) -> str:
    """The sum over the first channels; the others pass by the shortcut."""
    first = round(width * share)
    if first == width:
        return builder.node("Add", [x, y], f"{name}/add")
    sizes = builder.constant(f"{name}/sizes", [first, width - first])
    old = builder.nodes("Split", [x, sizes], f"{name}/old", (f"{name}/x0", f"{name}/x1"), axis=1)
    new = builder.nodes("Split", [y, sizes], f"{name}/new", (f"{name}/y0", f"{name}/y1"), axis=1)
    total = builder.node("Add", [old[0], new[0]], f"{name}/add")
    return builder.node("Concat", [total, new[1]], f"{name}/concat", axis=1)
