"""Operators that look for the largest: TopK, ArgMax, ArgMin, Hardmax."""

from __future__ import annotations

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, const, select
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.declared import output_size
from ramforge.kernels.operators.ordering import COUNT, Places, alike, by_value, count, ordered


def _top_k(node: Node, graph: Graph) -> tuple[Node, ...]:
    """Ties go to the lower index; NaN is larger than any number, as in NumPy."""
    steps = Steps(node, graph)
    x = steps.given(0)
    axis = node.attr("axis", -1) % x.rank
    keep = next(steps.shape(number)[axis] for number in (0, 1) if steps.wants(number))
    lines = (*x.shape[:axis], *x.shape[axis + 1 :])

    def element(line: Places, position: Expr) -> Expr:
        return x[(*line[:axis], position, *line[axis:])]

    falling = bool(node.attr("largest", 1))
    order = ordered(steps, lines, x.shape[axis], by_value(element, falling), keep)

    def place(at: Places) -> Expr:
        return order[(*at[:axis], *at[axis + 1 :], at[axis])]

    shape = (*x.shape[:axis], keep, *x.shape[axis + 1 :])
    if steps.wants(0):
        steps.map(shape, lambda *at: x[(*at[:axis], place(at), *at[axis + 1 :])], to=0)
    if steps.wants(1):
        steps.map(shape, lambda *at: place(at), to=1)
    return steps.nodes()


def _extreme(steps: Steps, x: Value, axis: int, kind: str, last: bool) -> Value:
    """Where the extreme of each line is; the lines are ``x.shape`` without the axis."""
    size = x.shape[axis]
    lines = (*x.shape[:axis], *x.shape[axis + 1 :])

    def element(*at: Index) -> Expr:
        *line, place = at
        return x[(*line[:axis], place, *line[axis:])]

    extreme = steps.fold(kind, lines, (size,), element)

    def candidate(*at: Index) -> Expr:
        *line, place = at
        other = const(-1 if last else size, COUNT)
        return select(alike(element(*at), extreme[tuple(line)]), count(place), other)

    return steps.fold(comp.MAXIMUM if last else comp.MINIMUM, lines, (size,), candidate)


def _arg(name: str, kind: str) -> None:
    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        steps = Steps(node, graph)
        x = steps.given(0)
        if x.rank == 0:
            steps.map((), lambda: const(0, DType.INT64), to=0)
            return steps.nodes()
        axis = node.attr("axis", 0) % x.rank
        found = _extreme(steps, x, axis, kind, bool(node.attr("select_last_index", 0)))

        def result(*at: Index) -> Expr:
            line = at if len(at) < x.rank else (*at[:axis], *at[axis + 1 :])
            return found[line]

        steps.map(steps.shape(), result, to=0)
        return steps.nodes()

    register(Operator(name, express, _nothing_to_choose))


def _nothing_to_choose(node: Node, graph: Graph) -> tuple[str, str] | None:
    shape = graph.tensor(node.inputs[0]).shape
    if shape and shape[node.attr("axis", 0) % len(shape)] == 0:
        return "the axis has no elements to choose from", "give it an axis with elements"
    return None


def _hardmax(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x = steps.given(0)
    axis = node.attr("axis", -1) % x.rank
    found = _extreme(steps, x, axis, comp.MAXIMUM, last=False)

    def result(*at: Index) -> Expr:
        chosen = found[(*at[:axis], *at[axis + 1 :])].equals(count(at[axis]))
        return select(chosen, const(1, x.dtype), const(0, x.dtype))

    steps.map(x.shape, result, to=0)
    return steps.nodes()


register(Operator("TopK", _top_k, needs={1: output_size(default=-1)}))
_arg("ArgMax", comp.MAXIMUM)
_arg("ArgMin", comp.MINIMUM)
register(Operator("Hardmax", _hardmax))
