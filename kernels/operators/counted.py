"""Operators whose output is as long as the data says: NonZero, Compress, Unique.

The declared shape of the output says how many elements there will be; a run with another number of
them fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions.index import Data, Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, const, select, value_of
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, Refusal, register
from ramforge.kernels.operators.ordering import (
    alike,
    below,
    by_value,
    count,
    leading,
    numbered,
    ordered,
    positions,
    positions_of,
)

# How many slices Unique compares with each other
MOST_SLICES = 1 << 12


def _flat(x: Value, position: Index | Expr) -> Expr:
    """The element at this position of the flattened tensor."""
    place = position if isinstance(position, Index) else ix.of(Data(position, x.size))
    return x[ix.unflatten(place, x.shape)]


def nothing_declared(axis: Callable[[Node], int]) -> Refusal:
    """A refusal of outputs declared without elements: no step would be left to check that."""

    def refuse(node: Node, graph: Graph) -> tuple[str, str] | None:
        shape = graph.tensor(node.outputs[0]).shape
        given = graph.tensor(node.inputs[0]).shape
        if shape[axis(node)] or not math.prod(given):
            return None
        return (
            f"the output is declared as {'x'.join(map(str, shape))}, which nothing would check",
            "declare the number of elements there will be",
        )

    return refuse


def _non_zero(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x = steps.given(0)
    rank, wanted = steps.shape()
    flags = steps.map((x.size,), lambda place: ~_flat(x, place).equals(0))
    found = positions_of(steps, flags, wanted)

    def coordinate(axis: Index, number: Index) -> Expr:
        value: Expr = const(0, DType.INT64)
        for other, place in enumerate(ix.unflatten(ix.of(Data(found[number], x.size)), x.shape)):
            value = select(value_of(axis).equals(other), value_of(place), value)
        return value

    steps.map((rank, wanted), coordinate, to=0)
    return steps.nodes()


def _compress(node: Node, graph: Graph) -> tuple[Node, ...]:
    """The condition may be shorter than the axis; what it does not reach is left out."""
    steps = Steps(node, graph)
    x, condition = steps.given(0), steps.given(1)
    axis = _axis(node, x.rank)
    shape = steps.shape()
    size = x.size if axis is None else x.shape[axis]
    flags = steps.map((min(condition.size, size),), lambda place: condition[place])
    found = positions_of(steps, flags, shape[axis or 0])

    def kept(*at: Index) -> Expr:
        if axis is None:
            return _flat(x, found[at])
        return x[(*at[:axis], found[at[axis]], *at[axis + 1 :])]

    steps.map(shape, kept, to=0)
    return steps.nodes()


def _axis(node: Node, rank: int) -> int | None:
    axis = node.attr("axis")
    return None if axis is None else axis % rank


def _unique(node: Node, graph: Graph) -> tuple[Node, ...]:
    """Equal elements are neighbours once sorted, and each run of them is one element of the output.

    NaN is equal to itself and larger than any number, as in NumPy.
    """
    steps = Steps(node, graph)
    x = steps.given(0)
    axis = _axis(node, x.rank)
    wanted = steps.shape()[axis or 0]
    if axis is None:
        keys = steps.map((x.size,), lambda place: _flat(x, place))
    else:
        keys = _slice_ranks(steps, x, axis)
    runs = _Runs(steps, keys, wanted)
    if node.attr("sorted", 1):
        order, first, number = None, runs.first, runs.number
    else:
        order, first, number = runs.by_first()

    def element(*at: Index) -> Expr:
        if axis is None:
            return _flat(x, first[at])
        return x[(*at[:axis], first[at[axis]], *at[axis + 1 :])]

    def length(run: Index) -> Expr:
        return runs.length(run if order is None else order[run])

    steps.map(steps.shape(), element, to=0)
    if steps.wants(1):
        steps.map((wanted,), lambda run: first[run], to=1)
    if steps.wants(2):
        steps.map(keys.shape, lambda place: number[place], to=2)
    if steps.wants(3):
        steps.map((wanted,), length, to=3)
    return steps.nodes()


class _Runs:
    """Runs of equal keys in rising order: where each is met first, and which one a key is in."""

    def __init__(self, steps: Steps, keys: Value, wanted: int) -> None:
        self._steps = steps
        (self._size,) = keys.shape
        order = ordered(steps, (), self._size, by_value(lambda _, place: keys[place]))

        def starts_run(place: Index) -> Expr:
            before = keys[order.at((place - 1,), fill=0)]
            return value_of(place).equals(0) | ~alike(before, keys[order[place]])

        self._starts = positions_of(steps, steps.map(keys.shape, starts_run), wanted)
        starts = self._starts
        # the sort is stable
        self.first = steps.map((wanted,), lambda run: order[starts[run]])
        first = self.first

        def number(place: Index) -> Expr:
            return leading(wanted, lambda run: below(keys[first[run]], keys[place]))

        self.number = steps.map(keys.shape, number)

    def length(self, run: Index | Expr) -> Expr:
        place = run if isinstance(run, Index) else ix.of(Data(run, self.first.size))
        return self._starts.at((place + 1,), fill=self._size) - self._starts[place]

    def by_first(self) -> tuple[Value, Value, Value]:
        """The runs in the order in which they are met: which one, where, and that of each key."""
        steps, first, number = self._steps, self.first, self.number
        is_first = steps.map(number.shape, lambda place: first[number[place]].equals(count(place)))
        upto = numbered(steps, is_first)
        met = positions(steps, upto, first.size)
        order = steps.map(first.shape, lambda run: number[met[run]])
        renumbered = steps.map(number.shape, lambda place: upto[first[number[place]]] - 1)
        return order, met, renumbered


def _slice_ranks(steps: Steps, x: Value, axis: int) -> Value:
    """For each slice along an axis how many come before it, compared element by element."""
    size = x.shape[axis]
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    depth = math.prod(rest)

    def element(which: Index, inner: Index) -> Expr:
        place = ix.unflatten(inner, rest)
        return x[(*place[:axis], which, *place[axis:])]

    def difference(first: Index, second: Index, inner: Index) -> Expr:
        same = alike(element(first, inner), element(second, inner))
        return select(same, count(depth), count(inner))

    def is_less(found: Expr, first: Index, second: Index) -> Expr:
        inner = ix.of(Data(found, depth))
        differs = found < depth
        less = differs & below(element(first, inner), element(second, inner))
        return select(less, count(1), count(0))

    less = steps.fold(comp.MINIMUM, (size, size), (depth,), difference, is_less)
    return steps.fold(comp.SUM, (size,), (size,), lambda which, other: less[other, which])


def _refuse_unique(node: Node, graph: Graph) -> tuple[str, str] | None:
    shape = graph.tensor(node.inputs[0]).shape
    axis = _axis(node, len(shape))
    if axis is not None and shape[axis] > MOST_SLICES:
        return f"{shape[axis]} slices are too many to compare all of them", "flatten the input"
    return nothing_declared(lambda node: axis or 0)(node, graph)


register(Operator("NonZero", _non_zero, nothing_declared(lambda node: 1)))
register(Operator("Compress", _compress, nothing_declared(lambda node: node.attr("axis", 0))))
register(Operator("Unique", _unique, _refuse_unique))
