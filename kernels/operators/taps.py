"""Which elements of an axis make each element of the resized one, and with what weights.

All of it is NumPy at compile time, in float64, as the standard's formulas say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ramforge.compiler.ir import Array


@dataclass(frozen=True, slots=True)
class Axis:
    """``old`` elements become ``new``. ``width`` is what ``new`` was before it became an integer;
    ``start`` and ``end`` are the part of the input that is wanted.
    """

    old: int
    new: int
    scale: float
    width: float
    start: float
    end: float

    @property
    def is_unchanged(self) -> bool:
        whole = math.isclose(self.start, 0.0) and math.isclose(self.end, 1.0)
        return whole and self.old == self.new and math.isclose(self.scale, 1.0)

    @property
    def places(self) -> Array:
        return np.arange(self.new, dtype=np.float64)


def _half_pixel(axis: Axis) -> Array:
    return (axis.places + 0.5) / axis.scale - 0.5


def _pytorch_half_pixel(axis: Axis) -> Array:
    return _half_pixel(axis) if axis.new > 1 else np.zeros(1)


def _half_pixel_symmetric(axis: Axis) -> Array:
    return _half_pixel(axis) + axis.old / 2 * (1 - axis.new / axis.width)


def _asymmetric(axis: Axis) -> Array:
    return axis.places / axis.scale


def _align_corners(axis: Axis) -> Array:
    if axis.new == 1:
        return np.zeros(1)
    return axis.places * (axis.old - 1) / (axis.width - 1)


def _crop_and_resize(axis: Axis) -> Array:
    if axis.new == 1:
        return np.array([(axis.start + axis.end) * (axis.old - 1) / 2])
    step = (axis.end - axis.start) * (axis.old - 1) / (axis.width - 1)
    return axis.places * step + axis.start * (axis.old - 1)


# Where in the input each element of the output lies, by coordinate_transformation_mode.
TRANSFORMS: dict[str, Callable[[Axis], Array]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
    "tf_crop_and_resize": _crop_and_resize,
}


def _linear(x: Array) -> Array:
    return np.asarray(np.clip(1 - np.abs(x), 0, 1))


def _cubic(a: float) -> Callable[[Array], Array]:
    def weight(x: Array) -> Array:
        x = np.abs(x)
        near: Array = ((a + 2) * x - (a + 3)) * x * x + 1
        far: Array = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

    return weight


@dataclass(frozen=True, slots=True)
class Filter:
    """An interpolation: the weight of an element by its distance, 0 from ``reach`` on."""

    weight: Callable[[Array], Array]
    reach: int
    antialias: bool
    exclude_outside: bool


def linear(antialias: bool, exclude_outside: bool) -> Filter:
    return Filter(_linear, 1, antialias, exclude_outside)


def cubic(a: float, antialias: bool, exclude_outside: bool) -> Filter:
    return Filter(_cubic(a), 2, antialias, exclude_outside)


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Element i is the sum over k of ``weights[i, k]`` times element ``first[i] + k``.

    What lies outside of the input has the weight 0.
    """

    axis: Axis
    first: Array
    weights: Array

    @property
    def count(self) -> int:
        return int(self.weights.shape[1])

    def closed_form(self) -> tuple[int, int, int] | None:
        """Integers (a, b, c) with ``first[i] == (a * i + b) // c`` for every i."""
        axis, places = self.axis, np.arange(self.axis.new)
        slopes = [Fraction(axis.old, axis.new), Fraction(1 / axis.scale).limit_denominator(4096)]
        if axis.new > 1:
            slopes.append(Fraction(int(self.first[-1] - self.first[0]), axis.new - 1))
            slopes.append(Fraction(max(axis.old - 1, 0), axis.new - 1))
        for slope in slopes:
            a, c = slope.numerator, slope.denominator
            # c * first[i] <= a * i + b < c * first[i] + c
            room = c * self.first - a * places
            low, high = int(room.max()), int(room.min()) + c - 1
            if low <= high and abs(a) * axis.new + abs(low) < 2**31:
                return a, low, c
        return None

    def within(self) -> Taps:
        """The same with windows that leave the input only where it is shorter than they are."""
        first = np.clip(self.first, 0, max(self.axis.old - self.count, 0))
        return _moved(self.axis, self.first, self.weights, first)


def nearest_taps(axis: Axis, places: Array, mode: str) -> Taps:
    below = np.floor(places)
    part = places - below
    up = {
        "round_prefer_floor": part > 0.5,
        "round_prefer_ceil": part >= 0.5,
        "floor": np.zeros_like(part, dtype=bool),
        "ceil": part > 0,
    }[mode]
    chosen = np.clip(below + up, 0, axis.old - 1).astype(np.int64)
    return Taps(axis, chosen, np.ones((axis.new, 1)))


def weighted_taps(axis: Axis, places: Array, kind: Filter) -> Taps:
    # antialiasing stretches the filter so that it reaches over all that one element stands for
    scale = min(axis.scale, 1.0) if kind.antialias else 1.0
    start = math.floor(-kind.reach / scale) + 1
    offsets = np.arange(start, 2 - start)
    # a place that is an element itself counts as one right above the element before
    below = np.ceil(places) - 1
    weights = kind.weight((offsets - (places - below)[:, None]) * scale)
    weights /= weights.sum(axis=1, keepdims=True)
    first = below.astype(np.int64) + start
    if kind.exclude_outside:
        index = first[:, None] + np.arange(len(offsets))
        weights = np.where((index < 0) | (index >= axis.old), 0.0, weights)
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    # the least move that leaves an element of the input in the window
    moved = np.clip(first, 1 - len(offsets), axis.old - 1)
    return _trimmed(_moved(axis, first, weights, moved))


def _moved(axis: Axis, old: Array, weights: Array, new: Array) -> Taps:
    """The taps with windows that begin elsewhere. What was beyond an edge is the edge."""
    count = weights.shape[1]
    index = np.clip(old[:, None] + np.arange(count), 0, axis.old - 1)
    result = np.zeros_like(weights)
    rows = np.broadcast_to(np.arange(len(old))[:, None], index.shape)
    np.add.at(result, (rows, index - new[:, None]), weights)
    return Taps(axis, new, result)


def _trimmed(taps: Taps) -> Taps:
    """Without the first and the last taps that never count."""
    used = np.flatnonzero((taps.weights != 0).any(axis=0))
    low, high = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
    return Taps(taps.axis, taps.first + low, np.ascontiguousarray(taps.weights[:, low:high]))
