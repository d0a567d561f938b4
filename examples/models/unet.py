"""U-Net (Ronneberger et al., 2015): down to small images of many channels and up again.

Convolutions are not padded, so an image of 572x572 becomes a map of 388x388; what the way down
hands to the way up is cropped to the size that is left there.
"""

from __future__ import annotations

import math

import onnx

from ramforge.zoo.builder import Builder


def unet(
    width: int = 64, levels: int = 4, image: int = 572, channels: int = 1, classes: int = 2
) -> onnx.ModelProto:
    builder = Builder("unet", seed=572)
    x = builder.input("x", (1, channels, image, image))
    size = image
    kept: list[tuple[str, int]] = []
    for level in range(levels):
        x = _twice(builder, x, f"/down{level}", channels, width << level)
        channels, size = width << level, size - 4
        kept.append((x, size))
        if size % 2:
            raise ValueError(f"level {level} of the U-Net would halve an image of {size}")
        x = builder.node("MaxPool", [x], f"/down{level}/pool", kernel_shape=[2, 2], strides=[2, 2])
        size //= 2
    x = _twice(builder, x, "/bottom", channels, width << levels)
    size -= 4
    for level in reversed(range(levels)):
        name = f"/up{level}"
        channels, size = width << level, 2 * size
        x = _up(builder, x, name, 2 * channels, channels)
        skip = _cropped(builder, *kept[level], name, size)
        x = builder.node("Concat", [skip, x], f"{name}/concat", axis=1)
        x = _twice(builder, x, name, 2 * channels, channels)
        size -= 4
    return builder.finish([builder.convolution(x, "/map", width, classes, 1, gain=1, bias=True)])


def unet_small() -> onnx.ModelProto:
    return unet(width=6, levels=2, image=44)


def _twice(builder: Builder, x: str, name: str, channels: int, width: int) -> str:
    """Two 3x3 convolutions, each with ReLU."""
    for turn in range(2):
        at = f"{name}/conv{turn}"
        x = builder.convolution(x, at, width if turn else channels, width, 3, padding=0, bias=True)
        x = builder.node("Relu", [x], f"{at}/relu")
    return x


def _up(builder: Builder, x: str, name: str, channels: int, width: int) -> str:
    """Twice the size and half the channels; every output pixel has one pixel under it."""
    weight = builder.weight(f"{name}.weight", (channels, width, 2, 2), channels, math.sqrt(2))
    return builder.node(
        "ConvTranspose",
        [x, weight, builder.bias(f"{name}.bias", width)],
        f"{name}/transposed",
        kernel_shape=[2, 2],
        strides=[2, 2],
    )


def _cropped(builder: Builder, x: str, size: int, name: str, wanted: int) -> str:
    """The middle of an image."""
    first = (size - wanted) // 2
    ends = {"starts": [first] * 2, "ends": [first + wanted] * 2, "axes": [2, 3]}
    operands = [builder.constant(f"{name}.{key}", value) for key, value in ends.items()]
    return builder.node("Slice", [x, *operands], f"{name}/crop")
