"""Operators whose indices are data: gathering, scattering, sorting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.fuzz.maker import (
    ANY,
    BOOL,
    F32,
    F64,
    FLOATS,
    I32,
    I64,
    Maker,
    Shape,
    Unsuitable,
    Value,
    is_float,
)
from tests.fuzz.operators.pointwise import options

_KINDS = (*FLOATS, I32, I64)


def _indices(maker: Maker, size: int, shape: Shape) -> Value:
    """Numbers that count along an axis, some from the end."""
    if not size and 0 not in shape:
        raise Unsuitable
    low = -size if maker.chance(50) else 0
    found = maker.random.integers(low, max(size, low + 1), shape)
    array = np.asarray(found).astype(maker.pick((np.int64, np.int32)))
    return maker.known(array) if maker.chance(30) else maker.given(array)


def _gather(maker: Maker) -> None:
    data = maker.some(ANY, least=1, most=4)
    axis = maker.axis(data.rank)
    shape = maker.shape(0, min(2, 5 - data.rank), empty=True)
    maker.node("Gather", data, _indices(maker, data.shape[axis], shape), axis=axis, exact=True)


def _gather_elements(maker: Maker) -> None:
    data = maker.some(ANY, least=1)
    axis = maker.axis(data.rank)
    shape = [maker.integer(min(1, size), size) for size in data.shape]
    shape[axis] = maker.pick((1, 2, 5))
    indices = _indices(maker, data.shape[axis], tuple(shape))
    maker.node("GatherElements", data, indices, axis=axis, exact=True)


def _tuples(maker: Maker, data: Value, lead: Shape, depth: int, first: int) -> Value:
    """Index tuples of this depth, along the axes from ``first`` on."""
    sizes = data.shape[first : first + depth]
    if 0 in data.shape:
        raise Unsuitable
    columns = [maker.random.integers(-size, size, lead) for size in sizes]
    return maker.given(np.stack(columns, axis=-1).astype(np.int64))


def _gather_nd(maker: Maker) -> None:
    data = maker.some(ANY, least=1, most=4)
    batch = maker.pick((0, 0, 1)) if data.rank > 1 else 0
    depth = maker.integer(1, data.rank - batch)
    # onnx infers no shape for a result without axes
    least = 1 if depth == data.rank else 0
    lead = (*data.shape[:batch], *maker.shape(least, 2, empty=False))
    indices = _tuples(maker, data, lead, depth, batch)
    maker.node("GatherND", data, indices, batch_dims=batch, exact=True)


def _scatter_elements(maker: Maker) -> None:
    data = maker.some(_KINDS, least=1)
    axis = maker.axis(data.rank)
    size = data.shape[axis]
    shape = list(data.shape)
    reduction = maker.pick(("none", "add", "mul", "max", "min") if maker.opset >= 18 else ("none",))
    if is_float(data.kind) and data.kind.itemsize == 2:
        reduction = "none"
    shape[axis] = maker.integer(min(size, 1), size)
    if 0 in shape:
        raise Unsuitable
    if reduction == "none":  # every place once
        order = np.argsort(maker.random.random(data.shape), axis=axis)
        array = np.take(order, range(shape[axis]), axis=axis).astype(np.int64)
        indices = maker.given(array)
    else:
        indices = _indices(maker, size, tuple(shape))
    updates = maker.fresh(data.kind, tuple(shape), "small")
    attributes = {"reduction": reduction} if reduction != "none" or maker.chance(20) else {}
    maker.node("ScatterElements", data, indices, updates, axis=axis, **attributes)


def _scatter_nd(maker: Maker) -> None:
    data = maker.some((F32, F64, I32, I64), least=1, most=4)
    depth = maker.integer(1, data.rank)
    reduction = maker.pick(("none", "add", "mul", "max", "min") if maker.opset >= 18 else ("none",))
    lead: Shape = (maker.pick((1, 3)),)
    if reduction == "none":
        lead = (1,)
    indices = _tuples(maker, data, lead, depth, 0)
    updates = maker.fresh(data.kind, (*lead, *data.shape[depth:]), "small")
    attributes = {"reduction": reduction} if reduction != "none" or maker.chance(20) else {}
    maker.node("ScatterND", data, indices, updates, **attributes)


def _one_hot(maker: Maker) -> None:
    depth = maker.pick((1, 3, 5))
    indices = _indices(maker, depth, maker.shape(1, 3))
    if indices.kind != I64:  # the only kind with a float that ONNX Runtime has
        raise Unsuitable
    values = maker.fresh(maker.pick((F32, I64)), (2,))
    operands = (indices, maker.known(depth, np.int64), values)
    maker.node("OneHot", *operands, axis=maker.axis(indices.rank + 1), exact=True)


def _top_k(maker: Maker) -> None:
    """Distinct numbers: which of two equal ones comes first is left open."""
    shape = maker.shape(1, 4, empty=False)
    axis = maker.axis(len(shape))
    distinct = maker.random.permutation(int(np.prod(shape))).reshape(shape)
    data = maker.given(distinct.astype(maker.pick((np.float32, np.int64, np.float64, np.int32))))
    count = maker.longs([maker.integer(0 if maker.chance(5) else 1, shape[axis])])
    attributes = {"largest": maker.pick((0, 1))}
    maker.node("TopK", data, count, outputs=2, axis=axis, exact=True, **attributes)


def _compress(maker: Maker) -> None:
    data = maker.some(FLOATS, least=1)
    axis = maker.axis(data.rank)
    keep = maker.random.integers(0, 2, data.shape[axis]).astype(bool)
    if 0 in data.shape or not keep.any():
        raise Unsuitable
    # only an output can say how long it is
    maker.node("Compress", data, maker.given(keep), axis=axis, exact=True, last=True)


def _non_zero(maker: Maker) -> None:
    data = maker.known(maker.array(maker.pick((F32, I64, BOOL)), maker.shape(1, 3), "small"))
    maker.node("NonZero", data, exact=True)


def _rotary(maker: Maker) -> None:
    if maker.opset < 23:
        raise Unsuitable
    batch, heads, length, width = (maker.pick(sizes) for sizes in ((1, 2), (1, 3), (2, 5), (2, 4)))
    data = maker.fresh(F32, (batch, heads, length, width))
    table = (batch, length, width // 2)
    cos, sin = maker.fresh(F32, table, "unit"), maker.fresh(F32, table, "unit")
    maker.node("RotaryEmbedding", data, cos, sin, **options(maker, {"interleaved": (0, 1)}))


GENERATORS: dict[str, Callable[[Maker], object]] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "OneHot": _one_hot,
    "TopK": _top_k,
    "Compress": _compress,
    "NonZero": _non_zero,
    "RotaryEmbedding": _rotary,
}
