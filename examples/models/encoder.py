"""A transformer encoder (Vaswani et al., 2017), spelled in primitives as PyTorch exports it."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto

from ramforge.zoo.builder import Builder

VOCABULARY = 1000
# Scores then have a standard deviation of about 1.7: attention picks, and is not uniform.
_SCORE_GAIN = 1.3


def encoder(
    layers: int = 4, width: int = 256, heads: int = 4, tokens: int = 128, batch: int = 1
) -> onnx.ModelProto:
    """Token ids in, one normalised vector a token out; normalisation after each residual."""
    builder = Builder("encoder", seed=17)
    builder.constant("sqrt_2", math.sqrt(2))
    builder.constant("one", 1.0)
    builder.constant("half", 0.5)
    builder.constant("sqrt_head", math.sqrt(width / heads))
    builder.constant("split_heads", [batch, tokens, heads, width // heads])
    builder.constant("join_heads", [batch, tokens, width])
    ids = builder.input("tokens", (batch, tokens), TensorProto.INT64)
    table = builder.weight("embeddings.word", (VOCABULARY, width), fan_in=1)
    x = builder.node("Gather", [table, ids], "/embeddings/word", axis=0)
    position = builder.weight("embeddings.position", (1, tokens, width), fan_in=1)
    x = builder.node("Add", [x, position], "/embeddings/add")
    x = _layer_norm(builder, x, "/embeddings/norm", width)
    for layer in range(layers):
        last = layer == layers - 1
        x = _layer(builder, x, f"/layers.{layer}", width, output="encoded" if last else "")
    return builder.finish([x])


def encoder_base() -> onnx.ModelProto:
    """The size of BERT base: 12 layers, 768 wide, 12 heads, 128 tokens."""
    return encoder(layers=12, width=768, heads=12)


def encoder_small() -> onnx.ModelProto:
    """The same structure at a size for tests."""
    return encoder(layers=2, width=64, heads=4, tokens=16)


def _layer(builder: Builder, x: str, name: str, width: int, output: str) -> str:
    attended = _attention(builder, x, f"{name}/attention", width)
    x = builder.node("Add", [x, attended], f"{name}/add")
    x = _layer_norm(builder, x, f"{name}/norm1", width)
    y = _linear(builder, x, f"{name}/linear1", width, 4 * width)
    y = _gelu(builder, y, f"{name}/gelu")
    y = _linear(builder, y, f"{name}/linear2", 4 * width, width)
    x = builder.node("Add", [x, y], f"{name}/add_1")
    return _layer_norm(builder, x, f"{name}/norm2", width, output)


def _attention(builder: Builder, x: str, name: str, width: int) -> str:
    query = _heads(builder, x, f"{name}/query", width, _SCORE_GAIN, perm=(0, 2, 1, 3))
    key = _heads(builder, x, f"{name}/key", width, _SCORE_GAIN, perm=(0, 2, 3, 1))
    value = _heads(builder, x, f"{name}/value", width, 1.0, perm=(0, 2, 1, 3))
    scores = builder.node("MatMul", [query, key], f"{name}/scores")
    scores = builder.node("Div", [scores, "sqrt_head"], f"{name}/scale")
    shares = builder.node("Softmax", [scores], f"{name}/softmax", axis=-1)
    x = builder.node("MatMul", [shares, value], f"{name}/context")
    x = builder.node("Transpose", [x], f"{name}/transpose", perm=(0, 2, 1, 3))
    x = builder.node("Reshape", [x, "join_heads"], f"{name}/reshape")
    return _linear(builder, x, f"{name}/projection", width, width)


def _heads(
    builder: Builder, x: str, name: str, width: int, gain: float, perm: tuple[int, ...]
) -> str:
    x = _linear(builder, x, name, width, width, gain)
    x = builder.node("Reshape", [x, "split_heads"], f"{name}/reshape")
    return builder.node("Transpose", [x], f"{name}/transpose", perm=perm)


def _linear(
    builder: Builder, x: str, name: str, inputs: int, outputs: int, gain: float = 1.0
) -> str:
    weight = builder.weight(f"{name}.weight", (inputs, outputs), inputs, gain)
    x = builder.node("MatMul", [x, weight], f"{name}/matmul")
    return builder.node("Add", [builder.bias(f"{name}.bias", outputs), x], f"{name}/add")


def _gelu(builder: Builder, x: str, name: str) -> str:
    """x / 2 * (1 + erf(x / sqrt 2)), in the order of PyTorch's exporter."""
    y = builder.node("Div", [x, "sqrt_2"], f"{name}/div")
    y = builder.node("Erf", [y], f"{name}/erf")
    y = builder.node("Add", [y, "one"], f"{name}/add")
    y = builder.node("Mul", [x, y], f"{name}/mul")
    return builder.node("Mul", [y, "half"], f"{name}/mul_1")


def _layer_norm(builder: Builder, x: str, name: str, width: int, output: str = "") -> str:
    scale = builder.spread(f"{name}.weight", width, 0.7, 1.3)
    bias = builder.bias(f"{name}.bias", width)
    return builder.node("LayerNormalization", [x, scale, bias], name, output, axis=-1, epsilon=1e-5)
