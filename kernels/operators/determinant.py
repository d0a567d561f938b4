"""Det by elimination with pivots, a row and a column less with each step; the last three rows at
once.
"""

from __future__ import annotations

from collections.abc import Sequence

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Place, Steps, Value
from ramforge.compiler.expressions.terms import Expr, apply, const, select, value_of
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register

MOST_ROWS = 64  # each of them is four nodes
AT_ONCE = 3


def _det(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x = steps.given(0)
    batch = x.shape[:-2]
    working = DType.FLOAT64 if x.dtype is DType.FLOAT64 else DType.FLOAT32
    matrix: Value = x
    factor: Value | None = None
    while matrix.shape[-1] > AT_ONCE:
        matrix, factor = _eliminated(steps, matrix, factor, working)

    def result(*at: Index) -> Expr:
        rows = [[matrix.at([*at, i, j]).cast(working) for j in range(size)] for i in range(size)]
        value = _expanded(rows, working)
        return value if factor is None else factor.at(at) * value

    size = matrix.shape[-1]
    steps.map(batch, result, to=0)
    return steps.nodes()


def _expanded(rows: Sequence[Sequence[Expr]], working: DType) -> Expr:
    """By the first row. Without rows it is 1."""
    if not rows:
        return const(1, working)
    terms = []
    for number, value in enumerate(rows[0]):
        minor = [[*row[:number], *row[number + 1 :]] for row in rows[1:]]
        terms.append(value * _expanded(minor, working) if minor else value)
    result = terms[0]
    for number, term in enumerate(terms[1:]):
        result = result + term if number % 2 else result - term
    return result


def _eliminated(
    steps: Steps, matrix: Value, factor: Value | None, working: DType
) -> tuple[Value, Value]:
    """A smaller matrix, and what its determinant is to be multiplied with."""
    *batch, size, _ = matrix.shape

    def element(at: Sequence[Place], row: Place, column: Place) -> Expr:
        return matrix.at([*at, row, column]).cast(working)

    def height(*at: Index) -> Expr:
        *here, row = at
        return apply("abs", element(here, row, 0))

    highest = steps.fold(comp.MAXIMUM, batch, (size,), height)

    def row_if_highest(*at: Index) -> Expr:
        *here, row = at
        found = height(*at).equals(highest.at(here))
        return select(found, value_of(row, DType.INT32), const(size - 1, DType.INT32))

    pivot = steps.fold(comp.MINIMUM, batch, (size,), row_if_highest)

    def multiplied(*at: Index) -> Expr:
        row = pivot.at(at)
        value = element(at, row, 0)
        value = select(row.equals(0), value, -value)
        return value if factor is None else factor.at(at) * value

    def rest(*at: Index) -> Expr:
        *here, row, column = at
        chosen = pivot.at(here)
        below = row + 1  # the first row takes the place of the pivot's
        source = select(
            chosen.equals(value_of(below, DType.INT32)),
            const(0, DType.INT32),
            value_of(below, DType.INT32),
        )
        top = element(here, chosen, 0)
        share = select(top.equals(0), const(0, working), element(here, source, 0) / top)
        return element(here, source, column + 1) - share * element(here, chosen, column + 1)

    smaller = steps.map((*batch, size - 1, size - 1), rest)
    return smaller, steps.map(batch, multiplied)


def _refuse(node: Node, graph: Graph) -> tuple[str, str] | None:
    rows, columns = graph.tensor(node.inputs[0]).shape[-2:]
    if rows != columns:
        return f"a matrix of {rows} x {columns} has no determinant", "use square matrices"
    if rows > MOST_ROWS:
        return f"{rows} rows are more than {MOST_ROWS}", "use smaller matrices"
    return None


register(Operator("Det", _det, _refuse))
