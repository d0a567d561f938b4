"""BERT (Devlin et al., 2018), uncased: three embeddings, encoder layers and a pooler.

Token types are a product with one-hot vectors, as in the authors' own code.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from ramforge.zoo.builder import Builder
from ramforge.zoo.encoder import layer, layer_constants
from ramforge.zoo.transformer import layer_norm, linear

_EPSILON = 1e-12


def bert(
    layers: int,
    width: int,
    heads: int,
    tokens: int = 128,
    vocabulary: int = 30522,
    positions: int = 512,
) -> onnx.ModelProto:
    """Ids, token types and a mask in; a vector for each token and a pooled one out."""
    builder = Builder("bert", seed=18)
    layer_constants(builder, width, heads, tokens)
    ids, kinds, attended = (
        builder.input(name, (1, tokens), TensorProto.INT64)
        for name in ("input_ids", "token_type_ids", "attention_mask")
    )
    mask = _additive_mask(builder, attended)
    table = builder.weight("embeddings.word", (vocabulary, width), fan_in=1)
    x = builder.node("Gather", [table, ids], "/embeddings/word", axis=0)
    x = builder.node("Add", [x, _token_types(builder, kinds, width)], "/embeddings/add")
    table = builder.weight("embeddings.position", (positions, width), fan_in=1)
    places = builder.constant("position_ids", np.arange(tokens)[None])
    position = builder.node("Gather", [table, places], "/embeddings/position", axis=0)
    x = builder.node("Add", [x, position], "/embeddings/add_1")
    x = layer_norm(builder, x, "/embeddings/norm", width, epsilon=_EPSILON)
    for number in range(layers):
        output = "last_hidden_state" if number == layers - 1 else ""
        name = f"/encoder/layer.{number}"
        x = layer(builder, x, name, width, mask=mask, epsilon=_EPSILON, output=output)
    first = builder.node("Gather", [x, builder.constant("first", np.array(0))], "/first", axis=1)
    pooled = linear(builder, first, "/pooler", width, width)
    pooled = builder.node("Tanh", [pooled], "/pooler/tanh", "pooler_output")
    return builder.finish([x, pooled])


def bert_base() -> onnx.ModelProto:
    return bert(layers=12, width=768, heads=12)


def bert_large() -> onnx.ModelProto:
    return bert(layers=24, width=1024, heads=16)


def bert_small() -> onnx.ModelProto:
    return bert(layers=2, width=48, heads=3, tokens=17, vocabulary=50, positions=20)


def _additive_mask(builder: Builder, attended: str) -> str:
    """0 for every score of a token that counts, and the least float32 for one that does not."""
    builder.constant("least", float(np.finfo(np.float32).min))
    builder.constant("zero", 0.0)
    x = builder.node(
        "Unsqueeze", [attended, builder.constant("mask_axes", [1, 2])], "/mask/unsqueeze"
    )
    x = builder.node("Cast", [x], "/mask/cast", to=TensorProto.BOOL)
    return builder.node("Where", [x, "zero", "least"], "/mask/where")


def _token_types(builder: Builder, kinds: str, width: int) -> str:
    depth = builder.constant("token_types", np.array(2))
    values = builder.constant("off_on", np.array([0, 1], np.float32))
    x = builder.node("OneHot", [kinds, depth, values], "/embeddings/one_hot", axis=-1)
    table = builder.weight("embeddings.token_type", (2, width), fan_in=1)
    return builder.node("MatMul", [x, table], "/embeddings/token_type")
