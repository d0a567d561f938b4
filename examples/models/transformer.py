"""What transformers have in common, spelled in primitives as PyTorch exports it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ramforge.zoo.builder import Builder

# Of the weights of queries and keys: scores then have a standard deviation of 1 to 3, and attention
# picks instead of being uniform.
SCORE_GAIN = 1.6
# Of what attention adds: it is much alike for all tokens, and more of it would make them all alike
# after a few layers. Then no score would matter any more.
MIXING_GAIN = 0.8
# Behind a GELU, which makes values smaller.
RESTORING_GAIN = 2.0


def linear(
    builder: Builder,
    x: str,
    name: str,
    inputs: int,
    outputs: int,
    gain: float = 1.0,
    *,
    bias: bool = True,
    centred: bool = False,
) -> str:
    make = centred_weight if centred else Builder.weight
    weight = make(builder, f"{name}.weight", (inputs, outputs), inputs, gain)
    x = builder.node("MatMul", [x, weight], f"{name}/matmul")
    if not bias:
        return x
    return builder.node("Add", [builder.bias(f"{name}.bias", outputs), x], f"{name}/add")


def centred_weight(
    builder: Builder, name: str, shape: tuple[int, int], fan_in: int, gain: float
) -> str:
    """Weights blind to the mean of their inputs: behind a GELU it is alike for all tokens."""
    value = builder.taken(builder.weight(name, shape, fan_in, gain))
    return builder.constant(name, value - value.mean(axis=0))


def layer_norm(
    builder: Builder, x: str, name: str, width: int, output: str = "", epsilon: float = 1e-5
) -> str:
    scale = builder.spread(f"{name}.weight", width, 0.7, 1.3)
    bias = builder.bias(f"{name}.bias", width)
    return builder.node(
        "LayerNormalization", [x, scale, bias], name, output, axis=-1, epsilon=epsilon
    )


def gelu_constants(builder: Builder) -> None:
    """What ``gelu`` needs, once in a model."""
    builder.constant("sqrt_2", math.sqrt(2))
    builder.constant("one", 1.0)
    builder.constant("half", 0.5)


def gelu(builder: Builder, x: str, name: str) -> str:
    """x / 2 * (1 + erf(x / sqrt 2)), in the order of PyTorch's exporter."""
    y = builder.node("Div", [x, "sqrt_2"], f"{name}/div")
    y = builder.node("Erf", [y], f"{name}/erf")
    y = builder.node("Add", [y, "one"], f"{name}/add")
    y = builder.node("Mul", [x, y], f"{name}/mul")
    return builder.node("Mul", [y, "half"], f"{name}/mul_1")


def cut_heads(
    builder: Builder, x: str, name: str, perm: Sequence[int], shape: str = "split_heads"
) -> str:
    """(batch, tokens, width) cut into heads, with the axes in this order."""
    x = builder.node("Reshape", [x, shape], f"{name}/reshape")
    return builder.node("Transpose", [x], f"{name}/transpose", perm=perm)


def mix(builder: Builder, scores: str, value: str, name: str) -> str:
    """The values' means by scores, and the heads side by side again."""
    shares = builder.node("Softmax", [scores], f"{name}/softmax", axis=-1)
    x = builder.node("MatMul", [shares, value], f"{name}/context")
    x = builder.node("Transpose", [x], f"{name}/transpose", perm=(0, 2, 1, 3))
    return builder.node("Reshape", [x, "join_heads"], f"{name}/reshape")
