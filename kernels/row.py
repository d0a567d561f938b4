"""The row family: softmax, log-softmax and normalisation, which need statistics of a whole row
first.
"""

from __future__ import annotations

from ramforge.compiler.device import Target
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.expressions.text import literal
from ramforge.compiler.registry import Family, register_family
from ramforge.compiler.rprogram import Body, Candidate, Design, TaskCost
from ramforge.kernels import space


def fits(placed: Placed) -> bool:
    return placed.computation.is_row


def candidates(placed: Placed, target: Target) -> tuple[Candidate, ...]:
    computation = placed.computation
    along = set(computation.reduction)
    outer = tuple(var for var in computation.axes if var not in along)
    placed, rows = space.merge(placed, placed.memory_order(outer), "f")
    placed, columns = space.merge(placed, placed.memory_order(computation.reduction), "c")
    width = space.size_of(columns)
    operations = space.operation_count(computation) + 8
    tiling = space.cut(rows, (), 2 * target.sms, width)
    ranges = tiling.ranges()
    reads, writes = space.regions(placed, ranges, tiling.tasks)
    elements = tiling.task_rows * width
    shape = "x".join(map(str, computation.shape))
    summary = f"{computation.kind} of rows of {width} in {shape}"
    body = Body("row", summary, _text(placed, tiling, columns), 0, 0)
    cost = TaskCost(
        elements * 3.0 * operations,
        space.bytes_touched(reads, placed, elements),
        elements * placed.target.dtype.itemsize,
    )
    design = Design(body, tiling.tasks, reads, writes, cost)
    return (Candidate(tiling.tasks, cost, 0, lambda: design),)


def _text(placed: Placed, tiling: space.Tiling, columns: tuple[Var, ...]) -> str:
    computation = placed.computation
    names: dict[Var, str] = {}
    outer = space.decode(tiling.rows, "row", names) if tiling.rows else []
    inner = space.decode(columns, "column", names) if columns else []
    load = space.writer(placed, names)
    value = load.value(computation.value)
    store = space.writer(placed, names, filled="value")
    result = store.value(computation.result)
    position = store.index(placed.output_offset)
    kind = computation.value.dtype.c_name
    extra = ""
    if computation.kind == comp.NORMALIZE:
        extra = f" {literal(computation.epsilon, computation.value.dtype)},"
    addresses, _ = space.pointers(placed)
    lines = [
        *addresses,
        space.output_pointer(placed, len(placed.tensors)),
        f"rf_{computation.kind}<{tiling.row_count}, {space.size_of(columns)}, {tiling.task_rows}>(",
        f"    task,{extra}",
        f"    RF_LAMBDA(int row, int column) -> {kind} {{",
        *space.indent([*outer, *inner, *load.statements, f"return {value};"], 6),
        "    },",
        f"    RF_LAMBDA(int row, int column, {kind} value) {{",
        *space.indent([*outer, *inner, *store.statements, f"y[{position}] = {result};"], 6),
        "    });",
    ]
    return "\n".join(lines)


register_family(Family("row", 70, fits, candidates))
