"""Pad in all modes, and CenterCropPad: each element is one of the input's, or the fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Place, Steps
from ramforge.compiler.expressions.terms import Expr, larger, smaller, value_of
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.movement import constant_input, constants_needed


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


def _pad(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    mode = node.attr("mode", "constant")
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
        return terms.select(terms.conjunction(checks), x.at(places, 0), fill.at([0] * fill.rank))

    steps.map(steps.shape(), element, to=0)
    return steps.nodes()


def _refuse_pad(node: Node, graph: Graph) -> tuple[str, str] | None:
    unknown = constants_needed(1, 3)(node, graph)
    mode = node.attr("mode", "constant")
    if unknown or mode == "constant":
        return unknown
    if mode not in _PLACES:
        return f"there is no mode {mode!r}", "use constant, reflect, edge or wrap"
    if graph.tensor(node.outputs[0]).size and any(span.size <= 0 for span in _spans(node, graph)):
        return "there is nothing left to repeat", "pad with a constant, or crop less"
    return None


def _center(node: Node, graph: Graph) -> tuple[Node, ...]:
    """Half of what is too much goes on either side, the odd one on the right."""
    steps = Steps(node, graph)
    sizes = zip(steps.given(0).shape, steps.shape(), strict=True)
    before = [(new - old) // 2 if new > old else -((old - new) // 2) for old, new in sizes]
    return _with_fill(steps, before)


register(Operator("Pad", _pad, _refuse_pad))
register(Operator("CenterCropPad", _center, constants_needed(1)))
