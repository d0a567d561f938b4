"""ConvNeXt (Liu et al., 2022): a convolutional network laid out like a Transformer.

A block is a depthwise 7x7 convolution, a layer normalisation over the channels of each pixel and
two linear layers with GELU between; the linear parts see pixels as rows, so they stand between two
Transposes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

from ramforge.zoo.builder import Builder

_TO_PIXELS, _TO_IMAGE = (0, 2, 3, 1), (0, 3, 1, 2)
_EPSILON = 1e-6


def convnext_tiny(
    depths: Sequence[int] = (3, 3, 9, 3),
    widths: Sequence[int] = (96, 192, 384, 768),
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    builder = Builder("convnext_tiny", seed=2022)
    x = builder.input("x", (1, 3, image, image))
    x = builder.convolution(x, "/stem", 3, widths[0], 4, 4, padding=0, gain=1, bias=True)
    x = _norm_of_pixels(builder, x, "/stem/norm", widths[0])
    channels = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage:
            name = f"/downsample{stage}"
            x = _norm_of_pixels(builder, x, f"{name}/norm", channels)
            x = builder.convolution(x, name, channels, width, 2, 2, padding=0, gain=1, bias=True)
        for number in range(depth):
            x = _block(builder, x, f"/stage{stage}.{number}", width)
        channels = width
    x = builder.node("GlobalAveragePool", [x], "/pool")
    x = builder.node("Flatten", [x], "/flatten", axis=1)
    x = _norm(builder, x, "/norm", channels)
    weight = builder.weight("head.weight", (classes, channels), channels)
    bias = builder.bias("head.bias", classes)
    return builder.finish([builder.node("Gemm", [x, weight, bias], "/head", "logits", transB=1)])


def convnext_small() -> onnx.ModelProto:
    return convnext_tiny(depths=(1, 2), widths=(12, 20), image=28, classes=10)


def _block(builder: Builder, x: str, name: str, width: int) -> str:
    y = builder.convolution(
        x, f"{name}/depthwise", width, width, 7, groups=width, gain=1, bias=True
    )
    y = builder.node("Transpose", [y], f"{name}/pixels", perm=_TO_PIXELS)
    y = _norm(builder, y, f"{name}/norm", width)
    y = _linear(builder, y, f"{name}/expand", width, 4 * width, gain=1.3)
    y = _gelu(builder, y, f"{name}/gelu")
    y = _linear(builder, y, f"{name}/reduce", 4 * width, width, gain=1.5)
    y = builder.node("Mul", [builder.spread(f"{name}.scale", width, 0.4, 1), y], f"{name}/scale")
    y = builder.node("Transpose", [y], f"{name}/image", perm=_TO_IMAGE)
    return builder.node("Add", [x, y], f"{name}/add")


def _norm_of_pixels(builder: Builder, x: str, name: str, width: int) -> str:
    y = builder.node("Transpose", [x], f"{name}/pixels", perm=_TO_PIXELS)
    y = _norm(builder, y, name, width)
    return builder.node("Transpose", [y], f"{name}/image", perm=_TO_IMAGE)


def _norm(builder: Builder, x: str, name: str, width: int) -> str:
    operands = [x, builder.spread(f"{name}.weight", width, 0.5, 1.5)]
    operands.append(builder.bias(f"{name}.bias", width))
    return builder.node("LayerNormalization", operands, name, axis=-1, epsilon=_EPSILON)


def _linear(builder: Builder, x: str, name: str, rows: int, width: int, gain: float) -> str:
    weight = builder.weight(f"{name}.weight", (rows, width), rows, gain)
    y = builder.node("MatMul", [x, weight], name)
    return builder.node("Add", [builder.bias(f"{name}.bias", width), y], f"{name}/add")


def _gelu(builder: Builder, x: str, name: str) -> str:
    """x (1 + erf(x / sqrt 2)) / 2, in the five nodes that exporters write."""
    y = builder.node("Div", [x, builder.constant(f"{name}.root", math.sqrt(2))], f"{name}/div")
    y = builder.node("Erf", [y], f"{name}/erf")
    y = builder.node("Add", [y, builder.constant(f"{name}.one", 1.0)], f"{name}/one")
    y = builder.node("Mul", [x, y], f"{name}/mul")
    return builder.node("Mul", [y, builder.constant(f"{name}.half", 0.5)], f"{name}/half")
