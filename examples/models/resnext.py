"""ResNeXt (Xie et al., 2017): residual blocks whose middle is many narrow paths.

ResNeXt-29 16x64d for 32x32 images, as the paper of RAMMER runs it: the sixteen paths of a block are
sixteen convolutions side by side, or one grouped convolution. ResNeXt-101 64x4d for ImageNet.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from ramforge.zoo.builder import Builder
from ramforge.zoo.layers import classify, normalised


def resnext29(
    branches: int = 16, base: int = 64, blocks: int = 3, grouped: bool = False, image: int = 32
) -> onnx.ModelProto:
    builder = Builder("resnext29_grouped" if grouped else "resnext29", seed=29)
    x = builder.input("x", (1, 3, image, image))
    x = normalised(builder, x, "/stem", 3, base, 3)
    x = builder.node("Relu", [x], "/stem/relu")
    channels = base
    for stage in range(3):
        width = branches * base * 2**stage
        out = 4 * base * 2**stage
        for block in range(blocks):
            stride = 2 if stage and block == 0 else 1
            name = f"/stage{stage}.{block}"
            x = _block(builder, x, name, channels, width, out, branches, stride, grouped)
            channels = out
    return builder.finish([classify(builder, x, channels, classes=10)])


def resnext29_grouped() -> onnx.ModelProto:
    return resnext29(grouped=True)


def resnext29_small(grouped: bool = False) -> onnx.ModelProto:
    return resnext29(branches=4, base=8, blocks=1, image=16, grouped=grouped)


def resnext29_grouped_small() -> onnx.ModelProto:
    return resnext29_small(grouped=True)


def resnext101(
    groups: int = 64,
    base: int = 4,
    blocks: Sequence[int] = (3, 4, 23, 3),
    out: int = 256,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """ResNeXt-101 64x4d as published: 64 groups of 4 channels in the first stage."""
    builder = Builder("resnext101", seed=101)
    channels = out // 4
    x = builder.input("x", (1, 3, image, image))
    x = normalised(builder, x, "/stem", 3, channels, 7, 2)
    x = builder.node("Relu", [x], "/stem/relu")
    x = builder.node(
        "MaxPool", [x], "/stem/pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    width = groups * base
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage and block == 0 else 1
            name = f"/stage{stage}.{block}"
            x = _block(builder, x, name, channels, width, out, groups, stride, grouped=True)
            channels = out
        width, out = 2 * width, 2 * out
    return builder.finish([classify(builder, x, channels, classes)])


def resnext101_small() -> onnx.ModelProto:
    return resnext101(groups=8, base=2, blocks=(1, 2), out=16, image=43, classes=10)


def _block(
    builder: Builder,
    x: str,
    name: str,
    channels: int,
    width: int,
    out: int,
    branches: int,
    stride: int,
    grouped: bool,
) -> str:
    shortcut = x
    if stride != 1 or channels != out:
        shortcut = normalised(builder, x, f"{name}/shortcut", channels, out, 1, stride)
    y = normalised(builder, x, f"{name}/reduce", channels, width, 1)
    y = builder.node("Relu", [y], f"{name}/reduce/relu")
    if grouped:
        y = normalised(builder, y, f"{name}/middle", width, width, 3, stride, groups=branches)
    else:
        y = _side_by_side(builder, y, f"{name}/middle", width, stride, branches)
    y = builder.node("Relu", [y], f"{name}/middle/relu")
    y = normalised(builder, y, f"{name}/expand", width, out, 1)
    y = builder.node("Add", [y, shortcut], f"{name}/add")
    return builder.node("Relu", [y], f"{name}/relu")


def _side_by_side(
    builder: Builder, x: str, name: str, width: int, stride: int, branches: int
) -> str:
    """The channels in equal parts, a convolution for each, and all of it together again."""
    part = width // branches
    sizes = builder.constant(f"{name}/sizes", [part] * branches)
    names = [f"{name}/part{i}" for i in range(branches)]
    parts = builder.nodes("Split", [x, sizes], f"{name}/split", names, axis=1)
    done = [
        normalised(builder, each, f"{name}/{i}", part, part, 3, stride)
        for i, each in enumerate(parts)
    ]
    return builder.node("Concat", done, f"{name}/concat", axis=1)
