"""Sliding windows: which input positions an output position of a pooling or a convolution sees, and
the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.terms import Expr
from ramforge.compiler.ir import DType, Node


class Window:
    """The window of a node: strides, dilations and padding for each spatial axis."""

    def __init__(
        self, node: Node, kernel: Sequence[int], sizes: Sequence[int], outputs: Sequence[int]
    ) -> None:
        rank = len(kernel)
        self.kernel = tuple(kernel)
        self.sizes = tuple(sizes)
        self.strides = tuple(node.attr("strides") or (1,) * rank)
        self.dilations = tuple(node.attr("dilations") or (1,) * rank)
        pads = tuple(node.attr("pads") or (0,) * (2 * rank))
        self.before, self.after = pads[:rank], pads[rank:]
        mode = node.attr("auto_pad", "NOTSET")
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            self._same_padding(outputs, mode == "SAME_UPPER")
        elif mode == "VALID":
            self.before = self.after = (0,) * rank

    def _same_padding(self, outputs: Sequence[int], extra_at_end: bool) -> None:
        before, after = [], []
        for axis, size in enumerate(outputs):
            reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            total = max(0, (size - 1) * self.strides[axis] + reach - self.sizes[axis])
            less, more = total // 2, total - total // 2
            before.append(less if extra_at_end else more)
            after.append(more if extra_at_end else less)
        self.before, self.after = tuple(before), tuple(after)

    def positions(self, at: Sequence[Index], offsets: Sequence[Index]) -> tuple[Index, ...]:
        """Where in the input an output position looks, for each offset in the window."""
        return tuple(
            place * self.strides[axis] + offset * self.dilations[axis] - self.before[axis]
            for axis, (place, offset) in enumerate(zip(at, offsets, strict=True))
        )

    def counts(self, at: Sequence[Index], padded: bool) -> Expr:
        """How many elements of the input, with its padding or without, an output position sees."""
        total = terms.const(1, DType.INT64)
        for axis, place in enumerate(at):
            low = -self.before[axis] if padded else 0
            high = self.sizes[axis] + (self.after[axis] if padded else 0)
            start = place * self.strides[axis] - self.before[axis]
            step = self.dilations[axis]
            first = (start * -1 + (low + step - 1)) // step
            end = (start * -1 + (high - 1)) // step + 1
            total = total * _overlap(first, end, self.kernel[axis])
        return total


def _overlap(first: Index, end: Index, size: int) -> Expr:
    """How many integers lie in ``first .. end - 1`` and in ``0 .. size - 1``."""
    if ix.bounds(first)[1] <= 0 and ix.bounds(end)[0] >= size:
        return terms.const(size, DType.INT64)
    count = terms.smaller(terms.value_of(end), size) - terms.larger(terms.value_of(first), 0)
    return terms.larger(count, 0)


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where strided inputs and a dilated window meet, along one axis: the pairs of an input ``i``
    and an offset ``k`` with ``i * stride + k * dilation == place``.

    There are none unless ``step`` divides the place. Otherwise the place belongs to one of
    ``phases``, the least offset it meets, and further offsets follow at a distance of ``phases``.
    """

    kernel: int
    stride: int
    dilation: int

    @property
    def step(self) -> int:
        return math.gcd(self.stride, self.dilation)

    @property
    def phases(self) -> int:
        return self.stride // self.step

    @property
    def turns(self) -> int:
        """How many offsets a place meets at most."""
        return -(-self.kernel // self.phases)

    @property
    def pace(self) -> int:
        return self.dilation // self.step

    def turn_of(self, place: Index | int) -> Index:
        """The number ``q`` of a place among those of its phase."""
        return _index(place) // (self.step * self.phases)

    def phase_of(self, place: Index) -> Index:
        return (place // self.step % self.phases * pow(self.pace, -1, self.phases)) % self.phases

    def pair(self, turn: Index, phase: Index, number: Index) -> tuple[Index, Index]:
        """The input and the offset that meet at a place for the ``number``-th time; either may lie
        outside.
        """
        rest = (phase * self.pace) % self.phases - phase * self.pace
        return (
            turn + rest // self.phases - number * self.pace,
            phase + number * self.phases,
        )

    def is_met(self, place: Index) -> Expr:
        return terms.inside(place % self.step, 0, 1)


def _index(place: Index | int) -> Index:
    return ix.constant(place) if isinstance(place, int) else place
