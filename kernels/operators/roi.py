"""RoiAlign: the mean or the maximum of samples in each bin of each region of interest.

One axis after the other. A bin has a number of samples that is an attribute, or that the size of
the region decides at run time. Then those outside of the image, whose value is 0, may be without
end, and only those from the first one inside on are looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Place, Steps, Value
from ramforge.compiler.expressions.terms import Expr, apply, const, larger, select, smaller
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register

MODES = ("avg", "max")
TRANSFORMS = ("half_pixel", "output_half_pixel")


@dataclass(frozen=True, slots=True)
class Bins:
    """The regions of interest along one axis of the image, cut into ``count`` bins each.

    ``first`` is the column of rois with the lower end. ``samples`` is how many are looked at.
    """

    steps: Steps
    size: int
    count: int
    first: int
    working: DType

    @property
    def ratio(self) -> int:
        return int(self.steps.node.attr("sampling_ratio", 0))

    @property
    def samples(self) -> int:
        # n > 1 samples of a bin are more than (n - 1) / n of a pixel apart, so that at most
        # size + 3 of them are inside; up to two come before them, and one outside stands for all
        return self.ratio or self.size + 6

    def _end(self, roi: Index, column: int) -> Expr:
        node = self.steps.node
        shifted = node.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel"
        end = self.steps.given(1)[roi, column].cast(self.working)
        scale = float(node.attr("spatial_scale", 1.0))
        return end * scale - (0.5 if shifted else 0.0)

    def _start_and_step(self, roi: Index, number: Index) -> tuple[Expr, Expr]:
        """Where a bin begins, and its size."""
        start, end = self._end(roi, self.first), self._end(roi, self.first + 2)
        length = end - start
        if self.steps.node.attr("coordinate_transformation_mode", "half_pixel") != "half_pixel":
            length = larger(length, 1)
        step = length / self.count
        return start + step * terms.value_of(number, self.working), step

    def number(self, roi: Index) -> Expr:
        """How many samples a bin has, as a float."""
        if self.ratio:
            return const(self.ratio, self.working)
        _, step = self._start_and_step(roi, Index(()))
        return larger(apply("ceil", step), 0)

    def skipped(self, roi: Index, number: Index) -> Expr:
        """How many samples come before the first one that is looked at: all of them outside."""
        if self.ratio:
            return const(0, self.working)
        start, step = self._start_and_step(roi, number)
        distance = step / larger(self.number(roi), 1)
        before = apply("floor", (-1 - start) / distance - 1.5)
        return larger(select(distance > 0, before, const(0, self.working)), 0)

    def order(self, roi: Index, number: Index, k: Index) -> Expr:
        """Which of the samples of a bin this is."""
        return self.skipped(roi, number) + terms.value_of(k, self.working)

    def place(self, roi: Index, number: Index, k: Index) -> Expr:
        start, step = self._start_and_step(roi, number)
        return start + (self.order(roi, number, k) + 0.5) * step / larger(self.number(roi), 1)


@dataclass(frozen=True, slots=True)
class Samples:
    """For each sample of each bin: the pixel before it (-1 if it is outside of the image, -2 if it
    does not exist) and how much of the pixel after it is in it.
    """

    bins: Bins
    pixels: Value
    parts: Value

    def value(
        self, at: tuple[Index, Index, Index], read: Callable[[Expr], Expr], mode: str
    ) -> Expr:
        """A sample of what ``read`` gives for a pixel."""
        pixel, part = self.pixels.at(at), self.parts.at(at)
        after = smaller(pixel + 1, self.bins.size - 1)
        low, high = read(pixel) * (1 - part), read(after) * part
        inside = larger(low, high) if mode == "max" else low + high
        missing = comp.identity(comp.MAXIMUM, inside.dtype) if mode == "max" else 0
        outside = select(pixel.equals(-1), const(0, inside.dtype), const(missing, inside.dtype))
        return select(pixel >= 0, inside, outside)


def _samples(steps: Steps, bins: Bins) -> Samples:
    last = bins.size - 1

    def pixel(roi: Index, number: Index, k: Index) -> Expr:
        place = bins.place(roi, number, k)
        exists = bins.order(roi, number, k) < bins.number(roi)
        inside = (place >= -1) & (place <= bins.size)
        found = apply("floor", smaller(larger(place, 0), last)).cast(DType.INT32)
        counts = exists | (bins.skipped(roi, number) > 0)  # if only for those skipped
        outside = select(counts, const(-1, DType.INT32), const(-2, DType.INT32))
        return select(exists & inside, found, outside)

    def part(roi: Index, number: Index, k: Index) -> Expr:
        place = smaller(larger(bins.place(roi, number, k), 0), last)
        return place - apply("floor", place)

    shape = (steps.given(1).shape[0], bins.count, bins.samples)
    return Samples(bins, steps.map(shape, pixel), steps.map(shape, part))


def _roi_align(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, images = steps.given(0), steps.given(2)
    rois, channels, high, wide = steps.shape()
    working = DType.FLOAT64 if x.dtype is DType.FLOAT64 else DType.FLOAT32
    mode = node.attr("mode", "avg")
    kind = comp.MAXIMUM if mode == "max" else comp.SUM
    rows = _samples(steps, Bins(steps, x.shape[2], high, 1, working))
    columns = _samples(steps, Bins(steps, x.shape[3], wide, 0, working))

    def finished(value: Expr, roi: Index, *rest: Index) -> Expr:
        down, right = rows.bins.number(roi), columns.bins.number(roi)
        if mode == "avg":
            return value / larger(down * right, 1)
        return select((down > 0) & (right > 0), value, const(0, working))

    def across(roi: Index, channel: Index, y: Place, column: Index, k: Index) -> Expr:
        """A sample of one row of the image."""
        image = images[roi]

        def read(place: Expr) -> Expr:
            return x[image, channel, y, place].cast(working)

        return columns.value((roi, column, k), read, mode)

    if columns.bins.ratio:  # few samples: each by itself

        def sample(
            roi: Index, channel: Index, row: Index, column: Index, down: Index, right: Index
        ) -> Expr:
            return rows.value(
                (roi, row, down), lambda y: across(roi, channel, y, column, right), mode
            )

        number = (rows.bins.samples, columns.bins.samples)
        steps.fold(kind, steps.shape(), number, sample, finished, to=0)
        return steps.nodes()

    strips = steps.fold(kind, (rois, channels, x.shape[2], wide), (columns.bins.samples,), across)

    def down(roi: Index, channel: Index, row: Index, column: Index, k: Index) -> Expr:
        return rows.value((roi, row, k), lambda y: strips[roi, channel, y, column], mode)

    steps.fold(kind, steps.shape(), (rows.bins.samples,), down, finished, to=0)
    return steps.nodes()


def _refuse(node: Node, graph: Graph) -> tuple[str, str] | None:
    x, y = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    mode = node.attr("mode", "avg")
    transform = node.attr("coordinate_transformation_mode", "half_pixel")
    if mode not in MODES or transform not in TRANSFORMS:
        return f"there is no mode {mode!r} with {transform!r}", "use those of the standard"
    if x.size == 0 and y.size:
        return "there is nothing to take samples of", "use an image that is not empty"
    return None


register(Operator("RoiAlign", _roi_align, _refuse))
