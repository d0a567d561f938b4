"""Which part of a tensor a set of tasks touches, read off the expressions by interval arithmetic.

A task is a box of loop variables; every load's index then has a least and a greatest value along
each axis. Boxes of all tasks of an rOperator are columns of NumPy arrays: one row a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.expressions.index import Data, FloorDiv, Index, Var
from ramforge.compiler.expressions.terms import Expr, Load, loads_of
from ramforge.compiler.ir import Tensor

Ints = NDArray[np.int64]
Ranges = Mapping[Var, tuple[Ints, Ints]]


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """For each task the box ``start <= position < stop`` of a tensor, in index coordinates.

    ``start`` and ``stop`` have the shape (tasks, rank); a task with an empty box touches nothing.
    """

    start: Ints
    stop: Ints

    @property
    def tasks(self) -> int:
        return int(self.start.shape[0])

    def around(self, first: Ints) -> Boxes:
        """The box around the tasks of each run; runs begin at these tasks and leave none out."""
        if len(first) == self.tasks:
            return self
        start = np.minimum.reduceat(self.start, first, axis=0)
        return Boxes(start, np.maximum.reduceat(self.stop, first, axis=0))

    def merged(self, other: Boxes) -> Boxes:
        """The smallest boxes that hold both."""
        return Boxes(np.minimum(self.start, other.start), np.maximum(self.stop, other.stop))


def whole(tensor: Tensor, tasks: int) -> Boxes:
    """Every task touches all of the tensor."""
    rank = len(tensor.shape)
    stop = np.broadcast_to(np.asarray(tensor.shape, dtype=np.int64), (tasks, rank))
    return Boxes(np.zeros((tasks, rank), dtype=np.int64), np.array(stop))


def read_boxes(expressions: tuple[Expr, ...], ranges: Ranges, tasks: int) -> dict[int, Boxes]:
    """The boxes read from each slot, all loads of a slot in one."""
    found: dict[int, Boxes] = {}
    for expr in expressions:
        for load in loads_of(expr):
            boxes = load_boxes(load, ranges, tasks)
            found[load.slot] = found[load.slot].merged(boxes) if load.slot in found else boxes
    return found


def load_boxes(load: Load, ranges: Ranges, tasks: int) -> Boxes:
    starts, stops = [], []
    for position, size in zip(load.indices, load.shape, strict=True):
        low, high = _span(position, ranges)
        starts.append(np.broadcast_to(np.clip(low, 0, size), (tasks,)))
        stops.append(np.broadcast_to(np.clip(high + 1, 0, size), (tasks,)))
    if not starts:
        return Boxes(np.zeros((tasks, 0), np.int64), np.zeros((tasks, 0), np.int64))
    return Boxes(np.stack(starts, axis=1), np.stack(stops, axis=1))


def _span(position: Index, ranges: Ranges) -> tuple[Ints, Ints]:
    low = high = np.asarray(position.const, dtype=np.int64)
    for atom, coefficient in position.terms:
        if isinstance(atom, Var):
            first, last = ranges.get(atom, (np.asarray(0), np.asarray(atom.size - 1)))
        elif isinstance(atom, Data):
            first, last = np.asarray(0), np.asarray(atom.size - 1)
        else:
            first, last = _span(atom.operand, ranges)
            if isinstance(atom, FloorDiv):
                first, last = first // atom.divisor, last // atom.divisor
            else:
                same = first // atom.divisor == last // atom.divisor
                first, last = (
                    np.where(same, first % atom.divisor, 0),
                    np.where(same, last % atom.divisor, atom.divisor - 1),
                )
        ends = (first * coefficient, last * coefficient)
        low = low + np.minimum(*ends)
        high = high + np.maximum(*ends)
    return low, high
