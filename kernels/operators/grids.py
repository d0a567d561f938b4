"""GridSample and AffineGrid: sampling at places that are computed at run time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Place, Steps, Value
from ramforge.compiler.expressions.terms import Expr, apply, const, larger, select, smaller
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, Told, register

TAPS = {"nearest": 1, "linear": 2, "bilinear": 2, "cubic": 4, "bicubic": 4}
PADDINGS = ("zeros", "border", "reflection")
CUBIC_COEFFICIENT = -0.75


@dataclass(frozen=True, slots=True)
class Border:
    """Where an axis of ``size`` pixels ends, and what happens there."""

    size: int
    align_corners: bool
    padding: str

    @property
    def low(self) -> float:
        return 0.0 if self.align_corners else -0.5

    @property
    def high(self) -> float:
        return self.size - 1 - self.low

    def pixel(self, position: Expr) -> Expr:
        """The place in pixels of a position between -1 and 1."""
        if self.align_corners:
            return (position + 1) * 0.5 * (self.size - 1)
        return ((position + 1) * self.size - 1) * 0.5

    def moved_in(self, place: Expr) -> Expr:
        """A place inside for one that may be outside."""
        if self.padding == "zeros":
            return place
        if self.padding == "border":
            return smaller(larger(place, 0), self.size - 1)
        return self._reflected(place)

    def _reflected(self, place: Expr) -> Expr:
        width = self.high - self.low
        if width == 0:
            return const(0, place.dtype)
        beyond = larger(self.low - place, place - self.high)
        turns = apply("floor", beyond / width)
        rest = beyond - turns * width
        is_even = (turns - apply("floor", turns * 0.5) * 2).equals(0)
        from_low, from_high = rest + self.low, self.high - rest
        first = select(place < self.low, from_low, from_high)
        second = select(place < self.low, from_high, from_low)
        return select(beyond > 0, select(is_even, first, second), place)

    def index(self, place: Expr) -> Expr:
        """The index of a pixel; -1 if it is taken to be zero."""
        if self.padding == "zeros":
            inside = (place >= 0) & (place <= self.size - 1)
            return select(inside, place.cast(DType.INT32), const(-1, DType.INT32))
        return larger(self.moved_in(place), 0).cast(DType.INT32)


def _weights(part: Expr, count: int) -> list[Expr]:
    """The weights of the pixels around a place that is ``part`` of a pixel after one of them."""
    rest = 1 - part
    if count == 2:
        return [rest, part]
    a = CUBIC_COEFFICIENT

    def near(x: Expr) -> Expr:
        return (x * (a + 2) - (a + 3)) * x * x + 1

    def far(x: Expr) -> Expr:
        return ((x * a - 5 * a) * x + 8 * a) * x - 4 * a

    return [far(part + 1), near(part), near(rest), far(rest + 1)]


def _chosen(values: Sequence[Expr], number: Index) -> Expr:
    result = values[-1]
    for position in range(len(values) - 2, -1, -1):
        result = select(terms.inside(number, position, position + 1), values[position], result)
    return result


@dataclass(frozen=True, slots=True)
class Samples:
    """For each place of the grid, along one axis of the image: pixels and their weights."""

    pixels: Value
    weights: Value | None


def _samples(steps: Steps, border: Border, channel: int, count: int, working: DType) -> Samples:
    grid = steps.given(1)

    def place(at: Sequence[Index]) -> Expr:
        found = border.pixel(grid.at([*at, channel]).cast(working))
        if count == 1:
            found = apply("round", found)
        inside = (found >= border.low) & (found <= border.high)
        return select(inside, found, border.moved_in(found))

    def pixel(*at: Index) -> Expr:
        *here, k = at
        first = apply("floor", place(here)) - (1 if count == 4 else 0)
        return border.index(first + terms.value_of(k, working))

    def weight(*at: Index) -> Expr:
        *here, k = at
        found = place(here)
        return _chosen(_weights(found - apply("floor", found), count), k)

    shape = (*grid.shape[:-1], count)
    pixels = steps.map(shape, pixel)
    return Samples(pixels, steps.map(shape, weight) if count > 1 else None)


def _grid_sample(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, grid = steps.given(0), steps.given(1)
    sizes = x.shape[2:]
    count = TAPS[node.attr("mode", "linear")]
    padding = node.attr("padding_mode", "zeros")
    working = DType.FLOAT64 if DType.FLOAT64 in (x.dtype, grid.dtype) else DType.FLOAT32
    samples = [
        _samples(
            steps,
            Border(size, bool(node.attr("align_corners", 0)), padding),
            len(sizes) - 1 - axis,  # the grid names the innermost axis first
            count,
            working,
        )
        for axis, size in enumerate(sizes)
    ]

    def term(*at: Index) -> Expr:
        batch, channel, *rest = at
        here = rest[: len(sizes)]
        number: Sequence[Place] = rest[len(sizes) :] or [0] * len(sizes)
        found, value = [], None
        for one, k in zip(samples, number, strict=True):
            found.append(one.pixels.at([batch, *here, k]))
            if one.weights is not None:
                weight = one.weights.at([batch, *here, k])
                value = weight if value is None else value * weight
        pixel = x.at([batch, channel, *found])
        value = pixel if value is None else pixel.cast(working) * value
        if padding != "zeros":
            return value
        inside = terms.conjunction([place >= 0 for place in found])
        return select(inside, value, const(0, value.dtype))

    if count == 1:
        steps.map(steps.shape(), term, to=0)
    else:
        steps.fold(comp.SUM, steps.shape(), (count,) * len(sizes), term, to=0)
    return steps.nodes()


def _refuse_grid_sample(node: Node, graph: Graph) -> tuple[str, str] | None:
    x, y = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    mode, padding = node.attr("mode", "linear"), node.attr("padding_mode", "zeros")
    if mode not in TAPS or padding not in PADDINGS:
        return f"there is no mode {mode!r} with padding {padding!r}", "use those of the standard"
    if TAPS[mode] > 1 and not x.dtype.is_float:
        return f"{x.dtype.label} cannot be interpolated", "cast to float32, or use mode nearest"
    if x.size == 0 and y.size:
        return "there is nothing to take samples of", "use an image that is not empty"
    return None


def _affine_grid(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    theta = steps.given(0)
    working = DType.FLOAT64 if theta.dtype is DType.FLOAT64 else DType.FLOAT32
    sizes = steps.shape()[1:-1]
    aligned = bool(node.attr("align_corners", 0))
    places = [steps.constant(_line(size, aligned).astype(working.numpy)) for size in sizes]

    def element(batch: Index, *at: Index) -> Expr:
        *here, row = at
        # the last column moves, the ones before are for the axes from the innermost on
        result = None
        for column, (place, line) in enumerate(zip(reversed(here), reversed(places), strict=True)):
            part = theta[batch, row, column].cast(working) * line[place]
            result = part if result is None else result + part
        moved = theta[batch, row, len(sizes)].cast(working)
        return moved if result is None else result + moved

    steps.map(steps.shape(), element, to=0)
    return steps.nodes()


def _line(size: int, aligned: bool) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The positions of so many pixels between -1 and 1."""
    number = np.arange(size, dtype=np.float64)
    if not aligned:
        return (2 * number + 1) / size - 1
    return number * 2 / (size - 1) - 1 if size > 1 else np.zeros(size)


register(Operator("GridSample", _grid_sample, _refuse_grid_sample))


def _image_size(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    """How many channels the image has does not matter."""
    batch, *sizes, _ = graph.tensor(node.outputs[0]).shape
    found = (batch, 1, *sizes)
    return (Told(found, ((batch,), (), *((size,) for size in sizes))),)


register(Operator("AffineGrid", _affine_grid, needs={1: _image_size}))
