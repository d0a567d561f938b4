"""The row family: softmax, normalisation, and whatever else needs to know something of a whole row.

Elements are read once: what several folds and the result need of one, a thread keeps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ramforge.compiler.device import Target
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import rows, terms
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.expressions.terms import Expr
from ramforge.compiler.expressions.text import literal
from ramforge.compiler.registry import Family, register_family
from ramforge.compiler.rprogram import Body, Candidate, Design, TaskCost
from ramforge.kernels import space
from ramforge.kernels.row_stages import ELEMENT, Stage, constant_parts, stages_of

JOINS = {
    comp.SUM: "rf_plus",
    comp.PRODUCT: "rf_times",
    comp.MAXIMUM: "rf_larger",
    comp.MINIMUM: "rf_smaller",
}
# What a thread keeps of a row in registers, and a core in its cache.
KEPT_BYTES_OF_A_THREAD, KEPT_BYTES_OF_A_CORE = 64, 1 << 15
# A core reads an element from its cache as soon as what it kept; it keeps what took so much work.
WORTH_A_CACHE = 8
# A thread has a row for itself up to this width.
WIDEST_OF_A_THREAD = 16
# A warp has a row for itself up to this width; where warps would be idle, up to the other one.
WIDEST_OF_A_WARP, WIDEST_WITH_IDLE_WARPS = 512, 128


def fits(placed: Placed) -> bool:
    return placed.computation.is_row


def candidates(placed: Placed, target: Target) -> tuple[Candidate, ...]:
    kind, shape = placed.computation.kind, "x".join(map(str, placed.computation.shape))
    placed = replace(placed, computation=rows.as_row(placed.computation))
    along = set(placed.computation.reduction)
    outer = tuple(var for var in placed.computation.axes if var not in along)
    order = placed.memory_order(placed.computation.axes)
    apart = bool(order) and order[-1] not in along
    placed, down = space.merge(placed, placed.memory_order(outer), "f")
    placed, columns = space.merge(placed, placed.memory_order(tuple(along)), "c")
    width = space.size_of(columns)
    tiling = space.cut(down, (), 2 * target.sms, width)
    reads, writes = space.regions(placed, tiling.ranges(), tiling.tasks)
    elements = tiling.task_rows * width
    warps = warps_of_a_row(tiling.task_rows, width, target, apart)
    stages = stages_of(placed.computation, columns, WORTH_A_CACHE if target.is_host else 0)
    if not _may_keep(stages, width, warps, target):
        stages = stages_of(placed.computation, columns, math.inf)
    text = _text(placed, tiling, columns, stages, warps)
    body = Body("row", f"{kind} of rows of {width} in {shape}", text, arena_bytes(warps), 0)
    cost = TaskCost(
        elements * float(sum(stage.operations for stage in stages)),
        space.bytes_touched(reads, placed, elements),
        elements * placed.target.dtype.itemsize,
    )
    design = Design(body, tiling.tasks, reads, writes, cost)
    return (Candidate(tiling.tasks, cost, body.arena_bytes, lambda: design),)


def warps_of_a_row(task_rows: int, width: int, target: Target, apart: bool = False) -> int:
    """How many warps share a row: all that a block has, or one; none if a thread has it for itself,
    for it is short, or its neighbours have what lies beside it.
    """
    if target.is_host:
        return 1
    warps = target.threads // 32
    if width <= WIDEST_OF_A_THREAD or (apart and task_rows >= 32):
        return 0
    widest = WIDEST_WITH_IDLE_WARPS if 2 * task_rows <= warps else WIDEST_OF_A_WARP
    return warps if width > widest else 1


def arena_bytes(warps: int) -> int:
    """What warps that share a row need to tell each other: two numbers each."""
    return 2 * 8 * warps if warps > 1 else 0


def _may_keep(stages: Sequence[Stage], width: int, warps: int, target: Target) -> bool:
    kinds = {stage.now.dtype.itemsize for stage in stages if stage.now is not None}
    size = width * max(kinds, default=0)
    threads = max(1, 32 * warps)
    limit = KEPT_BYTES_OF_A_CORE if target.is_host else threads * KEPT_BYTES_OF_A_THREAD
    return size <= limit


def _text(
    placed: Placed,
    tiling: space.Tiling,
    columns: tuple[Var, ...],
    stages: Sequence[Stage],
    warps: int,
) -> str:
    names: dict[Var, str] = {}
    outer = space.decode(tiling.rows, "row", names) if tiling.rows else []
    inner = space.decode(columns, "column", names) if columns else []
    addresses, _ = space.pointers(placed)
    kept = next((stage.now.dtype.c_name for stage in stages if stage.now is not None), "")
    shape = f"{kept or 'int'}, {space.size_of(columns)}, {warps}, {str(bool(kept)).lower()}"
    writer = _RowWriter(placed, names, inner, columns, kept or "int")
    lines = [
        *addresses,
        space.output_pointer(placed, len(placed.tensors)),
        f"rf_each_row<{tiling.row_count}, {tiling.task_rows}, {warps}>("
        "task, RF_LAMBDA(int row, int turn) {",
        *space.indent(outer, 2),
        f"  rf_row<{shape}> elements = {{arena, turn * {len(stages) - 1}}};",
        *space.indent([line for stage in stages for line in writer.stage(stage)], 2),
        "});",
    ]
    return "\n".join(lines)


class _RowWriter:
    """Writes one stage after the other, what is the same for a whole row in front of it."""

    def __init__(
        self,
        placed: Placed,
        names: dict[Var, str],
        inner: list[str],
        columns: tuple[Var, ...],
        kept: str,
    ) -> None:
        self._placed, self._names, self._inner, self._columns = placed, names, inner, columns
        self._kept = kept
        self._of_row = space.writer(placed, names, prefix="h")
        self._known: dict[Expr, Expr] = {}

    def stage(self, stage: Stage) -> list[str]:
        done = len(self._of_row.statements)
        now = None if stage.now is None else self._hoisted(stage.now)
        value = self._hoisted(stage.value)
        lines = self._of_row.statements[done:]
        body = list(self._inner)
        if now is not None:
            body += self._assigned(now, f"{ELEMENT} = {{}};")
        body += self._assigned(value, "return {};")
        made = stage.value.dtype.c_name
        if stage.fold is None:
            return [
                *lines,
                "rf_row_store(elements,",
                *self._element(made, body, ","),
                *self._store(made),
            ]
        neutral = literal(comp.identity(stage.fold.kind, stage.value.dtype), stage.value.dtype)
        head = f"rf_row_fold<{JOINS[stage.fold.kind]}>(elements, {neutral},"
        lines.append(f"const {made} {stage.fold.name} = {head}")
        return [*lines, *self._element(made, body, ");")]

    def _hoisted(self, expr: Expr) -> Expr:
        for part in constant_parts(expr, self._columns):
            if part not in self._known:
                text = self._of_row.value(part)
                name = self._of_row.declare(part.dtype.c_name, text)
                self._known[part] = terms.named(name, part.dtype)
        return terms.rewrite(expr, parts=self._known)

    def _assigned(self, expr: Expr, form: str) -> list[str]:
        writer = space.writer(self._placed, self._names)
        text = writer.value(expr)
        return [*writer.statements, form.format(text)]

    def _element(self, made: str, body: list[str], end: str) -> list[str]:
        head = f"    RF_LAMBDA(int column, {self._kept}& {ELEMENT}) -> {made} {{"
        return [head, *space.indent(body, 6), "    }" + end]

    def _store(self, made: str) -> list[str]:
        writer = space.writer(self._placed, self._names)
        place = writer.index(self._placed.output_offset)
        body = [*self._inner, *writer.statements, f"y[{place}] = value;"]
        head = f"    RF_LAMBDA(int column, {made} value) {{"
        return [head, *space.indent(body, 6), "    });"]


register_family(Family("row", 70, fits, candidates))
