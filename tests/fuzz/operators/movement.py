"""Operators that move elements, and those that make tensors out of sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from tests.fuzz.maker import (
    ANY,
    BOOL,
    F32,
    F64,
    FLOATS,
    I32,
    I64,
    NUMBERS,
    Maker,
    Unsuitable,
    Value,
)


def _reshape(maker: Maker) -> None:
    value = maker.some(ANY)
    sizes = _factored(maker, math.prod(value.shape))
    attributes = {}
    if 0 in value.shape:
        attributes["allowzero"] = 1
    elif sizes and maker.chance(40):
        sizes[maker.integer(0, len(sizes) - 1)] = -1
    maker.node("Reshape", value, maker.longs(sizes), exact=True, **attributes)


def _factored(maker: Maker, count: int) -> list[int]:
    """Sizes whose product this is."""
    if count == 0:
        return [0, *([maker.pick((1, 3))] if maker.chance(50) else [])]
    sizes: list[int] = []
    for divisor in (2, 3, 5, 7, 17, 2, 3, 2, 2):
        if count % divisor == 0 and maker.chance(60):
            sizes.append(divisor)
            count //= divisor
    if count > 1 or maker.chance(20):
        sizes.insert(maker.integer(0, len(sizes)), count)
    while len(sizes) > 5:
        sizes[0:2] = [sizes[0] * sizes[1]]
    return sizes


def _flatten(maker: Maker) -> None:
    value = maker.some(ANY)
    maker.node("Flatten", value, axis=maker.integer(-value.rank, value.rank), exact=True)


def _squeeze(maker: Maker) -> None:
    value = maker.some(ANY, where=lambda value: 1 in value.shape)
    ones = [axis for axis, size in enumerate(value.shape) if size == 1]
    chosen = [axis - value.rank if maker.chance(30) else axis for axis in ones if maker.chance(60)]
    axes = maker.longs(chosen) if chosen else None
    maker.node("Squeeze", value, axes, exact=True)


def _unsqueeze(maker: Maker) -> None:
    value = maker.some(ANY, most=4)
    rank = value.rank + maker.integer(1, 5 - value.rank)
    places: list[int] = []
    while len(places) < rank - value.rank:
        place = maker.integer(0, rank - 1)
        if place not in places:
            places.append(place)
    axes = [place - rank if maker.chance(30) else place for place in places]
    maker.node("Unsqueeze", value, maker.longs(axes), exact=True)


def _transpose(maker: Maker) -> None:
    value = maker.some(ANY)
    order = [int(axis) for axis in maker.random.permutation(value.rank)]
    attributes = {"perm": order} if maker.chance(80) and value.rank else {}
    maker.node("Transpose", value, exact=True, **attributes)


def _expand(maker: Maker) -> None:
    value = maker.some(ANY)
    sizes = [maker.pick((1, 2, 3)) if size == 1 else size for size in value.shape]
    if value.rank < 5 and maker.chance(40):
        sizes.insert(0, maker.pick((1, 2, 3)))
    sizes = [1 if maker.chance(20) else size for size in sizes]
    maker.node("Expand", value, maker.longs(sizes), exact=True)


def _tile(maker: Maker) -> None:
    value = maker.some(ANY, least=1)
    repeats = [maker.pick((1, 1, 2, 3, 0) if maker.chance(10) else (1, 2)) for _ in value.shape]
    maker.node("Tile", value, maker.longs(repeats), exact=True)


def _concat(maker: Maker) -> None:
    value = maker.some(ANY, least=1)
    axis = maker.axis(value.rank)
    operands = [value]
    for _ in range(maker.integer(0, 3)):
        if maker.chance(30):
            operands.append(maker.like(value))
            continue
        shape = list(value.shape)
        shape[axis] = maker.pick((0, 1, 2, 5))
        operands.append(maker.fresh(value.kind, tuple(shape)))
    maker.node("Concat", *operands, axis=axis, exact=True)


def _split(maker: Maker) -> None:
    value = maker.some(ANY, least=1)
    axis = maker.axis(value.rank)
    size = value.shape[axis]
    cuts = sorted(maker.integer(0, size) for _ in range(maker.integer(0, 2)))
    parts = [high - low for low, high in zip([0, *cuts], [*cuts, size], strict=True)]
    if maker.opset >= 18 and maker.chance(40) and size:
        count = maker.integer(1, min(size, 3))
        if count * -(-size // count) - size >= -(-size // count):
            raise Unsuitable
        maker.node("Split", value, outputs=count, axis=axis, num_outputs=count, exact=True)
        return
    maker.node("Split", value, maker.longs(parts), outputs=len(parts), axis=axis, exact=True)


def _slice(maker: Maker) -> None:
    value = maker.some(ANY, least=1)
    axes = maker.axes(value.rank, least=1)
    starts, ends, steps = [], [], []
    for axis in axes:
        size = value.shape[axis]
        step = maker.pick((1, 1, 1, 2, 3, -1, -2))
        low, high = sorted((maker.integer(0, size), maker.integer(0, size)))
        if step < 0:
            low, high = high - 1, low - 1 if low else -size - 1
        low = low - size if maker.chance(20) and low > 0 else low
        high = maker.pick((high, 2**31 - 1, 2**63 - 1)) if step > 0 else high
        starts.append(low)
        ends.append(high)
        steps.append(step)
    lists = [maker.longs(starts), maker.longs(ends), maker.longs(axes)]
    plain = all(step == 1 for step in steps) and maker.chance(50)
    maker.node("Slice", value, *lists, *([] if plain else [maker.longs(steps)]), exact=True)


def _pad(maker: Maker) -> None:
    value = maker.some((*NUMBERS, BOOL) if maker.chance(20) else FLOATS, least=1)
    mode = maker.pick(("constant", "constant", "reflect", "edge", "wrap"))
    most = 3 if mode in ("constant", "edge") else min(value.shape) - 1
    if most < 0 or (0 in value.shape and mode != "constant") or (mode == "wrap" and most < 1):
        raise Unsuitable
    least = -1 if mode == "constant" and min(value.shape) > 2 and maker.chance(20) else 0
    amounts = [maker.integer(least, min(most, 3)) for _ in range(2 * value.rank)]
    operands: list[Value | str | None] = [value, maker.longs(amounts)]
    if mode == "constant" and maker.chance(60):
        operands.append(maker.fresh(value.kind, ()))
    maker.node("Pad", *operands, mode=mode, exact=True)


def _depth_to_space(maker: Maker) -> None:
    block = maker.pick((1, 2, 3))
    value = maker.some(FLOATS, 4, 4, where=lambda v: v.shape[1] % block**2 == 0)
    attributes = {"mode": maker.pick(("DCR", "CRD"))} if maker.chance(70) else {}
    maker.node("DepthToSpace", value, blocksize=block, exact=True, **attributes)


def _space_to_depth(maker: Maker) -> None:
    block = maker.pick((1, 2, 3))

    def divides(value: Value) -> bool:
        return value.shape[2] % block == 0 and value.shape[3] % block == 0

    maker.node("SpaceToDepth", maker.some((F32, F64), 4, 4, where=divides), blocksize=block)


def _center_crop_pad(maker: Maker) -> None:
    value = maker.some(FLOATS, least=1)
    axes = sorted({axis % value.rank for axis in maker.axes(value.rank, least=1)})
    sizes = maker.longs(maker.pick((1, 2, 4, 6)) for _ in axes)
    maker.node("CenterCropPad", value, sizes, axes=axes, exact=True)


def _trilu(maker: Maker) -> None:
    value = maker.some((*FLOATS, I64, I32, BOOL), least=2)
    diagonal = maker.known(maker.integer(-3, 3), np.int64) if maker.chance(60) else None
    maker.node("Trilu", value, diagonal, upper=maker.pick((0, 1)), exact=True)


def _reverse_sequence(maker: Maker) -> None:
    value = maker.some(FLOATS, least=2)
    batch = maker.pick((0, 1))
    length, count = value.shape[1 - batch], value.shape[batch]
    if not length:
        raise Unsuitable
    lengths = maker.random.integers(1, length + 1, count)
    operand = maker.given(lengths.astype(np.int64))
    maker.node("ReverseSequence", value, operand, batch_axis=batch, time_axis=1 - batch, exact=True)


def _eye_like(maker: Maker) -> None:
    value = maker.some((F32, F64, I32, I64), 2, 2)
    attributes: dict[str, Any] = {"k": maker.integer(-3, 3)} if maker.chance(60) else {}
    if maker.chance(40):
        kind = maker.pick((F32, I64, F64))
        attributes["dtype"] = helper.np_dtype_to_tensor_dtype(kind)
    maker.node("EyeLike", value, exact=True, **attributes)


def _shape(maker: Maker) -> None:
    value = maker.some(ANY)
    attributes = {"start": maker.integer(-2, 2)} if maker.chance(40) else {}
    maker.node("Shape", value, exact=True, **attributes)


def _size(maker: Maker) -> None:
    maker.node("Size", maker.some(ANY), exact=True)


def _constant_of_shape(maker: Maker) -> None:
    shape = maker.shape()
    fill = maker.array(maker.pick((F32, I64, BOOL, F64)), (1,))
    attributes = {"value": numpy_helper.from_array(fill, "fill")} if maker.chance(80) else {}
    maker.node("ConstantOfShape", maker.longs(shape), exact=True, **attributes)


def _range(maker: Maker) -> None:
    kind = maker.pick((I32, I64, F32, F64))
    numbers = (maker.integer(-5, 5), maker.integer(-5, 20), maker.pick((1, 2, 3, -1, -2)))
    maker.node("Range", *(maker.known(number, kind) for number in numbers))


def _image_blocks(maker: Maker) -> None:
    kernel = [maker.pick((1, 2, 3)) for _ in range(2)]
    image = [maker.pick((3, 4, 5)) for _ in range(2)]
    strides = [maker.pick((1, 2)) for _ in range(2)]
    blocks = math.prod(
        (size - window) // step + 1
        for size, window, step in zip(image, kernel, strides, strict=True)
    )
    channels = maker.pick((1, 2)) * math.prod(kernel)
    value = maker.fresh(maker.pick((F32, F64)), (maker.pick((1, 2)), channels, blocks))
    maker.node("Col2Im", value, maker.longs(image), maker.longs(kernel), strides=strides)


GENERATORS: dict[str, Callable[[Maker], object]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Expand": _expand,
    "Tile": _tile,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "CenterCropPad": _center_crop_pad,
    "Trilu": _trilu,
    "ReverseSequence": _reverse_sequence,
    "EyeLike": _eye_like,
    "Shape": _shape,
    "Size": _size,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Col2Im": _image_blocks,
}
