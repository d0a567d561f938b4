"""The models that ``bench.bodies`` takes bodies from: a few nodes for each kind of body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ramforge.compiler.device import PRECISIONS, THREADS
from ramforge.runtime.gpu_cases import model_of

_PLAIN = PRECISIONS[:1]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """The last node of a model that a kernel family carries out: the bodies of all candidates."""

    kind: str
    family: str
    model: onnx.ModelProto
    precisions: tuple[str, ...] = _PLAIN
    threads: int = THREADS[0]


def cases() -> list[Case]:
    """All of them; a new family is one more entry."""
    return [
        *_products(),
        *_few_rows(),
        *_cells(),
        *_attention(),
        *_rows(),
        *_reductions(),
        *_maps(),
    ]


def _products() -> list[Case]:
    weights = model_of(
        "g (float[512, 512] x) => (float[512, 512] y)"
        "{ p = MatMul(x, w) s = Add(p, b) y = Relu(s) }",
        w=(512, 512),
        b=(512,),
    )
    along_k = model_of(
        "g (float[4, 512, 64] x, float[4, 512, 64] k) => (float[4, 512, 512] y)"
        "{ t = Transpose<perm=[0, 2, 1]>(k) y = MatMul(x, t) }"
    )
    dense = model_of(
        "g (float[4, 512, 512] x, float[4, 512, 256] v) => (float[4, 512, 256] y)"
        "{ y = MatMul(x, v) }"
    )
    convolution = model_of(
        "g (float[1, 64, 56, 56] x) => (float[1, 128, 28, 28] y)"
        "{ r = Conv(x, v) c = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(r, w, b) z = Relu(c)"
        "  y = GlobalAveragePool(z) }",
        v=(64, 64, 1, 1),
        w=(128, 64, 3, 3),
        b=(128,),
    )
    odd = model_of(
        "g (float[1, 3, 224, 224] x) => (float[1, 64, 112, 112] y)"
        "{ y = Conv<pads=[3, 3, 3, 3], strides=[2, 2]>(x, w) }",
        w=(64, 3, 7, 7),
    )
    stored = model_of(
        "g (float[512, 512] x) => (float[512, 512] y) { v = Cast<to=1>(w) y = MatMul(x, v) }"
    )
    halves = np.random.default_rng(7).standard_normal((512, 512)).astype(np.float16)
    stored.graph.initializer.append(onnx.numpy_helper.from_array(halves, "w"))
    half = ("fp32", "fp16")
    return [
        Case("product, packed", "contract", weights, PRECISIONS),
        Case("product, packed", "contract", weights, half, THREADS[1]),
        Case("product, weights in float16", "contract", stored),
        Case("product, bytes", "contract", _bytes()),
        Case("product, along k", "contract", along_k, half),
        Case("product, dense", "contract", dense, half),
        Case("convolution, 3x3", "contract", convolution, half),
        Case("convolution, 3 channels", "contract", odd, half),
    ]


def _bytes() -> onnx.ModelProto:
    model = model_of(
        "g (uint8[512, 512] x) => (int32[512, 512] y) { y = MatMulInteger(x, w, zero) }"
    )
    weights = np.random.default_rng(7).integers(-128, 128, (512, 512)).astype(np.int8)
    zero = np.array(128, np.uint8)
    for name, value in (("w", weights), ("zero", zero)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


def _few_rows() -> list[Case]:
    def model(rows: int) -> onnx.ModelProto:
        return model_of(
            f"g (float[{rows}, 1024] x) => (float[{rows}, 1024] y)"
            "{ p = MatMul(x, w) s = Add(p, b) y = Relu(s) }",
            w=(1024, 1024),
            b=(1024,),
        )

    return [
        Case(f"few rows, {rows}", "contract", model(rows), ("fp32", "fp16", "bf16"))
        for rows in (1, 4)
    ]


def _cells() -> list[Case]:
    model = model_of(
        "g (float[1, 256] x, float[1, 256] c) => (float[1, 256] y) { p = MatMul(x, w)"
        " a, b, d, e = Split<axis=1>(p) i = Sigmoid(a) f = Sigmoid(b) o = Sigmoid(d) g = Tanh(e)"
        " k = Mul(f, c) m = Mul(i, g) n = Add(k, m) t = Tanh(n) h = Mul(o, t)"
        " r = MatMul(h, v) y = Add(r, n) }",
        w=(256, 1024),
        v=(256, 256),
    )
    return [Case("cell of an LSTM", "cell", model, ("fp32", "fp16"))]


def _attention() -> list[Case]:
    def model(queries: int) -> onnx.ModelProto:
        heads = "float[12, 512, 64]"
        return model_of(
            f"g (float[12, {queries}, 64] q, {heads} k, {heads} v) => (float[12, {queries}, 64] y)"
            "{ t = Transpose<perm=[0, 2, 1]>(k) s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v) }"
        )

    return [
        Case("attention", "attention", model(512), PRECISIONS),
        Case("attention", "attention", model(512), ("fp32", "fp16"), THREADS[1]),
        Case("attention, one query", "attention", model(1), ("fp32", "fp16")),
    ]


def _rows() -> list[Case]:
    square = "float[1024, 1024]"
    texts = {
        "softmax": f"g ({square} x) => ({square} y) {{ y = Softmax(x) }}",
        "softmax, scaled": (
            f"g ({square} x, float[1] s) => ({square} y) {{ m = Mul(x, s) y = Softmax(m) }}"
        ),
        "log-softmax": f"g ({square} x) => ({square} y) {{ y = LogSoftmax(x) }}",
        "normalize": (
            f"g ({square} x, float[1024] s, float[1024] b) => ({square} y)"
            "{ y = LayerNormalization(x, s, b) }"
        ),
    }
    texts["softmax, short rows"] = texts["softmax"].replace("1024]", "100]")
    return [Case(name, "row", model_of(text)) for name, text in texts.items()]


def _reductions() -> list[Case]:
    depthwise = model_of(
        "g (float[1, 96, 56, 56] x) => (float[1, 96, 56, 56] y)"
        "{ r = Conv(x, v) d = Conv<pads=[1, 1, 1, 1], group=96>(r, w, b) y = Clip(d, zero, six) }",
        v=(96, 96, 1, 1),
        w=(96, 1, 3, 3),
        b=(96,),
        zero=(),
        six=(),
    )
    pool = model_of(
        "g (float[1, 64, 112, 112] x) => (float[1, 64, 56, 56] y)"
        "{ r = Conv(x, v) y = MaxPool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(r) }",
        v=(64, 64, 1, 1),
    )
    average = model_of(
        "g (float[1, 64, 28, 28] x) => (float[1, 64, 1, 1] y)"
        "{ r = Conv(x, v) y = GlobalAveragePool(r) }",
        v=(64, 64, 1, 1),
    )
    mean = model_of(
        "g (float[1024, 1024] x) => (float[1024] y) { y = ReduceMean<axes=[1], keepdims=0>(x) }"
    )
    return [
        Case("depthwise 3x3", "reduce", depthwise),
        Case("pooling 3x3", "reduce", pool),
        Case("pooling, global", "reduce", average),
        Case("mean of rows", "reduce", mean),
    ]


def _maps() -> list[Case]:
    square = "float[1024, 1024]"
    texts = {
        "sum of two": f"g ({square} x, {square} z) => ({square} y) {{ y = Add(x, z) }}",
        "GELU": (
            f"g ({square} x) => ({square} y)"
            "{ d = Div(x, r) e = Erf(d) p = Add(e, i) m = Mul(x, p) y = Mul(m, h) }"
        ),
        "transpose": f"g ({square} x) => ({square} y) {{ y = Transpose<perm=[1, 0]>(x) }}",
        "concatenation": (
            "g (float[1024, 512] x, float[1024, 512] z) => (float[1024, 1024] y)"
            "{ y = Concat<axis=1>(x, z) }"
        ),
    }
    scalars: dict[str, tuple[int, ...]] = {"r": (), "i": (), "h": ()}
    return [
        Case(f"map, {name}", "map", model_of(text, **(scalars if name == "GELU" else {})))
        for name, text in texts.items()
    ]
