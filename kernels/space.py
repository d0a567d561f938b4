"""Iteration spaces: how a computation's axes become the rows and columns that a tile primitive runs
over.

Axes are taken in the order in which the output lies in memory. Neighbours are merged wherever every
offset stays a plain sum, so that an elementwise node is one long loop whatever its rank.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation
from ramforge.compiler.expressions.index import FloorDiv, Index, Mod, Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.expressions.regions import Boxes, Ints, Ranges, load_boxes, read_boxes
from ramforge.compiler.expressions.text import INT32_LIMIT, Writer


def merge(placed: Placed, axes: tuple[Var, ...], name: str) -> tuple[Placed, tuple[Var, ...]]:
    """Merge neighbouring axes (outermost first) where no quotient or remainder appears.

    A merged axis stays countable with an ``int``, which is what the tile primitives count with.
    """
    merged: list[Var] = []
    for axis in axes:
        if merged and merged[-1].size * axis.size <= INT32_LIMIT:
            joined = Var(f"{name}{len(merged) - 1}_{axis.name}", merged[-1].size * axis.size)
            trial = placed.substitute(
                {
                    merged[-1]: ix.of(joined) // axis.size,
                    axis: ix.of(joined) % axis.size,
                }
            )
            if _breaks(trial) <= _breaks(placed):
                placed = trial
                merged[-1] = joined
                continue
        merged.append(axis)
    return placed, tuple(merged)


def _breaks(placed: Placed) -> int:
    return sum(_divisions(offset) for offset in placed.offsets())


def _divisions(index: Index) -> int:
    count = 0
    for atom, _ in index.terms:
        if isinstance(atom, FloorDiv | Mod):
            count += 1 + _divisions(atom.operand)
    return count


def size_of(axes: Sequence[Var]) -> int:
    return math.prod(axis.size for axis in axes)


@dataclass(frozen=True, slots=True)
class Tiling:
    """A rows x columns space cut into tasks of ``task_rows`` x ``task_columns``."""

    rows: tuple[Var, ...]
    columns: tuple[Var, ...]
    task_rows: int
    task_columns: int

    @property
    def row_count(self) -> int:
        return size_of(self.rows)

    @property
    def column_count(self) -> int:
        return size_of(self.columns)

    @property
    def across(self) -> int:
        return -(-self.column_count // self.task_columns)

    @property
    def tasks(self) -> int:
        return -(-self.row_count // self.task_rows) * self.across

    def template(self) -> str:
        """The numbers that the tile primitives take."""
        return f"{self.row_count}, {self.column_count}, {self.task_rows}, {self.task_columns}"

    def ranges(self) -> Ranges:
        """What each task covers of each variable."""
        task = np.arange(self.tasks, dtype=np.int64)
        row = task // self.across * self.task_rows
        column = task % self.across * self.task_columns
        return {
            **mixed_radix(self.rows, row, np.minimum(row + self.task_rows, self.row_count)),
            **mixed_radix(
                self.columns, column, np.minimum(column + self.task_columns, self.column_count)
            ),
        }


def cut(rows: tuple[Var, ...], columns: tuple[Var, ...], units: int, work: int = 1) -> Tiling:
    """Tasks of a sensible size: some for every unit, but none too small to be worth a dispatch."""
    row_count, column_count = size_of(rows), size_of(columns)
    total = row_count * column_count
    wanted = max(-(-2048 // max(work, 1)), min(-(-total // (2 * units)), 32768))
    if column_count > wanted:
        return Tiling(rows, columns, 1, -(-wanted // 256) * 256)
    return Tiling(
        rows, columns, max(1, min(wanted // max(column_count, 1), row_count)), max(column_count, 1)
    )


def mixed_radix(axes: Sequence[Var], start: Ints, stop: Ints) -> dict[Var, tuple[Ints, Ints]]:
    """The least and greatest digit of each axis over the numbers start .. stop - 1."""
    found: dict[Var, tuple[Ints, Ints]] = {}
    step = size_of(axes)
    last = stop - 1
    for axis in axes:
        step //= axis.size
        low, high = start // step, last // step
        same_turn = low // axis.size == high // axis.size
        found[axis] = (
            np.where(same_turn, low % axis.size, 0),
            np.where(same_turn, high % axis.size, axis.size - 1),
        )
    return found


def decode(axes: Sequence[Var], number: str, names: dict[Var, str]) -> list[str]:
    """Statements that take a number apart into these axes; their C names go into ``names``."""
    if len(axes) == 1:
        names[axes[0]] = number
        return []
    lines = []
    step = size_of(axes)
    for position, axis in enumerate(axes):
        step //= axis.size
        text = number if step == 1 else f"{number} / {step}"
        if position:
            text = f"{text} % {axis.size}"
        names[axis] = axis.name
        lines.append(f"const int {axis.name} = {text};")
    return lines


def regions(placed: Placed, ranges: Ranges, tasks: int) -> tuple[dict[int, Boxes], Boxes]:
    """What each task reads of each slot, and what it writes of the output."""
    reads = read_boxes(placed.computation.expressions(), ranges, tasks)
    written = terms.load(0, placed.output, placed.target.shape, placed.target.dtype)
    return reads, load_boxes(written, ranges, tasks)


def pointers(placed: Placed) -> tuple[list[str], list[str]]:
    """Declarations of the tensors' addresses, inputs first, and the names of the inputs."""
    lines, names = [], []
    for slot, tensor in enumerate(placed.tensors):
        kind = tensor.dtype.c_name
        names.append(f"x{slot}")
        lines.append(f"const {kind}* x{slot} = rf_input<{kind}>(p, {slot});")
    return lines, names


def output_pointer(placed: Placed, slot: int) -> str:
    kind = placed.target.dtype.c_name
    return f"{kind}* y = rf_output<{kind}>(p, {slot});"


def writer(placed: Placed, names: dict[Var, str], filled: str = "", prefix: str = "t") -> Writer:
    inputs = [f"x{slot}" for slot in range(len(placed.tensors))]
    return Writer(names, inputs, placed.strides, filled, prefix)


def bytes_touched(reads: dict[int, Boxes], placed: Placed, steps: int) -> float:
    """Bytes the average task reads, counting each box once. Where an index is only known at run
    time the box is all of the tensor, but no load reads more elements than the task has steps.
    """
    loads = Counter(load.slot for load in placed.computation.loads())
    total = 0.0
    for slot, boxes in reads.items():
        cells = np.prod(np.maximum(boxes.stop - boxes.start, 0), axis=1, dtype=np.float64)
        if len(cells):
            touched = min(float(cells.mean()), float(steps * loads[slot]))
            total += touched * placed.tensors[slot].dtype.itemsize
    return total


def operation_count(computation: Computation) -> int:
    """Scalar operations for one value and one result, in multiplications."""
    from ramforge.compiler.expressions.functions import function

    return sum(
        function(node.name).cost
        for expr in computation.expressions()
        for node in expr.walk()
        if isinstance(node, terms.Apply)
    )


def indent(lines: Sequence[str], by: int) -> list[str]:
    return [" " * by + line for line in lines]
