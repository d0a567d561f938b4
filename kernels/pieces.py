"""A row of columns in pieces, in each of which every comparison of a column has one answer.

A core then does not ask for each column what it is part of: a concatenation is a copy for each
operand.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index, Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.expressions.terms import Apply, Const, Expr, IndexValue
from ramforge.compiler.ir import DType
from ramforge.kernels import space

_SHORTEST = 8  # columns, on average


def cut(placed: Placed, tiling: space.Tiling) -> list[tuple[Placed, space.Tiling]]:
    """The same work piece by piece; in one where pieces would be short."""
    if not tiling.columns or tiling.across > 1:
        return [(placed, tiling)]
    bounds = _bounds(placed.computation.value, tiling.columns[0])
    if len(bounds) == 2 or bounds[-1] < _SHORTEST * (len(bounds) - 1):
        return [(placed, tiling)]
    return [_piece(placed, tiling, start, stop) for start, stop in pairwise(bounds)]


def _bounds(value: Expr, column: Var) -> list[int]:
    """Where a comparison changes its answer, and both ends."""
    found = {0, column.size}
    for expr in value.walk():
        excess = _excess(expr)
        if excess is None or ix.variables(excess) != {column}:
            continue
        slope = excess.coefficient(column)
        if slope == 1:  # yes below the bound
            found.add(1 - excess.const)
        elif slope == -1:  # yes from the bound on
            found.add(excess.const)
    return sorted(bound for bound in found if 0 <= bound <= column.size)


def _excess(expr: Expr) -> Index | None:
    """What is at most 0 just where the answer is yes, if this compares indices."""
    if not isinstance(expr, Apply) or expr.name not in ("less", "less_equal"):
        return None
    sides = []
    for side in expr.args:
        if isinstance(side, IndexValue):
            sides.append(side.indices[0])
        elif isinstance(side, Const):
            sides.append(ix.constant(int(side.value)))
    if len(sides) != 2:
        return None
    return sides[0] - sides[1] + (1 if expr.name == "less" else 0)


def _piece(
    placed: Placed, tiling: space.Tiling, start: int, stop: int
) -> tuple[Placed, space.Tiling]:
    column = tiling.columns[0]
    part = Var(column.name, stop - start)
    placed = placed.substitute({column: ix.of(part) + start})
    answers: dict[Expr, Expr] = {}
    for expr in placed.computation.value.walk():
        excess = _excess(expr)
        if excess is not None:
            least, most = ix.bounds(excess)
            if most <= 0 or least > 0:
                answers[expr] = terms.const(most <= 0, DType.BOOL)
    computation = placed.computation.mapped(lambda expr: terms.rewrite(expr, parts=answers))
    own = replace(tiling, columns=(part,), task_columns=part.size)
    return replace(placed, computation=computation), own
