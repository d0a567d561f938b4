"""A transformer encoder (Vaswani et al., 2017), spelled in primitives as PyTorch exports it."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto

from ramforge.zoo.builder import Builder
from ramforge.zoo.transformer import (
    SCORE_GAIN,
    cut_heads,
    gelu,
    gelu_constants,
    layer_norm,
    linear,
    mix,
)

VOCABULARY = 1000
# With normalisation behind each residual tokens become alike sooner than with one before it.
_MIXING_GAIN = 0.3
_RESTORING_GAIN = 2.5


def encoder(
    layers: int = 4, width: int = 256, heads: int = 4, tokens: int = 128, batch: int = 1
) -> onnx.ModelProto:
    """Token ids in, one normalised vector a token out; normalisation after each residual."""
    builder = Builder("encoder", seed=17)
    layer_constants(builder, width, heads, tokens, batch)
    ids = builder.input("tokens", (batch, tokens), TensorProto.INT64)
    table = builder.weight("embeddings.word", (VOCABULARY, width), fan_in=1)
    x = builder.node("Gather", [table, ids], "/embeddings/word", axis=0)
    position = builder.weight("embeddings.position", (1, tokens, width), fan_in=1)
    x = builder.node("Add", [x, position], "/embeddings/add")
    x = layer_norm(builder, x, "/embeddings/norm", width)
    for number in range(layers):
        last = number == layers - 1
        x = layer(builder, x, f"/layers.{number}", width, output="encoded" if last else "")
    return builder.finish([x])


def encoder_base() -> onnx.ModelProto:
    """The size of BERT base: 12 layers, 768 wide, 12 heads, 128 tokens."""
    return encoder(layers=12, width=768, heads=12)


def encoder_small() -> onnx.ModelProto:
    """The same structure at a size for tests."""
    return encoder(layers=2, width=64, heads=4, tokens=16)


def layer_constants(builder: Builder, width: int, heads: int, tokens: int, batch: int = 1) -> None:
    """What ``layer`` needs, once in a model."""
    gelu_constants(builder)
    builder.constant("sqrt_head", math.sqrt(width / heads))
    builder.constant("split_heads", [batch, tokens, heads, width // heads])
    builder.constant("join_heads", [batch, tokens, width])


def layer(
    builder: Builder,
    x: str,
    name: str,
    width: int,
    *,
    mask: str = "",
    epsilon: float = 1e-5,
    output: str = "",
) -> str:
    """Attention and a feed-forward network; ``mask`` is added to the scores."""
    attended = _attention(builder, x, f"{name}/attention", width, mask)
    x = builder.node("Add", [x, attended], f"{name}/add")
    x = layer_norm(builder, x, f"{name}/norm1", width, epsilon=epsilon)
    y = linear(builder, x, f"{name}/linear1", width, 4 * width)
    y = gelu(builder, y, f"{name}/gelu")
    y = linear(builder, y, f"{name}/linear2", 4 * width, width, _RESTORING_GAIN, centred=True)
    x = builder.node("Add", [x, y], f"{name}/add_1")
    return layer_norm(builder, x, f"{name}/norm2", width, output, epsilon)


def _attention(builder: Builder, x: str, name: str, width: int, mask: str) -> str:
    def part(of: str, gain: float, perm: tuple[int, ...]) -> str:
        y = linear(builder, x, f"{name}/{of}", width, width, gain)
        return cut_heads(builder, y, f"{name}/{of}", perm)

    query = part("query", SCORE_GAIN, (0, 2, 1, 3))
    key = part("key", SCORE_GAIN, (0, 2, 3, 1))
    value = part("value", 1.0, (0, 2, 1, 3))
    scores = builder.node("MatMul", [query, key], f"{name}/scores")
    scores = builder.node("Div", [scores, "sqrt_head"], f"{name}/scale")
    if mask:
        scores = builder.node("Add", [scores, mask], f"{name}/mask")
    x = mix(builder, scores, value, name)
    return linear(builder, x, f"{name}/projection", width, width, _MIXING_GAIN)
