"""Reductions, running sums, statistics of rows and matrix products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from onnx import helper

from tests.fuzz.maker import (
    F32,
    F64,
    FLOATS,
    I32,
    I64,
    Kind,
    Maker,
    Unsuitable,
    Value,
    has_order,
    has_style,
)
from tests.fuzz.operators.pointwise import options

_WIDE = (*FLOATS, F32, I32, I64)
_REDUCTIONS = (
    *("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"),
)
_LIST_SINCE = {"Sum": 13}  # the axes are an operand from here on, 18 for the others


def _reduce(what: str, maker: Maker) -> None:
    kinds = _WIDE
    if what in ("L1", "L2", "LogSum", "LogSumExp"):
        kinds = FLOATS
    if what in ("Max", "Min"):
        kinds = (*_WIDE, np.dtype("int8"), np.dtype("uint8"))
    style = "positive" if what == "LogSum" else maker.pick(("", "small"))
    value = maker.some(kinds, style=style)
    # ONNX Runtime goes through double, which shows where a sum overflows and in means of nothing
    if value.kind.kind in "iu" and what not in ("Max", "Min"):
        most = 10 if what == "Prod" else 1000
        if not has_style(value, "small") or not 0 < value.array.size < most:
            raise Unsuitable
    axes = sorted({axis % value.rank for axis in maker.axes(value.rank)}) if value.rank else []
    axes = [axis - value.rank if maker.chance(30) else axis for axis in axes]
    attributes = options(maker, {"keepdims": (0, 1)})
    exact = what in ("Max", "Min")
    if maker.opset < _LIST_SINCE.get(what, 18):
        if axes:
            attributes["axes"] = axes
        maker.node(f"Reduce{what}", value, exact=exact, **attributes)
        return
    attributes |= options(maker, {"noop_with_empty_axes": (0, 1)})
    operand = maker.longs(axes) if axes or maker.chance(40) else None
    maker.node(f"Reduce{what}", value, operand, exact=exact, **attributes)


def _arg(op: str, maker: Maker) -> None:
    kinds = (F32, F64, I32, np.dtype("uint8"), np.dtype("int8"))
    value = maker.some(kinds, least=1, where=has_order)
    attributes = options(maker, {"keepdims": (0, 1), "select_last_index": (0, 1)})
    maker.node(op, value, axis=maker.axis(value.rank), exact=True, **attributes)


def _running(op: str, maker: Maker) -> None:
    value = maker.some((F32, F64, I32, I64), least=1, style="small")
    axis = maker.known(maker.axis(value.rank), maker.pick((I32, I64)))
    attributes = options(maker, {"exclusive": (0, 1), "reverse": (0, 1)})
    maker.node(op, value, axis, **attributes)


def _is_bounded(value: Value) -> bool:
    """Infinity less infinity comes out differently in each type of ONNX Runtime."""
    return has_order(value) and not np.isposinf(value.array).any()


def _rows(op: str, maker: Maker) -> None:
    value = maker.some(FLOATS, least=1, where=_is_bounded)
    attributes = {"axis": maker.axis(value.rank)} if maker.chance(80) else {}
    maker.node(op, value, **attributes)


def _lp_norm(maker: Maker) -> None:
    value = maker.some((F32, F64), least=1)
    maker.node("LpNormalization", value, axis=maker.axis(value.rank), p=maker.pick((1, 2)))


def _layer_norm(maker: Maker) -> None:
    value = maker.some((F32, F32, F64), least=1)
    axis = maker.axis(value.rank)
    shape = value.shape[axis:]
    scale = maker.fresh(value.kind, shape, "unit")
    bias = maker.fresh(value.kind, shape, "unit") if maker.chance(60) else None
    outputs = 1 if maker.chance(80) else 3
    maker.node("LayerNormalization", value, scale, bias, axis=axis, epsilon=1e-3, outputs=outputs)


def _rms_norm(maker: Maker) -> None:
    value = maker.some((F32, F32, F64), least=1)
    axis = maker.axis(value.rank)
    scale = maker.fresh(value.kind, value.shape[axis:], "unit")
    maker.node("RMSNormalization", value, scale, axis=axis, epsilon=1e-3)


def _instance_norm(maker: Maker) -> None:
    value = maker.some((F32, F32, F64), 3, 5)
    channels = (value.shape[1],)
    scale, bias = (maker.fresh(value.kind, channels, "unit") for _ in range(2))
    maker.node("InstanceNormalization", value, scale, bias, epsilon=1e-3)


def _group_norm(maker: Maker) -> None:
    # of another type the statistics are float32 (stash_type)
    value = maker.some((F32,), 3, 5, where=lambda value: value.shape[1] > 0)
    channels = value.shape[1]
    groups = maker.pick([size for size in range(1, channels + 1) if channels % size == 0])
    scale, bias = (maker.fresh(value.kind, (channels,), "unit") for _ in range(2))
    maker.node("GroupNormalization", value, scale, bias, num_groups=groups, epsilon=1e-3)


def _batch_norm(maker: Maker) -> None:
    value = maker.some((F32, F32, F64), 2, 5)
    channels = (value.shape[1],)
    operands = [maker.fresh(value.kind, channels, "unit") for _ in range(3)]
    variance = maker.fresh(value.kind, channels, "positive")
    maker.node("BatchNormalization", value, *operands, variance, epsilon=1e-3)


def _mean_variance(maker: Maker) -> None:
    value = maker.some((F32,), 4, 4)
    axes = sorted({axis % 4 for axis in maker.axes(4, least=1)})
    if all(value.shape[axis] == 1 for axis in axes):  # the root of 0, or of what rounding left
        raise Unsuitable
    maker.node("MeanVarianceNormalization", value, axes=axes)


def _local_response(maker: Maker) -> None:
    # ONNX Runtime adds and takes away as it goes along, which no infinity survives
    value = maker.some((F32,), 4, 4, style="unit")
    attributes = options(maker, {"alpha": (0.1, 0.01), "beta": (0.75, 0.5), "bias": (1.0, 2.0)})
    maker.node("LRN", value, size=maker.pick((1, 3, 5)), **attributes)


def _matmul(maker: Maker) -> None:
    kinds: tuple[Kind, ...] = (F32, F32, F32, F64, I32, I64, *FLOATS)
    first = maker.some(kinds, least=1, most=4, style=maker.pick(("", "small")))
    depth = first.shape[-1]
    columns = maker.pick((1, 2, 3, 7, 17, 33))
    if first.rank >= 2 and maker.chance(20):
        fitting = [v for v in maker.values if v.kind == first.kind and v.shape[:1] == (depth,)]
        if fitting:
            maker.node("MatMul", first, maker.pick(fitting))
            return
    batch = [1 if maker.chance(40) else size for size in first.shape[:-2]]
    batch = batch[maker.integer(0, len(batch)) :]
    shape = (*batch, depth, columns) if maker.chance(85) else (depth,)
    maker.node("MatMul", first, maker.fresh(first.kind, shape, "small"))


def _gemm(maker: Maker) -> None:
    first = maker.some((F32, F32, F64, *FLOATS), 2, 2)
    attributes = options(
        maker, {"transA": (0, 1), "transB": (0, 1), "alpha": (0.5, 2.0), "beta": (0.5, 0.0)}
    )
    rows, depth = first.shape[:: -1 if attributes.get("transA") else 1]
    columns = maker.pick((1, 3, 7, 17, 33))
    shape = (columns, depth) if attributes.get("transB") else (depth, columns)
    second = maker.fresh(first.kind, shape)
    bias_shapes = ((rows, columns), (columns,), (rows, 1), (1, columns), (), (1, 1), (1,))
    # 0 times a NaN is one, but ONNX Runtime does not look at what it multiplies by 0
    style = "small" if attributes.get("beta") == 0 else ""
    bias = maker.fresh(first.kind, maker.pick(bias_shapes), style) if maker.chance(70) else None
    maker.node("Gemm", first, second, bias, **attributes)


def _matmul_integer(maker: Maker) -> None:
    small = (np.dtype("uint8"), np.dtype("int8"))
    first = maker.some(small, least=2, most=4)
    second = maker.fresh(maker.pick(small), (first.shape[-1], maker.pick((1, 3, 7))))
    zeros = [maker.fresh(value.kind, (), "positive") for value in (first, second)]
    maker.node("MatMulInteger", first, second, *(zeros if maker.chance(60) else ()))


_EQUATIONS: dict[str, tuple[str, ...]] = {
    "ij,jk->ik": ("ij", "jk"),
    "bij,bjk->bik": ("bij", "bjk"),
    "ij,ij->": ("ij", "ij"),
    "ij->ji": ("ij",),
    "ii->i": ("ii",),
    "ij->i": ("ij",),
    "i,j->ij": ("i", "j"),
    "bhid,bhjd->bhij": ("bhid", "bhjd"),
    "ij,jk,kl->il": ("ij", "jk", "kl"),
    "ij,jk": ("ij", "jk"),
    "...ij,...jk->...ik": ("ij", "jk"),
}


def _einsum(maker: Maker) -> None:
    equation = maker.pick(tuple(_EQUATIONS))
    sizes = {letter: maker.pick((1, 2, 3, 5)) for letter in "bhijkld"}
    kind = maker.pick((F32, F64, I32))
    operands = [
        maker.fresh(kind, tuple(sizes[letter] for letter in term)) for term in _EQUATIONS[equation]
    ]
    maker.node("Einsum", *operands, equation=equation)


def _determinant(maker: Maker) -> None:
    size = maker.pick((1, 2, 3, 4))
    shape = (*maker.shape(0, 2), size, size)
    maker.node("Det", maker.fresh(maker.pick((F32, F64)), shape))


def _loss(op: str, maker: Maker) -> None:
    scores = maker.some((F32, F64), least=2, where=lambda v: 0 not in v.shape)
    classes = scores.shape[1]
    labels = maker.random.integers(0, classes, (scores.shape[0], *scores.shape[2:]))
    operands: list[Value] = [scores, maker.given(labels.astype(maker.pick((np.int32, np.int64))))]
    if maker.chance(50):
        operands.append(maker.fresh(scores.kind, (classes,), "positive"))
    attributes: dict[str, Any] = options(maker, {"reduction": ("none", "mean", "sum")})
    if maker.chance(30):
        attributes["ignore_index"] = maker.integer(0, classes - 1)
    maker.node(op, *operands, **attributes)


def _like(op: str, maker: Maker) -> None:
    size = maker.known(maker.pick((4, 5, 10)), maker.pick((I32, I64)))
    attributes = options(maker, {"periodic": (0, 1)})
    kind = helper.np_dtype_to_tensor_dtype(maker.pick((F32, F64)))
    maker.node(op, size, output_datatype=kind, last=True, **attributes)


def _cum(op: str, maker: Maker) -> None:
    if op == "CumProd" and maker.opset < 26:
        raise Unsuitable
    _running(op, maker)


GENERATORS: dict[str, Callable[[Maker], object]] = {
    **{f"Reduce{what}": partial(_reduce, what) for what in _REDUCTIONS},
    **{op: partial(_arg, op) for op in ("ArgMax", "ArgMin")},
    **{op: partial(_cum, op) for op in ("CumSum", "CumProd")},
    **{op: partial(_rows, op) for op in ("Softmax", "LogSoftmax", "Hardmax")},
    **{op: partial(_like, op) for op in ("HannWindow", "HammingWindow", "BlackmanWindow")},
    **{op: partial(_loss, op) for op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")},
    "LpNormalization": _lp_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "BatchNormalization": _batch_norm,
    "MeanVarianceNormalization": _mean_variance,
    "LRN": _local_response,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "MatMulInteger": _matmul_integer,
    "Einsum": _einsum,
    "Det": _determinant,
}
