"""One step of a Llama (Touvron et al., 2023) of the size of Llama 3.2 1B (Meta, 2024).

Spelled as Hugging Face's code is exported: normalisation by the root mean square in primitives,
rotary positions by halves, four query heads for each head of keys and values. Weights are stored
as float16 and cast. Positions turn by the plain rule, without Llama 3's stretching for long texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from ramforge.zoo.builder import Builder
from ramforge.zoo.transformer import RESTORING_GAIN, SCORE_GAIN, cut_heads, mix

_THETA = 500000.0
_EPSILON = 1e-5
_END = 2**31


@dataclass(frozen=True, slots=True)
class Sizes:
    layers: int = 16
    width: int = 2048
    heads: int = 32
    key_heads: int = 8
    head: int = 64
    inner: int = 8192
    vocabulary: int = 128256
    past: int = 127


def llama(sizes: Sizes) -> onnx.ModelProto:
    """A token id, its position and a cache in; a score for each word and the longer cache out."""
    builder = Builder("llama", seed=21)
    _constants(builder, sizes)
    ids = builder.input("input_ids", (1, 1), TensorProto.INT64)
    position = builder.input("position_ids", (1, 1), TensorProto.INT64)
    table = _stored(builder, "embed_tokens.weight", (sizes.vocabulary, sizes.width), 0.5)
    x = builder.node("Gather", [table, ids], "/embed_tokens", axis=0)
    turn = _turns(builder, position, sizes)
    cache: list[str] = []
    for number in range(sizes.layers):
        name = f"/layers.{number}"
        y = _norm(builder, x, f"{name}/input_layernorm", sizes.width)
        y, new = _attention(builder, y, f"{name}/self_attn", number, turn, sizes)
        cache += new
        x = builder.node("Add", [x, y], f"{name}/add")
        y = _norm(builder, x, f"{name}/post_attention_layernorm", sizes.width)
        y = _feed_forward(builder, y, f"{name}/mlp", sizes)
        x = builder.node("Add", [x, y], f"{name}/add_1")
    x = _norm(builder, x, "/norm", sizes.width)
    projection = builder.node("Transpose", [table], "/lm_head/transpose", perm=(1, 0))
    return builder.finish([builder.node("MatMul", [x, projection], "/lm_head", "logits"), *cache])


def llama_decode() -> onnx.ModelProto:
    return llama(Sizes())


def llama_decode_small() -> onnx.ModelProto:
    return llama(Sizes(2, 48, 4, 2, 12, 80, 61, 9))


def _constants(builder: Builder, sizes: Sizes) -> None:
    head, groups = sizes.head, sizes.heads // sizes.key_heads
    builder.constant("two", 2.0)
    builder.constant("one", 1.0)
    builder.constant("epsilon", _EPSILON)
    builder.constant("scale", head**-0.5)
    builder.constant("split_heads", [1, 1, sizes.heads, head])
    builder.constant("split_key_heads", [1, 1, sizes.key_heads, head])
    builder.constant("join_heads", [1, 1, sizes.heads * head])
    builder.constant("groups", [1, sizes.key_heads, groups, sizes.past + 1, head])
    builder.constant("all_heads", [1, sizes.heads, sizes.past + 1, head])
    for name, value in (
        ("axis_1", 1), ("axis_2", 2), ("last_axis", 3), ("zero", 0), ("middle", head // 2),
        ("end", _END),
    ):  # fmt: skip
        builder.constant(name, [value])
    frequencies = _THETA ** (-np.arange(0, head, 2) / head)
    builder.constant("frequencies", frequencies.astype(np.float32)[None, None])


def _stored(builder: Builder, name: str, shape: tuple[int, int], size: float) -> str:
    """A weight in float16, and its cast."""
    weight = builder.weight(name, shape, 1, size, np.float16)
    return builder.node("Cast", [weight], f"/cast/{name}", to=TensorProto.FLOAT)


def _linear(
    builder: Builder, x: str, name: str, inputs: int, outputs: int, gain: float = 1.0
) -> str:
    weight = _stored(builder, f"{name}.weight", (inputs, outputs), gain * inputs**-0.5)
    return builder.node("MatMul", [x, weight], f"{name}/matmul")


def _norm(builder: Builder, x: str, name: str, width: int) -> str:
    """x / sqrt(mean(x ** 2) + epsilon), times a weight."""
    y = builder.node("Pow", [x, "two"], f"{name}/pow")
    y = builder.node("ReduceMean", [y], f"{name}/mean", axes=[-1])
    y = builder.node("Add", [y, "epsilon"], f"{name}/add")
    y = builder.node("Sqrt", [y], f"{name}/sqrt")
    y = builder.node("Div", ["one", y], f"{name}/div")
    y = builder.node("Mul", [x, y], f"{name}/mul")
    return builder.node("Mul", [builder.spread(f"{name}.weight", width, 0.5, 1.5), y], name)


def _turns(builder: Builder, position: str, sizes: Sizes) -> tuple[str, str]:
    """Cosine and sine of the angle by which each pair of a head turns at this position."""
    x = builder.node("Cast", [position], "/rotary/cast", to=TensorProto.FLOAT)
    x = builder.node("Unsqueeze", [x, "axis_1"], "/rotary/unsqueeze")
    x = builder.node("MatMul", [x, "frequencies"], "/rotary/matmul")
    x = builder.node("Concat", [x, x], "/rotary/concat", axis=-1)
    x = builder.node("Unsqueeze", [x, "axis_1"], "/rotary/unsqueeze_1")
    return builder.node("Cos", [x], "/rotary/cos"), builder.node("Sin", [x], "/rotary/sin")


def _rotated(builder: Builder, x: str, name: str, turn: tuple[str, str]) -> str:
    """x * cos + (-second half, first half) * sin."""
    first = builder.node("Slice", [x, "zero", "middle", "last_axis"], f"{name}/slice")
    second = builder.node("Slice", [x, "middle", "end", "last_axis"], f"{name}/slice_1")
    second = builder.node("Neg", [second], f"{name}/neg")
    other = builder.node("Concat", [second, first], f"{name}/concat", axis=-1)
    along = builder.node("Mul", [x, turn[0]], f"{name}/mul")
    across = builder.node("Mul", [other, turn[1]], f"{name}/mul_1")
    return builder.node("Add", [along, across], f"{name}/add")


def _attention(
    builder: Builder, x: str, name: str, number: int, turn: tuple[str, str], sizes: Sizes
) -> tuple[str, list[str]]:
    all_heads, key_heads = sizes.heads * sizes.head, sizes.key_heads * sizes.head
    order = (0, 2, 1, 3)
    query = _linear(builder, x, f"{name}/q_proj", sizes.width, all_heads, SCORE_GAIN)
    query = cut_heads(builder, query, f"{name}/q_proj", order)
    key = _linear(builder, x, f"{name}/k_proj", sizes.width, key_heads, SCORE_GAIN)
    key = cut_heads(builder, key, f"{name}/k_proj", order, "split_key_heads")
    value = _linear(builder, x, f"{name}/v_proj", sizes.width, key_heads)
    value = cut_heads(builder, value, f"{name}/v_proj", order, "split_key_heads")
    query = _rotated(builder, query, f"{name}/rotate_q", turn)
    key = _rotated(builder, key, f"{name}/rotate_k", turn)
    cache = []
    for part, new in (("key", key), ("value", value)):
        shape = (1, sizes.key_heads, sizes.past, sizes.head)
        old = builder.input(f"past_key_values.{number}.{part}", shape)
        output = f"present.{number}.{part}"
        cache.append(builder.node("Concat", [old, new], f"{name}/{part}", output, axis=2))
    key, value = (_repeated(builder, part, f"{name}/repeat_{part}") for part in cache)
    key = builder.node("Transpose", [key], f"{name}/transpose_key", perm=(0, 1, 3, 2))
    scores = builder.node("MatMul", [query, key], f"{name}/scores")
    scores = builder.node("Mul", [scores, "scale"], f"{name}/scale")
    x = mix(builder, scores, value, name)
    return _linear(builder, x, f"{name}/o_proj", all_heads, sizes.width, RESTORING_GAIN), cache


def _repeated(builder: Builder, x: str, name: str) -> str:
    """Each head of keys or values once for every query head that it serves."""
    x = builder.node("Unsqueeze", [x, "axis_2"], f"{name}/unsqueeze")
    x = builder.node("Expand", [x, "groups"], f"{name}/expand")
    return builder.node("Reshape", [x, "all_heads"], f"{name}/reshape")


def _feed_forward(builder: Builder, x: str, name: str, sizes: Sizes) -> str:
    """SwiGLU: one product through a SiLU is the gate of another."""
    gate = _linear(builder, x, f"{name}/gate_proj", sizes.width, sizes.inner)
    passed = builder.node("Sigmoid", [gate], f"{name}/sigmoid")
    gate = builder.node("Mul", [gate, passed], f"{name}/silu")
    x = _linear(builder, x, f"{name}/up_proj", sizes.width, sizes.inner)
    x = builder.node("Mul", [gate, x], f"{name}/mul")
    return _linear(builder, x, f"{name}/down_proj", sizes.inner, sizes.width, RESTORING_GAIN)
