"""Offsets for buffers that live for some steps each.

What always holds: two buffers that live in one step lie apart. Beyond that, and as long as the
whole stays under a limit, nobody is to wait longer because memory is used again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ramforge.compiler.expressions.regions import Ints

ALIGNMENT = 256
# How often each buffer is placed, on average, before the limit is given up.
ROUNDS = 16

# How much longer somebody waits if buffer ``b`` takes the place of ``a``, of the step before.
Delay = Callable[[int, int], float]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A piece of the workspace and the steps during which it holds something."""

    tensors: tuple[str, ...]
    nbytes: int
    first_step: int
    last_step: int

    @property
    def size(self) -> int:
        """The bytes up to the next boundary."""
        return -(-self.nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """The offset of each buffer, and where the last one ends."""

    offsets: tuple[int, ...]
    size: int


def live_peak(buffers: Sequence[Buffer]) -> int:
    """The most bytes that are in use in one step, up to boundaries: no offsets can need less.

    Steps are the waves of rOperators, in the order in which they run. A plan that lets lanes run
    ahead of each other has more alive at times; that is not counted.
    """
    change = np.zeros(max((buffer.last_step for buffer in buffers), default=0) + 2, dtype=np.int64)
    for buffer in buffers:
        change[buffer.first_step] += buffer.size
        change[buffer.last_step + 1] -= buffer.size
    return int(np.cumsum(change).max())


def pack(buffers: Sequence[Buffer], limit: int, delay: Delay | None = None) -> Packed:
    """Offsets that stay under the limit, or the best that were found.

    ``delay`` is for plans that do not keep steps apart: whoever takes the place of what was in use
    one step before may have to wait for its users.
    """
    found = _Packer(buffers, limit, delay).best()
    if found.size > limit and delay:
        found = min(found, _Packer(buffers, limit, None).best(), key=lambda packed: packed.size)
    return found


class _Packer:
    """Takes buffers in an order, each to the lowest place that is free in all of its steps.

    The largest go first. One that ends beyond the limit goes before all others, which are placed
    anew. If it does so again, it and all that live beside it need not avoid delays any more.
    """

    def __init__(self, buffers: Sequence[Buffer], limit: int, delay: Delay | None) -> None:
        self._limit = limit
        self._delay = delay
        self._size = np.array([buffer.size for buffer in buffers], dtype=np.int64)
        self._first = np.array([buffer.first_step for buffer in buffers], dtype=np.int64)
        self._last = np.array([buffer.last_step for buffer in buffers], dtype=np.int64)
        self._start = np.zeros(len(buffers), dtype=np.int64)
        self._placed = np.zeros(len(buffers), dtype=np.bool_)
        self._careful = np.full(len(buffers), delay is not None)
        self._near: dict[int, tuple[Ints, Ints]] = {}

    def best(self) -> Packed:
        by_size: list[int] = np.lexsort((self._first, -self._size)).tolist()
        order = list(by_size)
        moved: set[int] = set()
        left = ROUNDS * len(order)
        while (done := self._fill(order, self._limit)) < len(order):
            left -= done + 1
            if left < 0:
                self._fill(by_size, sys.maxsize)
                break
            number = order.pop(done)
            order.insert(0, number)
            if number in moved:
                beside, _ = self._neighbours(number)
                self._careful[beside] = self._careful[number] = False
            moved.add(number)
        size = int((self._start + self._size).max(initial=0))
        return Packed(tuple(self._start.tolist()), size)

    def _fill(self, order: Sequence[int], limit: int) -> int:
        """How many are placed until one ends beyond a limit."""
        self._placed[:] = False
        for done, number in enumerate(order):
            self._start[number] = self._place(number)
            if self._start[number] + self._size[number] > limit:
                return done
            self._placed[number] = True
        return len(order)

    def _place(self, number: int) -> int:
        beside, adjoining = self._neighbours(number)
        beside = beside[self._placed[beside]]
        lowest = self._lowest_gap(beside, int(self._size[number]))
        if not self._careful[number] or lowest + self._size[number] > self._limit:
            return lowest
        adjoining = adjoining[self._placed[adjoining] & self._careful[adjoining]]
        if not self._delay_at(lowest, number, adjoining):
            return lowest
        return self._least_delay(number, beside, adjoining)

    def _neighbours(self, number: int) -> tuple[Ints, Ints]:
        """The buffers that live in a step with this one, and those that end a step before it or
        begin a step after it.
        """
        if number not in self._near:
            first, last = self._first[number], self._last[number]
            near = np.flatnonzero((self._first <= last + 1) & (self._last >= first - 1))
            beside = (self._first[near] <= last) & (self._last[near] >= first)
            self._near[number] = near[beside & (near != number)], near[~beside]
        return self._near[number]

    def _lowest_gap(self, others: Ints, size: int) -> int:
        """The lowest offset at which so many bytes meet none of the others."""
        if not len(others):
            return 0
        others = others[np.argsort(self._start[others], kind="stable")]
        start = self._start[others]
        reached = np.zeros(len(others) + 1, dtype=np.int64)
        np.maximum.accumulate(start + self._size[others], out=reached[1:])
        fits = reached[:-1] + size <= start
        return int(reached[np.argmax(fits)] if fits.any() else reached[-1])

    def _delay_at(self, offset: int, number: int, adjoining: Ints) -> float:
        start, end = self._start[adjoining], self._start[adjoining] + self._size[adjoining]
        met = adjoining[(start < offset + self._size[number]) & (end > offset)]
        return max((self._delay_of(number, other) for other in met.tolist()), default=0.0)

    def _delay_of(self, number: int, other: int) -> float:
        assert self._delay is not None
        before = self._last[number] < self._first[other]
        return self._delay(number, other) if before else self._delay(other, number)

    def _least_delay(self, number: int, beside: Ints, adjoining: Ints) -> int:
        """Of the places under the limit the one that makes somebody wait least."""
        size = int(self._size[number])
        cost = np.array([self._delay_of(number, other) for other in adjoining.tolist()])
        others = np.concatenate([beside, adjoining[cost > 0]])
        free = self._lowest_gap(others, size)
        if free + size <= self._limit:
            return free
        cost = np.concatenate([np.full(len(beside), np.inf), cost[cost > 0]])
        start, end = self._start[others], self._start[others] + self._size[others]
        places = np.unique(np.append(end, 0))
        places = places[places + size <= self._limit, None]
        worst = np.where((start < places + size) & (end > places), cost, 0.0).max(axis=1)
        return int(places[np.argmin(worst), 0])
