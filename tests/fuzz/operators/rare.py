"""Operators with many operands that have to fit each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper

from tests.fuzz.maker import F32, F64, I32, I64, Maker, Unsuitable, Value
from tests.fuzz.operators.pointwise import options

_U8, _I8 = np.dtype("uint8"), np.dtype("int8")


def _affine_grid(maker: Maker) -> None:
    axes = maker.pick((2, 3))
    batch = maker.pick((1, 2))
    theta = maker.fresh(maker.pick((F32, F64)), (batch, axes, axes + 1), "unit")
    sizes = maker.longs((batch, 1, *(maker.pick((2, 3, 5)) for _ in range(axes))))
    maker.node("AffineGrid", theta, sizes, **options(maker, {"align_corners": (0, 1)}))


_SAME_WIDTH = {F32: (I32, np.dtype("uint32")), I32: (F32,), I64: (F64,), F64: (I64,), _I8: (_U8,)}


def _bit_cast(maker: Maker) -> None:
    value = maker.some(tuple(_SAME_WIDTH))
    to = helper.np_dtype_to_tensor_dtype(maker.pick(_SAME_WIDTH[value.kind]))
    maker.node("BitCast", value, to=to, exact=True, last=True)


def _deform(maker: Maker) -> None:
    image = (1, maker.pick((1, 2, 4)), maker.pick((3, 5)), maker.pick((4, 6)))
    kernel = (maker.pick((1, 2)), maker.pick((1, 3)))
    sizes = [size - window + 1 for size, window in zip(image[2:], kernel, strict=True)]
    value = maker.fresh(F32, image, "unit")
    weight = maker.fresh(F32, (maker.pick((1, 3)), image[1], *kernel), "unit")
    offset = maker.fresh(F32, (1, 2 * kernel[0] * kernel[1], *sizes), "unit")
    maker.node("DeformConv", value, weight, offset, kernel_shape=kernel)


def _unpool(maker: Maker) -> None:
    """Of what a MaxPool found, each number by itself."""
    shape = (maker.pick((1, 2)), maker.pick((1, 3)), 4, maker.pick((4, 6)))
    count = int(np.prod(shape))
    data = maker.given(maker.random.permutation(count).reshape(shape).astype(np.float32))
    attributes: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    values, places = maker.node("MaxPool", data, outputs=2, exact=True, **attributes)
    maker.node("MaxUnpool", values, places, exact=True, **attributes)


def _mel(maker: Maker) -> None:
    numbers = (maker.pick((4, 8)), maker.pick((16, 32)), 8192)
    operands = [maker.known(number, I64) for number in numbers]
    edges = [maker.known(edge, F32) for edge in (0.0, maker.pick((3000.0, 4096.0)))]
    maker.node("MelWeightMatrix", *operands, *edges, last=True)


def _scales(maker: Maker, kind: Any) -> list[Value]:
    return [maker.fresh(F32, (), "positive"), maker.fresh(kind, (), "positive")]


def _quantised_product(maker: Maker) -> None:
    rows, depth, columns = (maker.pick((1, 3, 7)) for _ in range(3))
    kind = maker.pick((_U8, _I8))
    first, second = maker.fresh(kind, (rows, depth)), maker.fresh(kind, (depth, columns))
    operands = [first, *_scales(maker, kind), second, *_scales(maker, kind)]
    maker.node("QLinearMatMul", *operands, *_scales(maker, kind))


def _quantised_convolution(maker: Maker) -> None:
    channels, out = maker.pick((1, 3)), maker.pick((1, 4))
    value = maker.fresh(_U8, (1, channels, 5, 6))
    weight = maker.fresh(_U8, (out, channels, maker.pick((1, 3)), maker.pick((1, 2))))
    operands = [value, *_scales(maker, _U8), weight, *_scales(maker, _U8), *_scales(maker, _U8)]
    bias = maker.fresh(I32, (out,)) if maker.chance(50) else None
    attributes = options(maker, {"strides": ([2, 1], [1, 2]), "pads": ([0, 0, 0, 0],)})
    maker.node("QLinearConv", *operands, bias, **attributes)


def _regions(maker: Maker) -> None:
    if maker.opset < 16:
        raise Unsuitable
    value = maker.fresh(F32, (2, maker.pick((1, 3)), 7, 9), "unit")
    count = maker.pick((1, 3))
    corners = maker.random.uniform(0, 3, (count, 2))
    boxes = np.concatenate([corners, corners + maker.random.uniform(1, 4, (count, 2))], axis=1)
    batches = maker.given(maker.random.integers(0, 2, count).astype(np.int64))
    attributes: dict[str, Any] = options(
        maker,
        {
            "coordinate_transformation_mode": ("half_pixel", "output_half_pixel"),
            "output_height": (1, 2, 3),
            "output_width": (1, 2),
            "sampling_ratio": (1, 2),
        },
    )
    regions = maker.given(boxes.astype(np.float32))
    maker.node("RoiAlign", value, regions, batches, mode="avg", **attributes)


def _region_maxima(maker: Maker) -> None:
    value = maker.fresh(F32, (2, maker.pick((1, 3)), 7, 9), "unit")
    corners = maker.random.integers(0, 4, (2, 2))
    ends = corners + maker.random.integers(1, 4, (2, 2))
    rows = np.concatenate([np.array([[0], [1]]), corners, ends], axis=1)
    pooled = [maker.pick((1, 2, 3)) for _ in range(2)]
    regions = maker.given(rows.astype(np.float32))
    attributes = options(maker, {"spatial_scale": (1.0, 0.5)})
    maker.node("MaxRoiPool", value, regions, pooled_shape=pooled, **attributes)


def _short_transform(maker: Maker) -> None:
    length, step = maker.pick((4, 5, 8)), maker.pick((2, 3))
    signal = maker.fresh(F32, (maker.pick((1, 2)), maker.pick((16, 21)), 1), "unit")
    window = maker.fresh(F32, (length,), "unit") if maker.chance(50) else None
    operands = [signal, maker.known(step, I64), window, maker.known(length, I64)]
    maker.node("STFT", *operands, onesided=maker.pick((0, 1)), last=True)


def _tensor_scatter(maker: Maker) -> None:
    if maker.opset < 24:
        raise Unsuitable
    batch, heads, longest, width = maker.pick((1, 2)), maker.pick((1, 3)), 6, maker.pick((1, 4))
    length = maker.pick((1, 2))
    cache = maker.fresh(F32, (batch, heads, longest, width))
    update = maker.fresh(F32, (batch, heads, length, width))
    begins = maker.random.integers(0, longest - length + 1, batch)
    begin = maker.given(begins.astype(np.int64))
    maker.node("TensorScatter", cache, update, begin, exact=True)


GENERATORS: dict[str, Callable[[Maker], object]] = {
    "AffineGrid": _affine_grid,
    "BitCast": _bit_cast,
    "DeformConv": _deform,
    "MaxUnpool": _unpool,
    "MelWeightMatrix": _mel,
    "QLinearMatMul": _quantised_product,
    "QLinearConv": _quantised_convolution,
    "RoiAlign": _regions,
    "MaxRoiPool": _region_maxima,
    "STFT": _short_transform,
    "TensorScatter": _tensor_scatter,
}
