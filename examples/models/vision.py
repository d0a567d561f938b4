"""Image operations as ONNX nodes, in the manner of Kornia (Riba et al., 2020): on batches, with a
parameter for each image, and differentiable in the image and in the parameters.

Images are (batch, 3, height, width) with values in [0, 1]; factors are (batch, 1, 1, 1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ramforge.zoo.builder import Builder

# ITU-R BT.601, as most libraries weigh the colours of a grey image
_GREY = (0.299, 0.587, 0.114)
# Added to what is divided by, or under a root: black and grey pixels have no colour and no edge.
_TINY = 1e-6
Array = NDArray[np.float32]


def clipped(builder: Builder, x: str, name: str) -> str:
    return builder.node("Clip", [x, _number(builder, 0.0), _number(builder, 1.0)], f"{name}/clip")


def grey(builder: Builder, x: str, name: str) -> str:
    weight = builder.constant("grey.weight", _array(_GREY).reshape(1, 3, 1, 1))
    return builder.node("Conv", [x, weight], name, kernel_shape=[1, 1])


def brightness(builder: Builder, x: str, factor: str, name: str) -> str:
    return clipped(builder, builder.node("Mul", [x, factor], name), name)


def contrast(builder: Builder, x: str, factor: str, name: str) -> str:
    """Further from the mean of the grey image, or nearer to it."""
    shade = grey(builder, x, f"{name}/grey")
    mean = builder.node("ReduceMean", [shade], f"{name}/mean", axes=[1, 2, 3], keepdims=1)
    apart = builder.node("Sub", [x, mean], f"{name}/apart")
    apart = builder.node("Mul", [apart, factor], f"{name}/scaled")
    return clipped(builder, builder.node("Add", [mean, apart], name), name)


def saturation_and_hue(builder: Builder, x: str, factor: str, turn: str, name: str) -> str:
    """Through HSV and back: the saturation times a factor, the hue turned by so many sextants."""
    hue, saturation, value = to_hsv(builder, x, f"{name}/hsv")
    saturation = builder.node("Mul", [saturation, factor], f"{name}/saturation")
    saturation = clipped(builder, saturation, f"{name}/saturation")
    hue = builder.node("Add", [hue, turn], f"{name}/hue")
    return from_hsv(builder, hue, saturation, value, f"{name}/rgb")


def to_hsv(builder: Builder, x: str, name: str) -> tuple[str, str, str]:
    """Hue in sextants, red at 0; saturation and value in [0, 1]."""
    each = builder.constant("each_colour", [1, 1, 1])
    names = [f"{name}/{colour}" for colour in ("red", "green", "blue")]
    colours = builder.nodes("Split", [x, each], f"{name}/split", names, axis=1)
    red, green, blue = colours
    value = builder.node("Max", colours, f"{name}/value")
    low = builder.node("Min", colours, f"{name}/low")
    span = builder.node("Sub", [value, low], f"{name}/span")
    tiny = _number(builder, _TINY)
    divisor = builder.node("Add", [value, tiny], f"{name}/value/divisor")
    saturation = builder.node("Div", [span, divisor], f"{name}/saturation")
    divisor = builder.node("Add", [span, tiny], f"{name}/span/divisor")

    def hue_after(start: float, up: str, down: str, colour: str) -> str:
        rise = builder.node("Sub", [up, down], f"{name}/{colour}/rise")
        part = builder.node("Div", [rise, divisor], f"{name}/{colour}/part")
        return builder.node("Add", [part, _number(builder, start)], f"{name}/{colour}/hue")

    is_red = builder.node("Equal", [value, red], f"{name}/is_red")
    is_green = builder.node("Equal", [value, green], f"{name}/is_green")
    near_green = hue_after(2.0, blue, red, "green")
    near_blue = hue_after(4.0, red, green, "blue")
    other = builder.node("Where", [is_green, near_green, near_blue], f"{name}/other")
    near_red = hue_after(0.0, green, blue, "red")
    hue = builder.node("Where", [is_red, near_red, other], f"{name}/hue")
    return hue, saturation, value


def from_hsv(builder: Builder, hue: str, saturation: str, value: str, name: str) -> str:
    """Red, green and blue each lack so much of the value as the hue is far from them on its circle.

    The hue may have gone around the circle any number of times.
    """
    starts = builder.constant("colour_starts", _array([5, 3, 1]).reshape(1, 3, 1, 1))
    six, four = _number(builder, 6.0), _number(builder, 4.0)
    place = builder.node("Add", [hue, starts], f"{name}/place")
    turns = builder.node("Div", [place, six], f"{name}/turns")
    turns = builder.node("Floor", [turns], f"{name}/whole")
    whole = builder.node("Mul", [turns, six], f"{name}/sextants")
    up = builder.node("Sub", [place, whole], f"{name}/up")
    down = builder.node("Sub", [four, up], f"{name}/down")
    lacks = builder.node("Min", [up, down], f"{name}/lacks")
    lacks = clipped(builder, lacks, f"{name}/lacks")
    span = builder.node("Mul", [value, saturation], f"{name}/span")
    lacks = builder.node("Mul", [span, lacks], f"{name}/share")
    return builder.node("Sub", [value, lacks], name)


def affine_matrix(builder: Builder, pose: str, batch: int, name: str) -> str:
    """Angle, logarithm of the scale, and the shift in x and y (batch, 4) as (batch, 2, 3)."""
    sizes = builder.constant("pose_sizes", [1] * 4)
    names = [f"{name}/{part}" for part in ("angle", "log_scale", "shift_x", "shift_y")]
    angle, log_scale, *shift = builder.nodes("Split", [pose, sizes], f"{name}/split", names, axis=1)
    scale = builder.node("Exp", [log_scale], f"{name}/scale")
    turned = [
        builder.node("Mul", [builder.node(op, [angle], f"{name}/{op}"), scale], f"{name}/{op}_by")
        for op in ("Cos", "Sin")
    ]
    against = builder.node("Neg", [turned[1]], f"{name}/against")
    rows = [turned[0], against, shift[0], turned[1], turned[0], shift[1]]
    flat = builder.node("Concat", rows, f"{name}/rows", axis=1)
    return _reshaped(builder, flat, (batch, 2, 3), name)


def homography(builder: Builder, tilt: str, batch: int, name: str) -> str:
    """How much further away the right and the lower edge are (batch, 2) as (batch, 3, 3)."""
    flat = builder.constant(f"{name}.flat", np.tile(_array([1, 0, 0, 0, 1, 0]), (batch, 1)))
    one = builder.constant(f"{name}.one", np.ones((batch, 1), np.float32))
    rows = builder.node("Concat", [flat, tilt, one], f"{name}/rows", axis=1)
    return _reshaped(builder, rows, (batch, 3, 3), name)


def affine_warp(
    builder: Builder, x: str, matrix: str, shape: tuple[int, int, int], name: str
) -> str:
    """An image of ``shape`` (batch, height, width); what lies outside is as the border."""
    moved = _moved(builder, matrix, shape[1:], name)
    grid = _reshaped(builder, moved, (*shape, 2), f"{name}/grid")
    return builder.node("GridSample", [x, grid], name, padding_mode="border", align_corners=0)


def perspective_warp(
    builder: Builder, x: str, matrix: str, shape: tuple[int, int, int], name: str
) -> str:
    """The same with a homography; what lies outside is black."""
    moved = _moved(builder, matrix, shape[1:], name)
    sizes = builder.constant("plane_and_depth", [2, 1])
    names = (f"{name}/plane", f"{name}/depth")
    parts = builder.nodes("Split", [moved, sizes], f"{name}/split", names, axis=2)
    flat = builder.node("Div", parts, f"{name}/project")
    grid = _reshaped(builder, flat, (*shape, 2), f"{name}/grid")
    return builder.node("GridSample", [x, grid], name, padding_mode="zeros", align_corners=0)


def gaussian_blur(
    builder: Builder, x: str, radius: int, sigmas: tuple[float, ...], name: str
) -> str:
    """Each channel with a bell of its own width, the image mirrored at its borders."""
    lines = [np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2) for sigma in sigmas]
    bells = np.stack([np.outer(line, line) / line.sum() ** 2 for line in lines])[:, None]
    weight = builder.constant(f"{name}.weight", bells.astype(np.float32))
    size, groups = [2 * radius + 1] * 2, len(sigmas)
    padded = _padded(builder, x, radius, "reflect", name)
    return builder.node("Conv", [padded, weight], name, kernel_shape=size, group=groups)


def sobel(builder: Builder, x: str, name: str) -> str:
    """The steepness of the grey image, (batch, 1, height, width)."""
    across = np.outer([1, 2, 1], [-1, 0, 1]) / 8
    both = np.stack([across, across.T])[:, None].astype(np.float32)
    shade = _padded(builder, grey(builder, x, f"{name}/grey"), 1, "edge", name)
    weight = builder.constant("sobel.weight", both)
    slopes = builder.node("Conv", [shade, weight], f"{name}/slopes", kernel_shape=[3, 3])
    squares = builder.node("Mul", [slopes, slopes], f"{name}/squares")
    axes = builder.constant("channel_axis", [1])
    total = builder.node("ReduceSum", [squares, axes], f"{name}/sum", keepdims=1)
    total = builder.node("Add", [total, _number(builder, _TINY)], f"{name}/positive")
    return builder.node("Sqrt", [total], name)


def _moved(builder: Builder, matrix: str, size: tuple[int, int], name: str) -> str:
    """The pixels of an image, between -1 and 1, times a matrix: (batch, pixels, its rows)."""
    height, width = size
    y, x = ((2 * np.arange(n) + 1) / n - 1 for n in (height, width))
    places = [np.tile(x, height), np.repeat(y, width), np.ones(height * width)]
    pixels = builder.constant(f"pixels_{height}x{width}", np.stack(places, 1).astype(np.float32))
    columns = builder.node("Transpose", [matrix], f"{name}/columns", perm=[0, 2, 1])
    return builder.node("MatMul", [pixels, columns], f"{name}/moved")


def _padded(builder: Builder, x: str, by: int, mode: str, name: str) -> str:
    pads = builder.constant(f"{name}.pads", [0, 0, by, by] * 2)
    return builder.node("Pad", [x, pads], f"{name}/pad", mode=mode)


def _reshaped(builder: Builder, x: str, shape: tuple[int, ...], name: str) -> str:
    sizes = builder.constant(f"{name}.shape", list(shape))
    return builder.node("Reshape", [x, sizes], f"{name}/reshape")


def _array(values: tuple[float, ...] | list[float]) -> Array:
    return np.array(values, np.float32)


def _number(builder: Builder, value: float) -> str:
    return builder.constant(f"number_{value:g}", value)
