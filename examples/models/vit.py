"""ViT-B/16 (Dosovitskiy et al., 2020): an image as 196 patches and a class token.

Spelled as timm exports it: one product for queries, keys and values.
"""

from __future__ import annotations

import numpy as np
import onnx

from ramforge.zoo.builder import Builder
from ramforge.zoo.transformer import (
    MIXING_GAIN,
    RESTORING_GAIN,
    SCORE_GAIN,
    gelu,
    gelu_constants,
    layer_norm,
    linear,
    mix,
)

_EPSILON = 1e-6


def vit(
    image: int, patch: int, layers: int, width: int, heads: int, classes: int
) -> onnx.ModelProto:
    """Normalisation before each residual branch; the class token goes to the classifier."""
    patches = (image // patch) ** 2
    tokens = patches + 1
    builder = Builder("vit", seed=19)
    gelu_constants(builder)
    builder.constant("scale", (width // heads) ** -0.5)
    builder.constant("split_qkv", [1, tokens, 3, heads, width // heads])
    builder.constant("join_heads", [1, tokens, width])
    for number, name in enumerate(("first", "second", "third")):
        builder.constant(name, np.array(number))
    x = builder.input("image", (1, 3, image, image))
    x = builder.convolution(
        x, "/patch_embed", 3, width, patch, patch, padding=0, gain=1.0, bias=True
    )
    x = builder.node("Reshape", [x, builder.constant("grid", [1, width, patches])], "/flatten")
    x = builder.node("Transpose", [x], "/transpose", perm=(0, 2, 1))
    token = builder.weight("class_token", (1, 1, width), fan_in=1)
    x = builder.node("Concat", [token, x], "/concat", axis=1)
    x = builder.node("Add", [x, builder.weight("positions", (1, tokens, width), 1)], "/positions")
    for number in range(layers):
        x = _block(builder, x, f"/blocks.{number}", width)
    x = layer_norm(builder, x, "/norm", width, epsilon=_EPSILON)
    x = builder.node("Gather", [x, "first"], "/class_token", axis=1)
    weight = builder.weight("head.weight", (classes, width), width)
    bias = builder.bias("head.bias", classes)
    return builder.finish([builder.node("Gemm", [x, weight, bias], "/head", "classes", transB=1)])


def vit_b16() -> onnx.ModelProto:
    return vit(image=224, patch=16, layers=12, width=768, heads=12, classes=1000)


def vit_small() -> onnx.ModelProto:
    return vit(image=20, patch=5, layers=2, width=48, heads=3, classes=10)


def _block(builder: Builder, x: str, name: str, width: int) -> str:
    y = layer_norm(builder, x, f"{name}/norm1", width, epsilon=_EPSILON)
    y = _attention(builder, y, f"{name}/attn", width)
    x = builder.node("Add", [x, y], f"{name}/add")
    y = layer_norm(builder, x, f"{name}/norm2", width, epsilon=_EPSILON)
    y = linear(builder, y, f"{name}/mlp/fc1", width, 4 * width)
    y = gelu(builder, y, f"{name}/mlp/gelu")
    y = linear(builder, y, f"{name}/mlp/fc2", 4 * width, width, RESTORING_GAIN, centred=True)
    return builder.node("Add", [x, y], f"{name}/add_1")


def _attention(builder: Builder, x: str, name: str, width: int) -> str:
    x = linear(builder, x, f"{name}/qkv", width, 3 * width, SCORE_GAIN)
    x = builder.node("Reshape", [x, "split_qkv"], f"{name}/qkv/reshape")
    x = builder.node("Transpose", [x], f"{name}/qkv/transpose", perm=(2, 0, 3, 1, 4))
    query, key, value = (
        builder.node("Gather", [x, place], f"{name}/{part}", axis=0)
        for part, place in (("query", "first"), ("key", "second"), ("value", "third"))
    )
    query = builder.node("Mul", [query, "scale"], f"{name}/scale")
    key = builder.node("Transpose", [key], f"{name}/key/transpose", perm=(0, 1, 3, 2))
    scores = builder.node("MatMul", [query, key], f"{name}/scores")
    x = mix(builder, scores, value, name)
    return linear(builder, x, f"{name}/proj", width, width, MIXING_GAIN)
