"""How long scheduling and checking take on a graph as large as any that is likely to come.

``python -m ramforge.runtime.bench.scale`` makes a graph of a million rTasks with halo, transposed,
row and residual reads, schedules it by ``events``, checks the plan, and does the same with a graph
of twice the size.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from ramforge.compiler.check import check_plan
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import Target, find_target
from ramforge.compiler.expressions.regions import Boxes, Ints
from ramforge.compiler.ir import DType, Graph, Tensor
from ramforge.compiler.rprogram import Body, ROperator, TaskCost, Variant
from ramforge.compiler.schedule import POLICIES
from ramforge.compiler.schedule.search import Scheduled, fixed, plan

TILE = 8
PARALLEL = 10  # rOperators of a level
PATTERNS = ("own", "halo", "transposed", "row", "column")


@dataclass(frozen=True, slots=True)
class Measured:
    """One graph: its size, and the seconds that its plan took."""

    rtasks: int
    roperators: int
    levels: int
    rows: int
    waits: int
    implied: int
    schedule_s: float
    check_s: float
    peak_mb: float


def synthetic(levels: int, side: int = 14, seed: int = 0) -> tuple[tuple[ROperator, ...], Graph]:
    """``PARALLEL`` rOperators a level, each of about ``side`` x ``side`` tiles; each reads two
    tensors of earlier levels, most of them of the last one.
    """
    random = np.random.default_rng(seed)
    # tiles down and across; a transposed reader asks for tile (j, i), so that all are square
    sides = [int(random.integers(side - 1, side + 3)) for _ in range(levels * PARALLEL)]
    body = Body("synthetic", "a tile", "// nothing", 0, 0)
    operators: list[ROperator] = []
    tensors = {"x": Tensor("x", (side * TILE, side * TILE), DType.FLOAT32)}
    for number, own in enumerate(sides):
        name = f"t{number}"
        tensors[name] = Tensor(name, (own * TILE, own * TILE), DType.FLOAT32)
        row, column = np.divmod(np.arange(own * own, dtype=np.int64), own)
        reads: dict[str, Boxes] = {}
        for source in _sources(number, random):
            pattern = PATTERNS[int(random.integers(len(PATTERNS)))]
            reads[f"t{source}"] = _read(pattern, row, column, own, sides[source])
        writes = {name: _box(row, row + 1, column, column + 1, own)}
        cost = TaskCost(2e4 * int(random.integers(1, 9)), 4096.0, 256.0)
        variant = Variant(body, own * own, (*reads, name), reads, writes, cost)
        operators.append(ROperator(name, "Synthetic", (name,), variant))
    read = {name for operator in operators for name in operator.variant.reads}
    outputs = tuple(name for name in tensors if name not in read and name != "x")
    return tuple(operators), Graph("synthetic", ("x",), outputs, (), tensors, {})


def _sources(number: int, random: np.random.Generator) -> set[int]:
    level = number // PARALLEL
    if not level:
        return set()
    last = (level - 1) * PARALLEL
    near = last + int(random.integers(PARALLEL))
    if random.random() < 0.3:  # a residual from a few levels ago
        return {near, int(random.integers(max(0, last - 5 * PARALLEL), last + PARALLEL))}
    return {near, last + int(random.integers(PARALLEL))}


def _read(pattern: str, row: Ints, column: Ints, own: int, source: int) -> Boxes:
    """What each tile reads of a tensor that has ``source`` tiles to a side."""
    low_row, low_column = row * source // own, column * source // own
    high_row = -(-(row + 1) * source // own)
    high_column = -(-(column + 1) * source // own)
    if pattern == "halo":
        return _box(low_row - 1, high_row + 1, low_column - 1, high_column + 1, source)
    if pattern == "transposed":
        return _box(low_column, high_column, low_row, high_row, source)
    if pattern == "row":
        return _box(low_row, high_row, 0 * row, 0 * row + source, source)
    if pattern == "column":
        return _box(0 * row, 0 * row + source, low_column, high_column, source)
    return _box(low_row, high_row, low_column, high_column, source)


def _box(row: Ints, row_end: Ints, column: Ints, column_end: Ints, tiles: int) -> Boxes:
    start = np.stack([row, column], axis=1) * TILE
    stop = np.stack([row_end, column_end], axis=1) * TILE
    return Boxes(np.clip(start, 0, tiles * TILE), np.clip(stop, 0, tiles * TILE))


def scheduled(operators: tuple[ROperator, ...], graph: Graph, target: Target) -> Scheduled:
    cost, policy = AnalyticCost(), POLICIES["events"]
    stages = fixed(operators, policy, target, cost)
    return plan(policy, operators, stages, graph, target, cost, lambda _: {})


def measure(levels: int, target: Target) -> Measured:
    operators, graph = synthetic(levels)
    start = time.perf_counter()
    found = scheduled(operators, graph, target)
    middle = time.perf_counter()
    check_plan(operators, found.plan, target, found.memory, graph)
    end = time.perf_counter()
    return Measured(
        sum(operator.tasks for operator in operators),
        len(operators),
        found.plan.waves,
        sum(len(launch.rows) for launch in found.plan.launches),
        found.plan.waits,
        found.plan.implied,
        middle - start,
        end - middle,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


@click.command()
@click.option("--levels", default=500, show_default=True, help="Levels of the smaller graph.")
@click.option("--target", default="h200", show_default=True)
@click.option("--json", "path", type=click.Path(dir_okay=False), help="Write the figures here.")
def main(levels: int, target: str, path: str | None) -> None:
    """Schedule and check a synthetic graph and one of twice its size."""
    chosen = find_target(target)
    rows = []
    for factor in (1, 2):
        rows.append(measure(factor * levels, chosen))
        row = rows[-1]
        click.echo(
            f"{row.rtasks:>9} rTasks, {row.roperators} rOperators, {row.levels} levels: scheduled "
            f"in {row.schedule_s:.1f} s, checked in {row.check_s:.1f} s, {row.peak_mb:.0f} MB at "
            f"most; {row.rows} rows, {row.waits} waits, {row.implied} implied"
        )
    growth = [getattr(rows[1], name) / getattr(rows[0], name) for name in ("schedule_s", "check_s")]
    click.echo(f"twice the size takes {growth[0]:.2f} and {growth[1]:.2f} times as long")
    if path:
        names = rows[0].__slots__
        table = [{name: getattr(row, name) for name in names} for row in rows]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps({"format": 1, "graphs": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
