"""The encoder of Whisper (Radford et al., 2022), tiny: half a minute of sound as 1500 vectors."""

from __future__ import annotations

import math

import numpy as np
import onnx
from numpy.typing import NDArray

from ramforge.zoo.builder import Builder
from ramforge.zoo.transformer import (
    MIXING_GAIN,
    RESTORING_GAIN,
    SCORE_GAIN,
    cut_heads,
    gelu,
    gelu_constants,
    layer_norm,
    linear,
    mix,
)


def whisper(bins: int, frames: int, layers: int, width: int, heads: int) -> onnx.ModelProto:
    """A spectrogram through two convolutions, then layers with normalisation before each branch."""
    tokens = (frames + 1) // 2
    builder = Builder("whisper", seed=22)
    gelu_constants(builder)
    builder.constant("scale", (width // heads) ** -0.5)
    builder.constant("split_heads", [1, tokens, heads, width // heads])
    builder.constant("join_heads", [1, tokens, width])
    x = builder.input("input_features", (1, bins, frames))
    x = _convolution(builder, x, "/conv1", bins, width, stride=1)
    x = _convolution(builder, x, "/conv2", width, width, stride=2)
    x = builder.node("Transpose", [x], "/transpose", perm=(0, 2, 1))
    positions = builder.constant("positions", _sinusoids(tokens, width))
    x = builder.node("Add", [x, positions], "/positions")
    for number in range(layers):
        x = _layer(builder, x, f"/layers.{number}", width)
    return builder.finish([layer_norm(builder, x, "/layer_norm", width, "last_hidden_state")])


def whisper_tiny() -> onnx.ModelProto:
    return whisper(bins=80, frames=3000, layers=4, width=384, heads=6)


def whisper_small() -> onnx.ModelProto:
    return whisper(bins=10, frames=37, layers=2, width=48, heads=3)


def _convolution(
    builder: Builder, x: str, name: str, channels: int, width: int, stride: int
) -> str:
    weight = builder.weight(f"{name}.weight", (width, channels, 3), channels * 3, math.sqrt(2))
    bias = builder.bias(f"{name}.bias", width)
    x = builder.node(
        "Conv", [x, weight, bias], name, kernel_shape=[3], strides=[stride], pads=[1, 1]
    )
    return gelu(builder, x, f"{name}/gelu")


def _sinusoids(tokens: int, width: int) -> NDArray[np.float32]:
    """Sines, then cosines, of wavelengths from 2 pi to 10000 * 2 pi."""
    half = width // 2
    frequencies = np.exp(-math.log(10000) / (half - 1) * np.arange(half))
    angles = np.arange(tokens)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _layer(builder: Builder, x: str, name: str, width: int) -> str:
    y = layer_norm(builder, x, f"{name}/self_attn_layer_norm", width)
    y = _attention(builder, y, f"{name}/self_attn", width)
    x = builder.node("Add", [x, y], f"{name}/add")
    y = layer_norm(builder, x, f"{name}/final_layer_norm", width)
    y = linear(builder, y, f"{name}/fc1", width, 4 * width)
    y = gelu(builder, y, f"{name}/gelu")
    y = linear(builder, y, f"{name}/fc2", 4 * width, width, RESTORING_GAIN, centred=True)
    return builder.node("Add", [x, y], f"{name}/add_1")


def _attention(builder: Builder, x: str, name: str, width: int) -> str:
    """As published, keys have no bias."""
    query = linear(builder, x, f"{name}/q_proj", width, width, SCORE_GAIN)
    query = builder.node("Mul", [query, "scale"], f"{name}/scale")
    query = cut_heads(builder, query, f"{name}/q_proj", (0, 2, 1, 3))
    key = linear(builder, x, f"{name}/k_proj", width, width, SCORE_GAIN, bias=False)
    key = cut_heads(builder, key, f"{name}/k_proj", (0, 2, 3, 1))
    value = linear(builder, x, f"{name}/v_proj", width, width)
    value = cut_heads(builder, value, f"{name}/v_proj", (0, 2, 1, 3))
    scores = builder.node("MatMul", [query, key], f"{name}/scores")
    x = mix(builder, scores, value, name)
    return linear(builder, x, f"{name}/out_proj", width, width, MIXING_GAIN)
