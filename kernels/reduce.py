"""The reduce family: a fold over part of the index space. Reductions, pooling, depthwise
convolution.

Two ways to go through memory: *strips*, where neighbours of the output are neighbours of the input
and each folds on its own, and *rows*, where the folded elements are neighbours and one warp works
on one output element.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from ramforge.compiler.device import Target
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.expressions.terms import Expr, Load
from ramforge.compiler.expressions.text import literal
from ramforge.compiler.ir import DType
from ramforge.compiler.registry import Family, register_family
from ramforge.compiler.rprogram import SHORT_START, Body, Candidate, Design, Packing, TaskCost
from ramforge.kernels import space
from ramforge.kernels.row import JOINS, arena_bytes, warps_of_a_row


def fits(placed: Placed) -> bool:
    return placed.computation.kind in comp.COMBINERS


def candidates(placed: Placed, target: Target) -> tuple[Candidate, ...]:
    computation = placed.computation
    placed, packings = _with_neighbours(placed)
    placed, axes = space.merge(placed, placed.memory_order(computation.axes), "f")
    folded = tuple(var for var in computation.reduction if var.size != 1)
    placed, folded = space.merge(placed, folded, "r")
    operations = space.operation_count(computation)
    depth = space.size_of(folded)
    by_rows = _folded_are_neighbours(placed, axes, folded)
    work = depth * (1 + operations // 8)
    if by_rows:
        tiling = space.cut(axes, (), 2 * target.sms, work)
        warps = warps_of_a_row(tiling.task_rows, depth, target)
        text = _rows_text(placed, tiling, folded, warps)
    else:
        warps = 1
        tiling = space.cut(axes[:-1], axes[-1:], 2 * target.sms, work)
        text = _strips_text(placed, tiling, folded)
    reads, writes = space.regions(placed, tiling.ranges(), tiling.tasks)
    elements = tiling.task_rows * tiling.task_columns
    shape = "x".join(map(str, computation.shape))
    arena = arena_bytes(warps)
    body = Body("reduce", f"{computation.kind} of {depth} for each of {shape}", text, arena, 0)
    cost = TaskCost(
        elements * depth * (1.0 + operations),
        space.bytes_touched(reads, placed, elements * depth),
        elements * placed.target.dtype.itemsize,
        overhead=SHORT_START,
    )
    design = Design(body, tiling.tasks, reads, writes, cost, packings)
    return (Candidate(tiling.tasks, cost, arena, lambda: design),)


def _with_neighbours(placed: Placed) -> tuple[Placed, dict[int, Packing]]:
    """The constants in an order in which neighbours of the output read neighbours: the weights of a
    depthwise convolution, channels last.
    """
    order = placed.memory_order(placed.computation.axes)
    tensors = list(placed.tensors)
    packings = {}
    for load in terms.loads_of(placed.computation.value):
        tensor = tensors[load.slot]
        along = [axis for axis, at in enumerate(load.indices) if order and at == ix.of(order[-1])]
        if not placed.constants[load.slot] or not along or tensor.strides[along[0]] == 1:
            continue
        layout = (*(axis for axis in tensor.layout if axis != along[0]), along[0])
        tensors[load.slot] = replace(tensor, layout=layout)
        label = f"order.{'.'.join(map(str, layout))}"
        pack = functools.partial(np.transpose, axes=layout)
        packings[load.slot] = Packing(label, tensor.nbytes, pack)
    return replace(placed, tensors=tuple(tensors)), packings


def _folded_are_neighbours(placed: Placed, axes: tuple[Var, ...], folded: tuple[Var, ...]) -> bool:
    if not folded or space.size_of(folded) < 32:
        return False
    loads = [
        ix.flatten(load.indices, placed.strides[load.slot])
        for load in terms.loads_of(placed.computation.value)
    ]
    along_output = bool(axes) and any(offset.coefficient(axes[-1]) == 1 for offset in loads)
    return not along_output and any(offset.coefficient(folded[-1]) == 1 for offset in loads)


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The statements of value(...), of finish(...), and of whether a step of the fold is there."""

    value: list[str]
    finish: list[str]
    present: list[str]


def _pieces(
    placed: Placed, tiling: space.Tiling, folded: tuple[Var, ...], guard: Expr, value: Expr
) -> _Pieces:
    names: dict[Var, str] = {}
    outer = space.decode(tiling.rows, "row", names) if tiling.rows else []
    if tiling.columns:
        names[tiling.columns[0]] = "column"
    inner = space.decode(folded, "r", names) if folded else []
    loaded = space.writer(placed, names)
    text = loaded.value(value)
    load_lines = [*outer, *inner, *loaded.statements, f"return {text};"]
    finish = space.writer(placed, names, filled="sum")
    result = finish.value(placed.computation.result)
    place = finish.index(placed.output_offset)
    present = space.writer(placed, names)
    asked = present.value(guard)
    return _Pieces(
        load_lines,
        [*outer, *finish.statements, f"y[{place}] = {result};"],
        [*outer, *inner, *present.statements, f"return {asked};"],
    )


def _guarded(computation: Computation, columns: tuple[Var, ...]) -> tuple[Expr, Expr]:
    """Whether a step of the fold has anything to fold, asked once for all columns, and the value if
    it has. What lies in the padding changes nothing if it is the identity of the fold, or 0 in a
    sum of products.
    """
    value = computation.value
    identity = comp.identity(computation.kind, value.dtype)
    is_product = isinstance(value, terms.Apply) and value.name == "mul"
    inside = value.args if is_product and computation.kind == comp.SUM else (value,)
    for factor in inside:
        if isinstance(factor, Load) and factor.fill == identity:
            loose = factor.loose_axes()
            checks = [
                terms.inside(factor.indices[axis], 0, factor.shape[axis])
                for axis in loose
                if not set(columns) & set(ix.variables(factor.indices[axis]))
            ]
            if loose and len(checks) == len(loose):
                return terms.conjunction(checks), _without_fill(value, factor)
    return terms.const(True, DType.BOOL), value


def _without_fill(value: Expr, filled: Load) -> Expr:
    bare = terms.load(filled.slot, filled.indices, filled.shape, filled.dtype)
    return terms.rewrite(value, loads=lambda load: bare if load is filled else load)


def _strips_text(placed: Placed, tiling: space.Tiling, folded: tuple[Var, ...]) -> str:
    kind, dtype = placed.computation.kind, placed.computation.value.dtype
    pieces = _pieces(placed, tiling, folded, *_guarded(placed.computation, tiling.columns))
    addresses, _ = space.pointers(placed)
    depth = space.size_of(folded)
    lines = [
        *addresses,
        space.output_pointer(placed, len(placed.tensors)),
        f"rf_tile_fold<{JOINS[kind]}, {tiling.template()}, {depth}>(",
        f"    task, {literal(comp.identity(kind, dtype), dtype)},",
        "    RF_LAMBDA(int row, int r) -> bool {",
        *space.indent(pieces.present, 6),
        "    },",
        f"    RF_LAMBDA(int row, int column, int r) -> {dtype.c_name} {{",
        *space.indent(pieces.value, 6),
        "    },",
        f"    RF_LAMBDA(int row, int column, {dtype.c_name} sum) {{",
        *space.indent(pieces.finish, 6),
        "    });",
    ]
    return "\n".join(lines)


def _rows_text(placed: Placed, tiling: space.Tiling, folded: tuple[Var, ...], warps: int) -> str:
    kind, dtype = placed.computation.kind, placed.computation.value.dtype
    value = placed.computation.value
    pieces = _pieces(placed, tiling, folded, terms.const(True, DType.BOOL), value)
    addresses, _ = space.pointers(placed)
    c_name = dtype.c_name
    lines = [
        *addresses,
        space.output_pointer(placed, len(placed.tensors)),
        f"rf_each_row<{tiling.row_count}, {tiling.task_rows}, {warps}>("
        "task, RF_LAMBDA(int row, int turn) {",
        f"  rf_row<int, {space.size_of(folded)}, {warps}, false> elements = {{arena, turn}};",
        f"  const {c_name} sum = rf_row_fold<{JOINS[kind]}>(",
        f"      elements, {literal(comp.identity(kind, dtype), dtype)},",
        f"      RF_LAMBDA(int r, int&) -> {c_name} {{",
        *space.indent(pieces.value, 8),
        "      });",
        f"  rf_row_once<{warps}>(RF_LAMBDA() {{",
        *space.indent(pieces.finish, 4),
        "  });",
        "});",
    ]
    return "\n".join(lines)


register_family(Family("reduce", 80, fits, candidates))
