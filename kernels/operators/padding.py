"""Pad in all modes, and CenterCropPad: each element is one of the input's, or the fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Place, Steps, Value
from ramforge.compiler.expressions.terms import (
    Expr,
    apply,
    conjunction,
    const,
    larger,
    select,
    smaller,
    value_of,
)
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.declared import output_sizes
from ramforge.kernels.operators.listed import Listed, are_known, other_shape
from ramforge.kernels.operators.movement import constant_input


@dataclass(frozen=True, slots=True)
class Span:
    """One axis: ``size`` elements are left after cropping, from ``first`` on; they come after
    ``before`` elements of padding.
    """

    first: int
    size: int
    before: int

    def reflected(self, place: Index) -> Place:
        period = 2 * (self.size - 1)
        if period <= 0:
            return self.first
        turn = (place - self.before) % period
        back = turn * -1 + period
        return smaller(value_of(turn), value_of(back)) + self.first

    def nearest(self, place: Index) -> Place:
        inner = larger(value_of(place - self.before), 0)
        return smaller(inner, self.size - 1) + self.first

    def around(self, place: Index) -> Place:
        return (place - self.before) % self.size + self.first


_PLACES: dict[str, Callable[[Span, Index], Place]] = {
    "reflect": Span.reflected,
    "edge": Span.nearest,
    "wrap": Span.around,
}


def _pads(node: Node, graph: Graph) -> list[tuple[int, int]]:
    """What to add before and after each axis."""
    rank = len(graph.tensor(node.inputs[0]).shape)
    amounts, axes = constant_input(node, graph, 1), constant_input(node, graph, 3)
    assert amounts is not None
    chosen = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    pads = [(0, 0)] * rank
    for number, axis in enumerate(chosen):
        pads[axis] = (int(amounts[number]), int(amounts[number + len(chosen)]))
    return pads


def _spans(node: Node, graph: Graph) -> list[Span]:
    shape = graph.tensor(node.inputs[0]).shape
    return [
        Span(max(0, -before), size + min(0, before) + min(0, after), max(0, before))
        for (before, after), size in zip(_pads(node, graph), shape, strict=True)
    ]


class _ReadSpan:
    """The same, read at run time."""

    def __init__(self, listed: Listed, pads: Value, axis: int, size: int, count: int) -> None:
        before, after = (listed.number(pads, axis, 0, start) for start in (0, count))
        self._before, self._length = before, before + after + size
        self._first = larger(-before, 0)
        self._size = smaller(before, 0) + smaller(after, 0) + size
        self._source = size

    def place(self, mode: str, at: Index) -> Expr:
        place = value_of(at) - self._before
        if mode == "constant":
            return place
        inner = place - self._first  # counted from the first element that is left
        if mode == "edge":
            return larger(smaller(inner, self._size - 1), 0) + self._first
        if mode == "wrap":
            return apply("modulo", inner, larger(self._size, 1)) + self._first
        period = larger((self._size - 1) * 2, 1)
        turn = apply("modulo", inner, period)
        return smaller(turn, period - turn) + self._first

    def holds(self, place: Expr) -> Expr:
        return (place >= 0) & (place < self._source)

    def fits(self, mode: str, size: int) -> Expr:
        """Whether so many elements come out; what is repeated has to be there."""
        checks = [self._length.equals(size)]
        if mode != "constant" and size:
            checks.append(self._size > 0)
        return conjunction(checks)


def _read_pad(steps: Steps, mode: str) -> tuple[Node, ...]:
    x, pads, fill, axes = steps.given(0), steps.given(1), steps.optional(2), steps.optional(3)
    count = pads.size // 2
    listed, shape = Listed(axes, count, x.rank), steps.shape()
    spans = [_ReadSpan(listed, pads, axis, size, count) for axis, size in enumerate(x.shape)]
    outside = const(0, x.dtype) if fill is None else fill.at((0,) * fill.rank)

    def element(*at: Index) -> Expr:
        places = [span.place(mode, place) for span, place in zip(spans, at, strict=True)]
        value = x.at(places)
        if mode != "constant":
            return value
        checks = [span.holds(place) for span, place in zip(spans, places, strict=True)]
        return select(conjunction(checks), value, outside)

    steps.map(shape, element, to=0)
    steps.check(
        (),
        lambda: conjunction(
            [listed.fits(), *(s.fits(mode, n) for s, n in zip(spans, shape, strict=True))]
        ),
        other_shape(steps),
    )
    return steps.nodes()


def _pad(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    mode = node.attr("mode", "constant")
    if not are_known(steps.given(1), steps.optional(3)):
        return _read_pad(steps, mode)
    if mode == "constant":
        return _with_fill(steps, [before for before, _ in _pads(node, graph)])
    x = steps.given(0)
    find, pads, spans = _PLACES[mode], _pads(node, graph), _spans(node, graph)

    def element(*at: Index) -> Expr:
        return x.at(
            [
                find(span, place) if before or after else place
                for place, span, (before, after) in zip(at, spans, pads, strict=True)
            ]
        )

    steps.map(steps.shape(), element, to=0)
    return steps.nodes()


def _with_fill(steps: Steps, before: list[int]) -> tuple[Node, ...]:
    """The input after this much of the constant; what is missing at the end is the constant too."""
    x, fill = steps.given(0), steps.optional(2)

    def element(*at: Index) -> Expr:
        places = [place - begin for place, begin in zip(at, before, strict=True)]
        if fill is None or fill.known is not None:
            literal = 0 if fill is None or fill.known is None else fill.known.reshape(()).item()
            return x.at(places, literal)
        checks = [terms.inside(place, 0, size) for place, size in zip(places, x.shape, strict=True)]
        return select(conjunction(checks), x.at(places, 0), fill.at([0] * fill.rank))

    steps.map(steps.shape(), element, to=0)
    return steps.nodes()


def _refuse_pad(node: Node, graph: Graph) -> tuple[str, str] | None:
    mode = node.attr("mode", "constant")
    if mode == "constant":
        return None
    if mode not in _PLACES:
        return f"there is no mode {mode!r}", "use constant, reflect, edge or wrap"
    if any(name and name not in graph.constants for name in (*node.inputs[1:2], *node.inputs[3:])):
        return None  # a run checks it
    if graph.tensor(node.outputs[0]).size and any(span.size <= 0 for span in _spans(node, graph)):
        return "there is nothing left to repeat", "pad with a constant, or crop less"
    return None


def _center(node: Node, graph: Graph) -> tuple[Node, ...]:
    """Half of what is too much goes on either side, the odd one on the right."""
    steps = Steps(node, graph)
    sizes = zip(steps.given(0).shape, steps.shape(), strict=True)
    before = [(new - old) // 2 if new > old else -((old - new) // 2) for old, new in sizes]
    return _with_fill(steps, before)


register(Operator("Pad", _pad, _refuse_pad, reads=(1, 3)))
register(Operator("CenterCropPad", _center, needs={1: output_sizes}))
