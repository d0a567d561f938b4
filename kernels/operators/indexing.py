"""Operators that read at positions given by data or by a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps
from ramforge.compiler.expressions.terms import Expr, apply, const, larger, select, value_of
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, Refusal, Solve, never, register
from ramforge.kernels.operators.declared import output_shape, output_size
from ramforge.kernels.operators.listed import are_known, other_shape
from ramforge.kernels.operators.movement import beyond


def formula(
    name: str,
    element: Callable[..., Expr],
    needs: Mapping[int, Solve] | None = None,
    refuse: Refusal = never,
) -> None:
    """Register an operator by ``element(steps, *place)``, what stands at each output position."""

    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        steps = Steps(node, graph)
        steps.map(steps.shape(), lambda *at: element(steps, *at), to=0)
        return steps.nodes()

    register(Operator(name, express, refuse, needs or {}))


def _gather_elements(steps: Steps, *at: Index) -> Expr:
    data, indices = steps.given(0), steps.given(1)
    axis = steps.node.attr("axis", 0) % data.rank
    return data[(*at[:axis], indices[at], *at[axis + 1 :])]


def _gather_nd(steps: Steps, *at: Index) -> Expr:
    data, indices = steps.given(0), steps.given(1)
    batch = steps.node.attr("batch_dims", 0)
    outer = at[: indices.rank - 1]
    tuple_ = [indices[(*outer, number)] for number in range(indices.shape[-1])]
    return data[(*at[:batch], *tuple_, *at[indices.rank - 1 :])]


def elements_beyond(node: Node, graph: Graph) -> tuple[str, str] | None:
    """A refusal of constant indices that leave the axis."""
    shape = graph.tensor(node.inputs[0]).shape
    return beyond(graph.constants.get(node.inputs[1]), shape[node.attr("axis", 0)])


def tuples_beyond(node: Node, graph: Graph) -> tuple[str, str] | None:
    """A refusal of constant tuples of indices that leave their axes."""
    indices, shape = graph.constants.get(node.inputs[1]), graph.tensor(node.inputs[0]).shape
    if indices is None:
        return None
    sizes = shape[node.attr("batch_dims", 0) :][: indices.shape[-1]]
    found = (beyond(indices[..., number], size) for number, size in enumerate(sizes))
    return next(filter(None, found), None)


def _one_hot(steps: Steps, *at: Index) -> Expr:
    indices, values = steps.given(0), steps.given(2)
    axis = steps.node.attr("axis", -1) % len(at)
    depth = steps.shape()[axis]
    chosen = indices[(*at[:axis], *at[axis + 1 :])].cast(DType.INT64)
    chosen = select(chosen < 0, chosen + depth, chosen)
    return select(chosen.equals(value_of(at[axis])), values[1], values[0])


def _reverse_sequence(steps: Steps, *at: Index) -> Expr:
    x, lengths = steps.given(0), steps.given(1)
    time, batch = (steps.node.attr(name, least) for name, least in _SEQUENCE_AXES)
    time, batch = time % x.rank, batch % x.rank
    here, length = value_of(at[time]), lengths[at[batch]]
    place = select(here < length, length - 1 - here, here)
    return x[(*at[:time], place, *at[time + 1 :])]


_SEQUENCE_AXES = (("time_axis", 0), ("batch_axis", 1))


def _trilu(steps: Steps, *at: Index) -> Expr:
    x, shift = steps.given(0), steps.optional(1)
    least = const(0, DType.INT64) if shift is None else shift.at((0,) * shift.rank)
    distance = value_of(at[-1] - at[-2])
    kept = distance >= least if steps.node.attr("upper", 1) else distance <= least
    return select(kept, x[at], const(0, x.dtype))


def _eye_like(steps: Steps, *at: Index) -> Expr:
    row, column = at
    on_diagonal = value_of(column - row).equals(steps.node.attr("k", 0))
    return select(on_diagonal, const(1, DType.INT32), const(0, DType.INT32))


def _range(node: Node, graph: Graph) -> tuple[Node, ...]:
    """How many there are is checked where only a run knows it."""
    steps = Steps(node, graph)
    operands = [steps.given(slot) for slot in range(3)]
    dtype = steps.dtype().wide
    start, limit, step = (value.at((0,) * value.rank).cast(dtype) for value in operands)
    (size,) = steps.shape()
    steps.map((size,), lambda at: start + value_of(at, dtype) * step, to=0)

    if not are_known(*operands):
        steps.check(
            (),
            lambda: ~step.equals(0) & _number(start, limit, step).equals(size),
            other_shape(steps),
        )
    return steps.nodes()


def _refuse_range(node: Node, graph: Graph) -> tuple[str, str] | None:
    step = graph.constants.get(node.inputs[2])
    if step is None or step.any():
        return None
    return "its step is 0", "give it a step"


def _number(start: Expr, limit: Expr, step: Expr) -> Expr:
    """``max(ceil((limit - start) / step), 0)``, with floats as doubles."""
    if start.dtype.is_float:
        start, limit, step = (value.cast(DType.FLOAT64) for value in (start, limit, step))
        return larger(apply("ceil", (limit - start) / step), 0)
    span, step = limit.cast(DType.INT64) - start.cast(DType.INT64), step.cast(DType.INT64)
    whole = apply("divide", span, step)
    rest = span - whole * step
    is_begun = ~rest.equals(0) & (rest < 0).equals(step < 0)
    return larger(select(is_begun, whole + 1, whole), 0)


def _constant_of_shape(steps: Steps, *at: Index) -> Expr:
    value = steps.node.attr("value")
    number = 0 if value is None else np.asarray(value).reshape(()).item()
    return const(number, steps.dtype())


formula("GatherElements", _gather_elements, refuse=elements_beyond)
formula("GatherND", _gather_nd, refuse=tuples_beyond)
formula("OneHot", _one_hot, {1: output_size(default=-1)})
formula("ReverseSequence", _reverse_sequence)
formula("Trilu", _trilu)
formula("EyeLike", _eye_like)
register(Operator("Range", _range, _refuse_range, reads=(0, 1, 2)))
formula("ConstantOfShape", _constant_of_shape, {0: output_shape})
