"""Operators that write at positions given by data: ScatterElements, ScatterND, TensorScatter.

An output is never written twice: each element looks up the updates that go to it. Where there are
few it looks at all of them. Where there are many, the updates are sorted by their target once,
those of the same target are combined, and each element searches for the last of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, apply, const, select, value_of
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, Refusal, register
from ramforge.kernels.operators.indexing import elements_beyond, tuples_beyond
from ramforge.kernels.operators.ordering import Places, by_value, count, leading, ordered

# How many pairs of element and update may be looked at one by one
MOST_PAIRS = 1 << 22
BEYOND = 2**62  # no slot has so high a number
COMBINERS = {
    "add": (comp.SUM, "add"),
    "mul": (comp.PRODUCT, "mul"),
    "max": (comp.MAXIMUM, "max"),
    "min": (comp.MINIMUM, "min"),
}


@dataclass(frozen=True)
class Scatter:
    """``targets[*line, number]`` says which of the ``size`` slots of its line an update goes to.

    ``split`` takes an output position apart into line, slot and the place inside of what is
    updated at once; ``update(line, number, inner)`` is an element of an update, zero where the line
    has none.
    """

    data: Value
    targets: Value
    inner: tuple[int, ...]
    split: Callable[[Places], tuple[Places, Index, Places]]
    update: Callable[[Places, Index | Expr, Places], Expr]

    @property
    def number(self) -> int:
        return self.targets.shape[-1]

    @property
    def is_short(self) -> bool:
        return self.data.size * self.number <= MOST_PAIRS

    def hits(self, at: Places, number: Index) -> Expr:
        """Whether this update goes to this element."""
        line, slot, _ = self.split(at)
        return self.targets.at((*line, number), fill=-1).equals(value_of(slot))


def _scatter(steps: Steps, scatter: Scatter) -> tuple[Node, ...]:
    reduction = steps.node.attr("reduction", "none")
    if not scatter.number or not math.prod(scatter.targets.shape):
        steps.map(scatter.data.shape, lambda *at: scatter.data[at], to=0)
    elif scatter.is_short and reduction == "none":
        _overwrite(steps, scatter)
    elif scatter.is_short:
        _combine(steps, scatter, *COMBINERS[reduction])
    else:
        _scatter_sorted(steps, scatter, reduction)
    return steps.nodes()


def _overwrite(steps: Steps, scatter: Scatter) -> None:
    """The last update wins."""

    def latest(*at: Index) -> Expr:
        *place, number = at
        return select(scatter.hits(place, number), count(number), count(-1))

    def written(number: Expr, *at: Index) -> Expr:
        line, _, inner = scatter.split(at)
        return select(number < 0, scatter.data[at], scatter.update(line, number, inner))

    shape = scatter.data.shape
    steps.fold(comp.MAXIMUM, shape, (scatter.number,), latest, written, to=0)


def _combine(steps: Steps, scatter: Scatter, kind: str, function: str) -> None:
    data = scatter.data
    dtype = data.dtype.wide
    nothing = const(comp.identity(kind, dtype), dtype)

    def part(*at: Index) -> Expr:
        *place, number = at
        line, _, inner = scatter.split(place)
        value = scatter.update(line, number, inner).cast(dtype)
        return select(scatter.hits(place, number), value, nothing)

    def combined(total: Expr, *at: Index) -> Expr:
        return apply(function, data[at].cast(dtype), total)

    steps.fold(kind, data.shape, (scatter.number,), part, combined, to=0)


def _scatter_sorted(steps: Steps, scatter: Scatter, reduction: str) -> None:
    data, targets = scatter.data, scatter.targets
    *lines, number = targets.shape
    rank = len(lines)
    precedes = by_value(lambda line, position: targets[(*line, position)])
    order = ordered(steps, lines, number, precedes)
    keys = steps.map(targets.shape, lambda *at: targets[(*at[:rank], order[at])])

    def last(line: Places, slot: Index) -> Expr:
        """The last update that goes to this slot or one before it; -1 if there is none."""
        wanted = value_of(slot)
        return leading(number, lambda place: keys.at((*line, place), fill=BEYOND) <= wanted) - 1

    found: Callable[[Places], Expr]
    if scatter.inner:
        slots = data.rank - len(scatter.inner)
        zeros = (ix.constant(0),) * len(scatter.inner)
        places = steps.map(data.shape[:slots], lambda *at: last(*scatter.split((*at, *zeros))[:2]))

        def found(at: Places) -> Expr:
            return places[tuple(at[:slots])]
    else:

        def found(at: Places) -> Expr:
            return last(*scatter.split(at)[:2])

    if reduction != "none":
        totals = _totals(steps, scatter, order, keys, COMBINERS[reduction][1])

    def written(*at: Index) -> Expr:
        line, slot, inner = scatter.split(at)
        place = found(at)
        hit = (place >= 0) & keys.at((*line, place), fill=BEYOND).equals(value_of(slot))
        if reduction == "none":
            update = scatter.update(line, order.at((*line, place), fill=0), inner)
            return select(hit, update, data[at])
        total = totals.at((*line, place, *inner), fill=0)
        old = data[at].cast(total.dtype)
        return select(hit, apply(COMBINERS[reduction][1], old, total), old)

    steps.map(data.shape, written, to=0)


def _totals(steps: Steps, scatter: Scatter, order: Value, keys: Value, function: str) -> Value:
    """Each sorted update combined with all before it that have its target.

    What it combines doubles with each step: 1, 2, 4, ... neighbours.
    """
    *lines, number = keys.shape
    rank = len(lines)
    dtype = scatter.data.dtype.wide
    shape = (*lines, number, *scatter.inner)

    def first(*at: Index) -> Expr:
        line, place, inner = at[:rank], at[rank], at[rank + 1 :]
        return scatter.update(line, order[(*line, place)], inner).cast(dtype)

    totals = steps.map(shape, first)
    reach = 1
    while reach < number:
        totals = _doubled(steps, totals, keys, reach, function)
        reach *= 2
    return totals


def _doubled(steps: Steps, totals: Value, keys: Value, reach: int, function: str) -> Value:
    rank = keys.rank - 1

    def joined(*at: Index) -> Expr:
        line, place, inner = at[:rank], at[rank], at[rank + 1 :]
        mine = totals[at]
        earlier = totals.at((*line, place - reach, *inner), fill=0)
        same = keys.at((*line, place - reach), fill=-2).equals(keys[(*line, place)])
        return select(same, apply(function, earlier, mine), mine)

    return steps.map(totals.shape, joined)


def _counted_from_start(position: Expr, size: int) -> Expr:
    """A position that may count from the end; -1 if it lies outside."""
    wide = position.cast(DType.INT64)
    moved = select(wide < 0, wide + size, wide)
    return select((moved >= 0) & (moved < size), moved, const(-1, DType.INT64))


def _scatter_elements(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    data, indices, updates = (steps.given(slot) for slot in range(3))
    axis = node.attr("axis", 0) % data.rank

    def there(line: Places, number: Index | Expr) -> tuple[Index | Expr, ...]:
        return (*line[:axis], number, *line[axis:])

    lines = (*indices.shape[:axis], *indices.shape[axis + 1 :])
    targets = steps.map(
        (*lines, indices.shape[axis]),
        lambda *at: _counted_from_start(indices[there(at[:-1], at[-1])], data.shape[axis]),
    )
    return _scatter(
        steps,
        Scatter(
            data,
            targets,
            (),
            lambda at: ((*at[:axis], *at[axis + 1 :]), at[axis], ()),
            lambda line, number, inner: updates.at(there(line, number), fill=0),
        ),
    )


def _scatter_nd(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    data, indices, updates = (steps.given(slot) for slot in range(3))
    outer, depth = indices.shape[:-1], indices.shape[-1]
    strides = [math.prod(data.shape[axis + 1 : depth]) for axis in range(depth)]

    def target(number: Index) -> Expr:
        place = ix.unflatten(number, outer)
        result: Expr = const(0, DType.INT64)
        is_inside: Expr = const(True, DType.BOOL)
        for axis, stride in enumerate(strides):
            position = _counted_from_start(indices[(*place, axis)], data.shape[axis])
            result = result + position * stride
            is_inside = is_inside & (position >= 0)
        return select(is_inside, result, const(-1, DType.INT64))

    def update(line: Places, number: Index | Expr, inner: Places) -> Expr:
        flat = number if isinstance(number, Index) else ix.of(ix.Data(number, math.prod(outer)))
        return updates[(*ix.unflatten(flat, outer), *inner)]

    targets = steps.map((math.prod(outer),), target)
    scatter = Scatter(
        data,
        targets,
        data.shape[depth:],
        lambda at: ((), ix.flatten(tuple(at[:depth]), tuple(strides)), at[depth:]),
        update,
    )
    return _scatter(steps, scatter)


def _tensor_scatter(node: Node, graph: Graph) -> tuple[Node, ...]:
    """A run of positions along one axis, from a start of its own for each batch."""
    steps = Steps(node, graph)
    past, update, starts = steps.given(0), steps.given(1), steps.optional(2)
    axis = node.attr("axis", -2) % past.rank
    size, length = past.shape[axis], update.shape[axis]
    circular = node.attr("mode", "linear") == "circular"

    def element(*at: Index) -> Expr:
        start = const(0, DType.INT64) if starts is None else starts[at[0]].cast(DType.INT64)
        place = value_of(at[axis]) - start
        if circular:
            turns = apply("divide", place, const(size, DType.INT64))
            rest = place - turns * size
            place = select(rest < 0, rest + size, rest)
        new = update[(*at[:axis], place, *at[axis + 1 :])]
        return select((place >= 0) & (place < length), new, past[at])

    steps.map(past.shape, element, to=0)
    return steps.nodes()


def _refusing(beyond: Refusal) -> Refusal:
    def refuse(node: Node, graph: Graph) -> tuple[str, str] | None:
        reduction = node.attr("reduction", "none")
        if reduction == "none" or reduction in COMBINERS:
            return beyond(node, graph)
        return f"reduction {reduction!r} is not known", f"use none, {', '.join(COMBINERS)}"

    return refuse


register(Operator("ScatterElements", _scatter_elements, _refusing(elements_beyond)))
register(Operator("Scatter", _scatter_elements, _refusing(elements_beyond)))
register(Operator("ScatterND", _scatter_nd, _refusing(tuples_beyond)))
register(Operator("TensorScatter", _tensor_scatter))
