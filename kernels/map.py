"""The map family: every output element on its own. Pointwise operators and all movement of data."""

from __future__ import annotations

from ramforge.compiler.device import Target
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.registry import Family, register_family
from ramforge.compiler.rprogram import SHORT_START, Body, Candidate, Design, TaskCost
from ramforge.kernels import pieces, space


def fits(placed: Placed) -> bool:
    return placed.computation.is_map


def candidates(placed: Placed, target: Target) -> tuple[Candidate, ...]:
    computation = placed.computation
    placed, axes = space.merge(placed, placed.memory_order(computation.axes), "f")
    operations = space.operation_count(computation)
    tiling = space.cut(axes[:-1], axes[-1:], 2 * target.sms, 1 + operations // 8)
    reads, writes = space.regions(placed, tiling.ranges(), tiling.tasks)
    elements = tiling.task_rows * tiling.task_columns
    body = Body("map", _summary(computation.shape), _text(placed, tiling, target), 0, 0)
    cost = TaskCost(
        elements * (1.0 + operations),
        space.bytes_touched(reads, placed, elements),
        elements * placed.target.dtype.itemsize,
        overhead=SHORT_START,
    )
    design = Design(body, tiling.tasks, reads, writes, cost)
    return (Candidate(tiling.tasks, cost, 0, lambda: design),)


def _summary(shape: tuple[int, ...]) -> str:
    return f"each element of {'x'.join(map(str, shape)) or 'a scalar'}"


def _text(placed: Placed, tiling: space.Tiling, target: Target) -> str:
    addresses, _ = space.pointers(placed)
    lines = [*addresses, space.output_pointer(placed, len(placed.tensors))]
    for part in pieces.cut(placed, tiling) if target.is_host else [(placed, tiling)]:
        lines += _loop(*part)
    return "\n".join(lines)


def _loop(placed: Placed, tiling: space.Tiling) -> list[str]:
    names: dict[Var, str] = {}
    inner = space.decode(tiling.rows, "row", names) if tiling.rows else []
    if tiling.columns:
        names[tiling.columns[0]] = "column"
    writer = space.writer(placed, names)
    value = writer.value(placed.computation.value)
    place = writer.index(placed.output_offset)
    return [
        f"rf_tile_map<{tiling.template()}>(task, RF_LAMBDA(int row, int column) {{",
        *space.indent([*inner, *writer.statements, f"y[{place}] = {value};"], 2),
        "});",
    ]


register_family(Family("map", 90, fits, candidates))
