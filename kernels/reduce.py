"""The reduce family: a fold over part of the index space. Reductions, pooling, depthwise
convolution.

Two ways to go through memory: *strips*, where neighbours of the output are neighbours of the input
and each folds on its own, and *rows*, where the folded elements are neighbours and one warp works
on one output element.
"""

from __future__ import annotations

from ramforge.compiler.device import Target
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.expressions.text import literal
from ramforge.compiler.registry import Family, register_family
from ramforge.compiler.rprogram import SHORT_START, Body, Candidate, Design, TaskCost
from ramforge.kernels import space

_JOINS = {
    comp.SUM: "rf_plus",
    comp.PRODUCT: "rf_times",
    comp.MAXIMUM: "rf_larger",
    comp.MINIMUM: "rf_smaller",
}


def fits(placed: Placed) -> bool:
    return placed.computation.kind in comp.COMBINERS


def candidates(placed: Placed, target: Target) -> tuple[Candidate, ...]:
    computation = placed.computation
    placed, axes = space.merge(placed, placed.memory_order(computation.axes), "f")
    folded = tuple(var for var in computation.reduction if var.size != 1)
    placed, folded = space.merge(placed, folded, "r")
    operations = space.operation_count(computation)
    depth = space.size_of(folded)
    by_rows = _folded_are_neighbours(placed, axes, folded)
    work = depth * (1 + operations // 8)
    if by_rows:
        tiling = space.cut(axes, (), 2 * target.sms, work)
        text = _rows_text(placed, tiling, folded)
    else:
        tiling = space.cut(axes[:-1], axes[-1:], 2 * target.sms, work)
        text = _strips_text(placed, tiling, folded)
    reads, writes = space.regions(placed, tiling.ranges(), tiling.tasks)
    elements = tiling.task_rows * tiling.task_columns
    shape = "x".join(map(str, computation.shape))
    body = Body("reduce", f"{computation.kind} of {depth} for each of {shape}", text, 0, 0)
    cost = TaskCost(
        elements * depth * (1.0 + operations),
        space.bytes_touched(reads, placed),
        elements * placed.target.dtype.itemsize,
        overhead=SHORT_START,
    )
    design = Design(body, tiling.tasks, reads, writes, cost)
    return (Candidate(tiling.tasks, cost, 0, lambda: design),)


def _folded_are_neighbours(placed: Placed, axes: tuple[Var, ...], folded: tuple[Var, ...]) -> bool:
    if not folded or space.size_of(folded) < 32:
        return False
    loads = [
        ix.flatten(load.indices, placed.strides[load.slot])
        for load in terms.loads_of(placed.computation.value)
    ]
    along_output = bool(axes) and any(offset.coefficient(axes[-1]) == 1 for offset in loads)
    return not along_output and any(offset.coefficient(folded[-1]) == 1 for offset in loads)


def _pieces(
    placed: Placed, tiling: space.Tiling, folded: tuple[Var, ...], number: str
) -> tuple[list[str], list[str]]:
    """The statements of value(...) and of finish(...)."""
    names: dict[Var, str] = {}
    outer = space.decode(tiling.rows, "row", names) if tiling.rows else []
    if tiling.columns:
        names[tiling.columns[0]] = "column"
    inner = space.decode(folded, number, names) if folded else []
    value = space.writer(placed, names)
    text = value.value(placed.computation.value)
    load_lines = [*outer, *inner, *value.statements, f"return {text};"]
    finish = space.writer(placed, names, filled="sum")
    result = finish.value(placed.computation.result)
    place = finish.index(placed.output_offset)
    return load_lines, [*outer, *finish.statements, f"y[{place}] = {result};"]


def _strips_text(placed: Placed, tiling: space.Tiling, folded: tuple[Var, ...]) -> str:
    kind, dtype = placed.computation.kind, placed.computation.value.dtype
    load_lines, store_lines = _pieces(placed, tiling, folded, "r")
    addresses, _ = space.pointers(placed)
    depth = space.size_of(folded)
    lines = [
        *addresses,
        space.output_pointer(placed, len(placed.tensors)),
        f"rf_tile_fold<{_JOINS[kind]}, {tiling.template()}, {depth}>(",
        f"    task, {literal(comp.identity(kind, dtype), dtype)},",
        f"    RF_LAMBDA(int row, int column, int r) -> {dtype.c_name} {{",
        *space.indent(load_lines, 6),
        "    },",
        f"    RF_LAMBDA(int row, int column, {dtype.c_name} sum) {{",
        *space.indent(store_lines, 6),
        "    });",
    ]
    return "\n".join(lines)


def _rows_text(placed: Placed, tiling: space.Tiling, folded: tuple[Var, ...]) -> str:
    kind, dtype = placed.computation.kind, placed.computation.value.dtype
    load_lines, store_lines = _pieces(placed, tiling, folded, "r")
    addresses, _ = space.pointers(placed)
    c_name = dtype.c_name
    lines = [
        *addresses,
        space.output_pointer(placed, len(placed.tensors)),
        f"rf_each_row<{tiling.row_count}, {tiling.task_rows}>(task, RF_LAMBDA(int row) {{",
        f"  const {c_name} sum = rf_row_fold<{_JOINS[kind]}, {space.size_of(folded)}>(",
        f"      {literal(comp.identity(kind, dtype), dtype)}, RF_LAMBDA(int r) -> {c_name} {{",
        *space.indent(load_lines, 8),
        "      });",
        "  rf_row_once(RF_LAMBDA() {",
        *space.indent(store_lines, 4),
        "  });",
        "});",
    ]
    return "\n".join(lines)


register_family(Family("reduce", 80, fits, candidates))
