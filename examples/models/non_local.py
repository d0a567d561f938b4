"""The disentangled non-local block (Yin et al., 2020): every position sees every other.

How much it sees is a sum of two softmaxes: of the product of its whitened query with each whitened
key, and of how much each position stands out for all of them.
"""

from __future__ import annotations

import math

from ramforge.zoo.builder import Builder

# The products of queries and keys are about this far apart.
_SPREAD = 6.0


def disentangled_non_local(builder: Builder, x: str, name: str, channels: int, size: int) -> str:
    """x of ``size`` by ``size`` positions plus what they see of each other, in half the channels.

    Query and key have no bias, because whitening would take it away; a softmax does the same with
    that of the unary term.
    """
    width = channels // 2
    gain = math.sqrt(_SPREAD / math.sqrt(width))
    query = _whitened(builder, _rows(builder, x, f"{name}/query", channels, width, gain))
    key = _whitened(builder, _rows(builder, x, f"{name}/key", channels, width, gain))
    query = builder.node("Transpose", [query], f"{name}/query/transpose", perm=[0, 2, 1])
    pairs = builder.node("MatMul", [query, key], f"{name}/pairs")
    pairs = builder.node("Softmax", [pairs], f"{name}/pairs/softmax", axis=-1)
    unary = _rows(builder, x, f"{name}/unary", channels, 1, gain=2)
    unary = builder.node("Softmax", [unary], f"{name}/unary/softmax", axis=-1)
    shares = builder.node("Add", [pairs, unary], f"{name}/shares")
    value = _rows(builder, x, f"{name}/value", channels, width, gain=1, bias=True)
    value = builder.node("Transpose", [value], f"{name}/value/transpose", perm=[0, 2, 1])
    y = builder.node("MatMul", [shares, value], f"{name}/seen")
    y = builder.node("Transpose", [y], f"{name}/seen/transpose", perm=[0, 2, 1])
    image = builder.constant(f"{name}.image", [0, width, size, size])
    y = builder.node("Reshape", [y, image], f"{name}/seen/image")
    y = builder.convolution(y, f"{name}/out", width, channels, 1)
    y = builder.batch_norm(y, f"{name}/norm", channels)
    return builder.node("Add", [x, y], f"{name}/add")


def _rows(
    builder: Builder,
    x: str,
    name: str,
    channels: int,
    width: int,
    gain: float,
    bias: bool = False,
) -> str:
    """A 1x1 convolution, and all positions of a channel in one row."""
    y = builder.convolution(x, name, channels, width, 1, gain=gain, bias=bias)
    return builder.node(
        "Reshape", [y, builder.constant(f"{name}.rows", [0, width, -1])], f"{name}/rows"
    )


def _whitened(builder: Builder, rows: str) -> str:
    """Less the mean over all positions."""
    name = rows.removesuffix("/rows_output_0")
    mean = builder.node("ReduceMean", [rows], f"{name}/mean", axes=[2], keepdims=1)
    return builder.node("Sub", [rows, mean], f"{name}/whitened")
