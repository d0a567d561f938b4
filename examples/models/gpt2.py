"""GPT-2 (Radford et al., 2019), small: a whole text at once, and one further token of it.

Spelled as Hugging Face's code is exported. The table of the vocabulary is also the projection to
it. A step is given the keys and values of the text before it, and returns them with its own.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto

from ramforge.zoo.builder import Builder
from ramforge.zoo.transformer import (
    MIXING_GAIN,
    RESTORING_GAIN,
    SCORE_GAIN,
    centred_weight,
    cut_heads,
    layer_norm,
    mix,
)

_QUERY, _KEY, _VALUE = range(3)


def gpt2(
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    vocabulary: int = 50257,
    positions: int = 1024,
    tokens: int = 64,
    past: int = 0,
) -> onnx.ModelProto:
    """Token ids in, a score for each word of the vocabulary out; with ``past``, a cache too."""
    builder = Builder("gpt2", seed=20)
    _constants(builder, width, heads, tokens, past)
    ids = builder.input("input_ids", (1, tokens), TensorProto.INT64)
    places = "position_ids"
    if past:
        builder.input(places, (1, tokens), TensorProto.INT64)
    else:
        builder.constant(places, np.arange(tokens)[None])
    table = builder.weight("wte", (vocabulary, width), 1, 0.5)
    x = builder.node("Gather", [table, ids], "/wte", axis=0)
    position = builder.weight("wpe", (positions, width), 1, 0.5)
    position = builder.node("Gather", [position, places], "/wpe", axis=0)
    x = builder.node("Add", [x, position], "/add")
    cache: list[str] = []
    for number in range(layers):
        old = _past(builder, number, (1, heads, past, width // heads)) if past else ()
        x, new = _block(builder, x, f"/h.{number}", width, number, old)
        cache += new
    x = layer_norm(builder, x, "/ln_f", width)
    projection = builder.node("Transpose", [table], "/lm_head/transpose", perm=(1, 0))
    return builder.finish([builder.node("MatMul", [x, projection], "/lm_head", "logits"), *cache])


def gpt2_decode() -> onnx.ModelProto:
    """The 64th token behind 63."""
    return gpt2(tokens=1, past=63)


def gpt2_small() -> onnx.ModelProto:
    return gpt2(layers=2, width=48, heads=3, vocabulary=61, positions=20, tokens=11)


def gpt2_decode_small() -> onnx.ModelProto:
    return gpt2(layers=2, width=48, heads=3, vocabulary=61, positions=20, tokens=1, past=9)


def _constants(builder: Builder, width: int, heads: int, tokens: int, past: int) -> None:
    builder.constant("split_heads", [1, tokens, heads, width // heads])
    builder.constant("join_heads", [1, tokens, width])
    builder.constant("sqrt_head", math.sqrt(width / heads))
    builder.constant("thirds", [width] * 3)
    if not past:
        builder.constant("least", float(np.finfo(np.float32).min))
        builder.constant("causal", np.tri(tokens, dtype=np.bool_)[None, None])
    for name, value in (
        ("half", 0.5), ("one", 1.0), ("three", 3.0), ("cubic", 0.044715),
        ("sqrt_2_pi", math.sqrt(2 / math.pi)),
    ):  # fmt: skip
        builder.constant(name, value)
    for size in (1, 4):
        builder.constant(f"rows_of_{size}", [tokens, size * width])
    for size in (1, 3, 4):
        builder.constant(f"tokens_of_{size}", [1, tokens, size * width])


def _past(builder: Builder, number: int, shape: tuple[int, ...]) -> tuple[str, ...]:
    parts = ("key", "value")
    return tuple(builder.input(f"past_key_values.{number}.{part}", shape) for part in parts)


def _block(
    builder: Builder, x: str, name: str, width: int, number: int, old: tuple[str, ...]
) -> tuple[str, list[str]]:
    """The tokens after the block, and the keys and values of all tokens if there were ``old``."""
    y = layer_norm(builder, x, f"{name}/ln_1", width)
    y = _projected(builder, y, f"{name}/attn/c_attn", width, 1, 3, SCORE_GAIN)
    names = [f"{name}/attn/{part}" for part in ("query", "key", "value")]
    parts = builder.nodes("Split", [y, "thirds"], f"{name}/attn/split", names, axis=2)
    query, key, value = (cut_heads(builder, part, part, perm=(0, 2, 1, 3)) for part in parts)
    new = []
    if old:
        key, value = new = [
            builder.node("Concat", pair, f"{pair[1]}/concat", f"present.{number}.{part}", axis=2)
            for part, pair in (("key", (old[0], key)), ("value", (old[1], value)))
        ]
    y = _attention(builder, query, key, value, f"{name}/attn", masked=not old)
    y = _projected(builder, y, f"{name}/attn/c_proj", width, 1, 1, MIXING_GAIN)
    x = builder.node("Add", [y, x], f"{name}/add")
    y = layer_norm(builder, x, f"{name}/ln_2", width)
    y = _projected(builder, y, f"{name}/mlp/c_fc", width, 1, 4)
    y = _gelu(builder, y, f"{name}/mlp/act")
    y = _projected(builder, y, f"{name}/mlp/c_proj", width, 4, 1, RESTORING_GAIN)
    return builder.node("Add", [x, y], f"{name}/add_1"), new


def _attention(builder: Builder, query: str, key: str, value: str, name: str, masked: bool) -> str:
    key = builder.node("Transpose", [key], f"{name}/transpose_key", perm=(0, 1, 3, 2))
    scores = builder.node("MatMul", [query, key], f"{name}/scores")
    scores = builder.node("Div", [scores, "sqrt_head"], f"{name}/scale")
    if masked:
        scores = builder.node("Where", ["causal", scores, "least"], f"{name}/where")
    return mix(builder, scores, value, name)


def _projected(
    builder: Builder, x: str, name: str, width: int, inputs: int, outputs: int, gain: float = 1.0
) -> str:
    """A linear layer, sizes in multiples of the width; GPT-2 flattens the tokens for a Gemm."""
    make = centred_weight if inputs > 1 else Builder.weight  # only a GELU's output is wider
    shape = (inputs * width, outputs * width)
    weight = make(builder, f"{name}.weight", shape, shape[0], gain)
    bias = builder.bias(f"{name}.bias", outputs * width)
    x = builder.node("Reshape", [x, f"rows_of_{inputs}"], f"{name}/flatten")
    x = builder.node("Gemm", [x, weight, bias], f"{name}/gemm")
    return builder.node("Reshape", [x, f"tokens_of_{outputs}"], f"{name}/reshape")


def _gelu(builder: Builder, x: str, name: str) -> str:
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))."""
    y = builder.node("Pow", [x, "three"], f"{name}/pow")
    y = builder.node("Mul", [y, "cubic"], f"{name}/mul")
    y = builder.node("Add", [x, y], f"{name}/add")
    y = builder.node("Mul", [y, "sqrt_2_pi"], f"{name}/mul_1")
    y = builder.node("Tanh", [y], f"{name}/tanh")
    y = builder.node("Add", [y, "one"], f"{name}/add_1")
    half = builder.node("Mul", [x, "half"], f"{name}/mul_2")
    return builder.node("Mul", [half, y], f"{name}/mul_3")
