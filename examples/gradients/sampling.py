"""Rules of AffineGrid and GridSample, by which a spatial transformer learns
(Jaderberg et al., 2015).

A place in the image, in pixels, lies between four neighbours. Its value moves with the place by
their differences, and with each of them by its weight.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from examples.gradients.tape import Rule, Step, Value


@dataclass(frozen=True)
class _Axis:
    """The two neighbours of each place along one axis: their number and weight, 0 outside.

    ``moves`` says by how many pixels a place moves with its coordinate.
    """

    pixels: tuple[Value, ...]
    inside: tuple[Value, ...]
    weights: tuple[Value, ...]
    moves: Value


def _affine_grid(step: Step, slope: Value) -> Sequence[Value | None]:
    batch, *sizes, rank = step.out_shape
    aligned = step.attribute("align_corners", 0)
    lines = [np.linspace(-1, 1, n) if aligned else (2 * np.arange(n) + 1) / n - 1 for n in sizes]
    mesh = np.meshgrid(*lines, indexing="ij")
    places = np.stack([*reversed(mesh), np.ones(sizes)], axis=-1).reshape(-1, rank + 1)
    rows = slope.reshaped([batch, len(places), rank]).transposed(0, 2, 1)
    return (step.tape.node("MatMul", rows, step.tape.numbers(places)), None)


def _grid_sample(step: Step, slope: Value) -> Sequence[Value]:
    if step.attribute("mode", "linear") not in ("linear", "bilinear") or len(step.out_shape) != 4:
        raise step.refused("only linear samples of images have a rule")
    tape = step.tape
    batch, channels, height, width = step.shape(0)
    _, *grid, _ = step.shape(1)
    count = batch * grid[0] * grid[1]
    x, y = _axis(step, 0, width), _axis(step, 1, height)
    rows = step.input(0).transposed(0, 2, 3, 1).reshaped([batch * height * width, channels])
    first = tape.constant(np.arange(batch).reshape(-1, 1, 1) * (height * width))
    above = slope.transposed(0, 2, 3, 1)
    by_x, by_y, numbers, updates = [], [], [], []
    for i, j in itertools.product((0, 1), (0, 1)):
        number = first + y.pixels[i] * tape.constant(np.array(width)) + x.pixels[j]
        inside = y.inside[i] * x.inside[j]
        found = (above * tape.node("Gather", rows, number)).summed([3], keep=False) * inside
        by_x.append(found * y.weights[i] * (1.0 if j else -1.0))
        by_y.append(found * x.weights[j] * (1.0 if i else -1.0))
        weight = (y.weights[i] * x.weights[j] * inside).reshaped([batch, *grid, 1])
        numbers.append(number.reshaped([count, 1]))
        updates.append((above * weight).reshaped([count, channels]))
    zeros = tape.filled(0.0, (batch * height * width, channels))
    image = tape.node(
        "ScatterND",
        zeros,
        tape.node("Concat", *numbers, axis=0),
        tape.node("Concat", *updates, axis=0),
        reduction="add",
    )
    image = image.reshaped([batch, height, width, channels]).transposed(0, 3, 1, 2)
    moved = [
        (tape.node("Sum", *parts) * axis.moves).reshaped([batch, *grid, 1])
        for parts, axis in ((by_x, x), (by_y, y))
    ]
    return (image, tape.node("Concat", *moved, axis=3))


def _axis(step: Step, channel: int, size: int) -> _Axis:
    tape, padding = step.tape, step.attribute("padding_mode", "zeros")
    if padding not in ("zeros", "border"):
        raise step.refused(f"padding {padding!r} has no rule")
    aligned = step.attribute("align_corners", 0)
    half = (size - 1) / 2 if aligned else size / 2
    coordinate = tape.node("Gather", step.input(1), tape.constant(np.array(channel)), axis=3)
    place = (coordinate + 1.0) * half - (0.0 if aligned else 0.5)
    moves = tape.number(half)
    if padding == "border":
        kept = _held(place, size)
        moves = kept.equals(place).as_number() * half
        place = kept
    floor = place.apply("Floor")
    part = place - floor
    neighbours = (floor, floor + 1.0)
    held = (_held(neighbours[0], size), _held(neighbours[1], size))
    inside = tuple(a.equals(b).as_number() for a, b in zip(held, neighbours, strict=True))
    pixels = tuple(each.as_index() for each in held)
    return _Axis(pixels, inside, (1.0 - part, part), moves)


def _held(place: Value, size: int) -> Value:
    """Not beyond the outermost pixels."""
    return place.tape.node("Clip", place, 0.0, float(size - 1))


RULES: Mapping[str, Rule] = {"AffineGrid": _affine_grid, "GridSample": _grid_sample}
