"""ResNeXt-29 16x64d (Xie et al., 2017) for 32x32 images, as the paper of RAMMER runs it.

The sixteen paths of a block are sixteen convolutions side by side, or one grouped convolution.
"""

from __future__ import annotations

import onnx

from ramforge.zoo.builder import Builder


def resnext29(
    branches: int = 16, base: int = 64, blocks: int = 3, grouped: bool = False, image: int = 32
) -> onnx.ModelProto:
    builder = Builder("resnext29_grouped" if grouped else "resnext29", seed=29)
    x = builder.input("x", (1, 3, image, image))
    x = _convolution(builder, x, "/stem", 3, base, 3)
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
    x = builder.node("GlobalAveragePool", [x], "/pool")
    x = builder.node("Flatten", [x], "/flatten", axis=1)
    weight = builder.weight("fc.weight", (10, channels), channels)
    bias = builder.bias("fc.bias", 10)
    return builder.finish([builder.node("Gemm", [x, weight, bias], "/fc", "logits", transB=1)])


def resnext29_grouped() -> onnx.ModelProto:
    return resnext29(grouped=True)


def resnext29_small() -> onnx.ModelProto:
    return resnext29(branches=4, base=8, blocks=1, image=16)


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
        shortcut = _convolution(builder, x, f"{name}/shortcut", channels, out, 1, stride)
    y = _convolution(builder, x, f"{name}/reduce", channels, width, 1)
    y = builder.node("Relu", [y], f"{name}/reduce/relu")
    if grouped:
        y = _convolution(builder, y, f"{name}/middle", width, width, 3, stride, branches)
    else:
        y = _side_by_side(builder, y, f"{name}/middle", width, stride, branches)
    y = builder.node("Relu", [y], f"{name}/middle/relu")
    y = _convolution(builder, y, f"{name}/expand", width, out, 1)
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
        _convolution(builder, each, f"{name}/{i}", part, part, 3, stride)
        for i, each in enumerate(parts)
    ]
    return builder.node("Concat", done, f"{name}/concat", axis=1)


def _convolution(
    builder: Builder,
    x: str,
    name: str,
    channels: int,
    width: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
) -> str:
    """A convolution with batch normalisation."""
    x = builder.convolution(x, f"{name}/conv", channels, width, kernel, stride, groups=groups)
    return builder.batch_norm(x, f"{name}/norm", width)
