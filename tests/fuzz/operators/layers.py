"""Convolutions, pooling, resizing and recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tests.fuzz.maker import F16, F32, F64, I64, Maker, Unsuitable, Value, has_order, is_finite
from tests.fuzz.operators.pointwise import options

_FLOATS = (F32, F32, F32, F64)
_SMALL = (np.dtype("uint8"), np.dtype("int8"))


def _image(maker: Maker, kinds: Any = _FLOATS, least: int = 3) -> Value:
    return maker.some(kinds, least, 5, where=lambda value: 0 not in value.shape[1:])


def _window(maker: Maker, sizes: tuple[int, ...], pads: bool = True) -> dict[str, Any]:
    """Attributes of a window that fits into the image at least once."""
    rank = len(sizes)
    kernel = [maker.integer(1, min(size, 4)) for size in sizes]
    found: dict[str, Any] = {"kernel_shape": kernel}
    if maker.chance(60):
        found["strides"] = [maker.pick((1, 2, 3)) for _ in range(rank)]
    if maker.chance(30):
        found["dilations"] = [
            maker.pick((1, 2)) if (window - 1) * 2 < size else 1
            for window, size in zip(kernel, sizes, strict=True)
        ]
    if pads and maker.chance(50):
        found["pads"] = [maker.integer(0, window - 1) for window in kernel * 2]
    elif pads and maker.chance(25):
        found["auto_pad"] = maker.pick(("SAME_UPPER", "SAME_LOWER", "VALID"))
        found.pop("dilations", None)
    return found


def _convolution(maker: Maker) -> None:
    value = _image(maker)
    channels, sizes = value.shape[1], value.shape[2:]
    group = maker.pick([size for size in range(1, channels + 1) if channels % size == 0])
    if maker.chance(60):
        group = 1
    attributes = _window(maker, sizes)
    out = group * maker.pick((1, 2, 3, 5))
    weight = maker.fresh(value.kind, (out, channels // group, *attributes["kernel_shape"]), "unit")
    bias = maker.fresh(value.kind, (out,)) if maker.chance(50) else None
    maker.node("Conv", value, weight, bias, group=group, **attributes)


def _transposed(maker: Maker) -> None:
    value = _image(maker)
    channels, sizes = value.shape[1], value.shape[2:]
    if max(sizes) > 8 or len(sizes) > 2:
        raise Unsuitable
    group = maker.pick([size for size in range(1, channels + 1) if channels % size == 0])
    attributes = _window(maker, (3,) * len(sizes))
    attributes.pop("auto_pad", None)
    strides = attributes.get("strides", [1] * len(sizes))
    if maker.chance(30):
        attributes["output_padding"] = [maker.integer(0, step - 1) for step in strides]
    weight_shape = (channels, maker.pick((1, 2, 3)), *attributes["kernel_shape"])
    weight = maker.fresh(value.kind, weight_shape, "unit")
    bias = maker.fresh(value.kind, (weight_shape[1] * group,)) if maker.chance(50) else None
    maker.node("ConvTranspose", value, weight, bias, group=group, **attributes)


def _integer_convolution(maker: Maker) -> None:
    value = _image(maker, _SMALL[:1])
    attributes = _window(maker, value.shape[2:])
    shape = (maker.pick((1, 3)), value.shape[1], *attributes["kernel_shape"])
    weight = maker.fresh(_SMALL[0], shape)
    zeros = [maker.fresh(operand.kind, (), "positive") for operand in (value, weight)]
    maker.node("ConvInteger", value, weight, *(zeros if maker.chance(60) else ()), **attributes)


def _pool(op: str, maker: Maker) -> None:
    kinds = {"MaxPool": (F32, F32, F64, F16), "AveragePool": (F32, F64), "LpPool": (F32,)}[op]
    value = maker.some(kinds, 3, 5, where=lambda v: 0 not in v.shape[1:] and has_order(v))
    attributes = _window(maker, value.shape[2:])
    if maker.opset < {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[op]:
        attributes.pop("dilations", None)
    # before opset 22 ONNX keeps windows that start in the padding, and others leave them out
    if maker.opset >= 22 and maker.chance(40) and "auto_pad" not in attributes:
        attributes["ceil_mode"] = 1
    if op == "AveragePool":
        attributes |= options(maker, {"count_include_pad": (0, 1)})
    if op == "LpPool":
        attributes |= options(maker, {"p": (1, 2, 3)})
    outputs = 2 if op == "MaxPool" and maker.chance(20) and value.kind == F32 else 1
    maker.node(op, value, outputs=outputs, exact=op == "MaxPool", **attributes)


def _global_pool(op: str, maker: Maker) -> None:
    attributes = {"p": maker.pick((1, 2))} if op == "GlobalLpPool" else {}
    maker.node(op, maker.some((F32,), 3, 5, where=has_order), **attributes)


def _resize(maker: Maker) -> None:
    value = maker.some((F32,), 2, 4, where=lambda v: 0 not in v.shape and is_finite(v))
    mode = maker.pick(("nearest", "linear", "cubic"))
    coordinates = maker.pick(
        ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
    )
    attributes: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": coordinates,
    }
    if mode == "nearest":
        attributes |= options(
            maker,
            {"nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")},
        )
    free = range(max(0, value.rank - 2), value.rank)
    if maker.chance(50):
        scales = np.ones(value.rank, np.float32)
        scales[free.start :] = [maker.pick((0.5, 1.0, 1.5, 2.0, 3.0)) for _ in free]
        sizes_now = value.shape * scales
        # of a fraction ONNX Runtime and onnx.reference make other coordinates each
        if np.any(sizes_now % 1) or np.any(sizes_now < 1):
            raise Unsuitable
        maker.node("Resize", value, None, maker.known(scales), **attributes)
        return
    sizes = [*value.shape[: free.start], *(maker.pick((1, 2, 3, 5, 9)) for _ in free)]
    maker.node("Resize", value, None, None, maker.longs(sizes), **attributes)


def _grid_sample(maker: Maker) -> None:
    value = maker.some((F32,), 4, 4, where=lambda v: 0 not in v.shape and is_finite(v))
    grid = maker.fresh(F32, (value.shape[0], maker.pick((1, 3)), maker.pick((2, 5)), 2), "unit")
    attributes = options(
        maker,
        {
            "align_corners": (0, 1),
            "padding_mode": ("zeros", "border", "reflection"),
            "mode": ("linear", "nearest", "cubic")
            if maker.opset >= 20
            else ("bilinear", "nearest", "bicubic"),
        },
    )
    maker.node("GridSample", value, grid, **attributes)


def _recurrent(op: str, gates: int, maker: Maker) -> None:
    length, batch, width = maker.pick((1, 3, 4)), maker.pick((1, 2)), maker.pick((1, 3, 5))
    hidden = maker.pick((1, 2, 4))
    direction = maker.pick(("forward", "reverse", "bidirectional"))
    ways = 2 if direction == "bidirectional" else 1
    value = maker.fresh(F32, (length, batch, width), "unit")
    weight = maker.fresh(F32, (ways, gates * hidden, width), "unit")
    inner = maker.fresh(F32, (ways, gates * hidden, hidden), "unit")
    operands: list[Value | str | None] = [value, weight, inner]
    bias = maker.fresh(F32, (ways, 2 * gates * hidden), "unit") if maker.chance(60) else None
    lengths = None
    if maker.chance(40):
        counts = maker.random.integers(1, length + 1, batch).astype(np.int32)
        lengths = maker.given(counts)
    start = maker.fresh(F32, (ways, batch, hidden), "unit") if maker.chance(40) else None
    operands += [bias, lengths, start]
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    outputs = maker.integer(1, 2)
    if op == "LSTM":
        outputs = maker.integer(1, 3)
        if maker.chance(30):
            operands.append(maker.fresh(F32, (ways, batch, hidden), "unit"))
            if maker.chance(50):
                operands.append(maker.fresh(F32, (ways, 3 * hidden), "unit"))
    if op == "GRU":
        attributes |= options(maker, {"linear_before_reset": (0, 1)})
    maker.node(op, *operands, outputs=outputs, **attributes)


def _transform(maker: Maker) -> None:
    shape = (maker.pick((1, 2)), maker.pick((1, 2, 3, 5, 8)), maker.pick((1, 1, 2)))
    inverse = maker.pick((0, 1))
    signal = maker.fresh(F32, shape)
    sided = 0 if inverse or shape[-1] == 2 else maker.pick((0, 1))
    attributes = {"inverse": inverse, "onesided": sided, "last": True}
    if maker.opset < 20:
        maker.node("DFT", signal, axis=1, **attributes)
    else:
        maker.node("DFT", signal, None, maker.known(1, I64), **attributes)


GENERATORS: dict[str, Callable[[Maker], object]] = {
    **{op: partial(_pool, op) for op in ("MaxPool", "AveragePool", "LpPool")},
    **{
        op: partial(_global_pool, op)
        for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
    },
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "ConvInteger": _integer_convolution,
    "Resize": _resize,
    "GridSample": _grid_sample,
    "RNN": partial(_recurrent, "RNN", 1),
    "GRU": partial(_recurrent, "GRU", 3),
    "LSTM": partial(_recurrent, "LSTM", 4),
    "DFT": _transform,
}
