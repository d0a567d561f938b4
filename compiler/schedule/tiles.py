"""Which rTasks write what somebody reads: asked of what all rTasks of an rOperator write."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.expressions.regions import Boxes, Ints

# Pairs of boxes to look at, at most, where tasks stand in no plain order.
MOST_PAIRS = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Digit:
    """An axis that is cut into pieces, of which task ``t`` writes number ``t // period % pieces``.

    Both ends of the pieces ascend.
    """

    axis: int
    period: int
    start: Ints
    stop: Ints


class Tiles:
    """What the tasks of an rOperator write.

    Most often that is a grid: the number of a task has a digit for each axis that is cut, so that
    the tasks that touch a box are found digit by digit. Otherwise the axes along which tasks go
    forward say at least where to begin and to end.
    """

    def __init__(self, boxes: Boxes) -> None:
        self._boxes = boxes
        self._digits = _grid(boxes)
        self._forward: list[int] = []
        self.periods = (
            _periods(boxes) if self._digits is None else {digit.period for digit in self._digits}
        )
        if self._digits is None:
            goes_on = (np.diff(boxes.start, axis=0) >= 0) & (np.diff(boxes.stop, axis=0) >= 0)
            self._forward = np.flatnonzero(goes_on.all(axis=0)).tolist()

    def touching(self, wanted: Boxes) -> tuple[Ints, Ints]:
        """For each box the first task that touches it and the one after the last that does; equal
        if none does.
        """
        low, high = self._by_digits(wanted) if self._digits is not None else self._searched(wanted)
        nothing = low >= high
        for axis in range(wanted.start.shape[1]):
            nothing |= wanted.start[:, axis] >= wanted.stop[:, axis]
        if nothing.any():
            low, high = np.where(nothing, 0, low), np.where(nothing, 0, high)
        return low, high

    def _by_digits(self, wanted: Boxes) -> tuple[Ints, Ints]:
        assert self._digits is not None
        low = np.zeros(wanted.tasks, dtype=np.int64)
        last = np.zeros(wanted.tasks, dtype=np.int64)
        misses = np.zeros(wanted.tasks, dtype=np.bool_)
        for digit in self._digits:
            start, stop = wanted.start[:, digit.axis], wanted.stop[:, digit.axis]
            first = np.searchsorted(digit.stop, start, side="right")
            end = np.searchsorted(digit.start, stop, side="left")
            misses |= first >= end
            low += first * digit.period
            last += (end - 1) * digit.period
        return low, np.where(misses, low, last + 1)

    def _searched(self, wanted: Boxes) -> tuple[Ints, Ints]:
        low = np.zeros(wanted.tasks, dtype=np.int64)
        high = np.full(wanted.tasks, self._boxes.tasks, dtype=np.int64)
        for axis in self._forward:
            stop, start = self._boxes.stop[:, axis], self._boxes.start[:, axis]
            low = np.maximum(low, np.searchsorted(stop, wanted.start[:, axis], side="right"))
            high = np.minimum(high, np.searchsorted(start, wanted.stop[:, axis], side="left"))
        if self._boxes.tasks * wanted.tasks <= MOST_PAIRS:
            return self._one_by_one(wanted, low, high)
        return low, high

    def _one_by_one(self, wanted: Boxes, low: Ints, high: Ints) -> tuple[Ints, Ints]:
        task = np.arange(self._boxes.tasks)
        meet: NDArray[np.bool_] = (task >= low[:, None]) & (task < high[:, None])
        for axis in range(wanted.start.shape[1]):
            if axis not in self._forward:
                meet &= self._boxes.start[:, axis] < wanted.stop[:, axis, None]
                meet &= wanted.start[:, axis, None] < self._boxes.stop[:, axis]
        some = meet.any(axis=1)
        first = np.where(some, meet.argmax(axis=1), 0)
        last = np.where(some, len(task) - meet[:, ::-1].argmax(axis=1), 0)
        return first, last


def _grid(boxes: Boxes) -> list[Digit] | None:
    """The digits of a grid of non-empty boxes, the slowest first; None if it is none."""
    if (boxes.start >= boxes.stop).any():
        return None
    digits = []
    for axis in range(boxes.start.shape[1]):
        start, stop = boxes.start[:, axis], boxes.stop[:, axis]
        turns = (start[1:] != start[:-1]).nonzero()[0] + 1
        period = int(np.gcd.reduce(turns)) if len(turns) else boxes.tasks
        pieces = _distinct(start[::period])
        digits.append(Digit(axis, period, start[: pieces * period : period],
                            stop[: pieces * period : period]))  # fmt: skip
    digits.sort(key=lambda digit: -digit.period)
    size = boxes.tasks
    for digit in digits:
        if len(digit.start) * digit.period != size:
            return None
        size = digit.period
        if not _repeats(boxes, digit):
            return None
    return digits if size == 1 or boxes.tasks == 1 else None


def _periods(boxes: Boxes) -> set[int]:
    """After how many tasks each axis goes on."""
    found = set()
    for axis in range(boxes.start.shape[1]):
        turns = (boxes.start[1:, axis] != boxes.start[:-1, axis]).nonzero()[0] + 1
        found.add(int(np.gcd.reduce(turns, initial=0)) or boxes.tasks)
    return found


def _distinct(ascending: Ints) -> int:
    """How long the sequence ascends from its beginning."""
    falls = (ascending[1:] <= ascending[:-1]).nonzero()[0]
    return int(falls[0]) + 1 if len(falls) else len(ascending)


def _repeats(boxes: Boxes, digit: Digit) -> bool:
    """Whether the pieces come again and again in the same order, each ``period`` times."""
    shape = (-1, len(digit.start), digit.period)
    start = boxes.start[:, digit.axis].reshape(shape) == digit.start[:, None]
    stop = boxes.stop[:, digit.axis].reshape(shape) == digit.stop[:, None]
    return bool(start.all() and stop.all() and (np.diff(digit.stop) >= 0).all())
