"""Slice. Where it begins may be known only at run time; how much it takes says its output's shape,
which is then checked.
"""

from __future__ import annotations

from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Place, Steps, Value
from ramforge.compiler.expressions.terms import (
    Expr,
    apply,
    conjunction,
    larger,
    select,
    smaller,
    value_of,
)
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.listed import Listed, are_known, integer, other_shape


def _express(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    source, shape = steps.given(0), steps.shape()
    operands = [steps.optional(slot) for slot in (1, 2, 3, 4)]
    if are_known(*operands):
        known = _known(steps, source)
        steps.map(
            shape,
            lambda *at: source.at(
                [i * step + first for i, (first, step) in zip(at, known, strict=True)]
            ),
            to=0,
        )
        return steps.nodes()
    starts, axes = operands[0], operands[2]
    assert starts is not None
    listed = Listed(axes, starts.size, source.rank)
    parts = [_Part(steps, listed, axis, size) for axis, size in enumerate(source.shape)]
    steps.map(
        shape, lambda *at: source.at([p.place(i) for p, i in zip(parts, at, strict=True)]), to=0
    )
    steps.check(
        (),
        lambda: conjunction(
            [listed.fits(), *(p.fits(n) for p, n in zip(parts, shape, strict=True))]
        ),
        other_shape(steps),
    )
    return steps.nodes()


def _known(steps: Steps, source: Value) -> list[tuple[int, int]]:
    """The first position and the step along each axis."""
    found = [(0, 1)] * source.rank
    starts, axes, strides = (steps.optional(slot) for slot in (1, 3, 4))
    assert starts is not None and starts.known is not None
    for number, start in enumerate(starts.known.tolist()):
        axis = number
        if axes is not None and axes.known is not None:
            axis = int(axes.known[number]) % source.rank
        step = 1
        if strides is not None and strides.known is not None:
            step = int(strides.known[number])
        size = source.shape[axis]
        first = start + size if start < 0 else start
        found[axis] = (min(max(first, 0), size if step > 0 else size - 1), step)
    return found


class _Part:
    """What is taken along one axis, read at run time."""

    def __init__(self, steps: Steps, listed: Listed, axis: int, size: int) -> None:
        starts, ends, strides = (steps.optional(slot) for slot in (1, 2, 4))
        start = listed.number(starts, axis, 0)
        end = listed.number(ends, axis, size)
        # a step beyond the axis takes one element, however long it is; nothing may overflow
        step = listed.number(strides, axis, 1)
        step = _between(step, integer(-size - 1), integer(size + 1))
        self._step = step
        self._forward = step > 0
        start = select(start < 0, start + size, start)
        end = select(end < 0, end + size, end)
        self._start = _between(
            start, integer(0), select(self._forward, integer(size), integer(size - 1))
        )
        forward_end = _between(end, integer(0), integer(size))
        self._end = select(
            self._forward, forward_end, _between(end, integer(-1), integer(size - 1))
        )

    def place(self, position: Index) -> Place:
        return self._start + value_of(position) * self._step

    def fits(self, count: int) -> Expr:
        """Whether that many elements are between start and end."""
        sign = select(self._forward, integer(1), integer(-1))
        span = self._end - self._start + self._step - sign
        taken = larger(apply("divide", span, self._step), 0)
        return ~self._step.equals(0) & taken.equals(count)


def _between(value: Expr, low: Expr, high: Expr) -> Expr:
    return larger(smaller(value, high), low)


register(Operator("Slice", _express, reads=(1, 2, 3, 4)))
