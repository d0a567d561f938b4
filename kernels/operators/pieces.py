"""Many tensors as one along a new outer axis, a few at a time.

A single map over all of them would look through every one for each element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr

MOST = 16
Formula = Callable[..., Expr]


@dataclass(frozen=True, slots=True)
class Piece:
    """``count`` neighbours along the outer axis; ``formula`` gets the place in the piece, which may
    lie outside of it where nobody looks at the result, and the other indices.
    """

    count: int
    formula: Formula


def stacked(steps: Steps, pieces: Sequence[Piece], shape: Sequence[int]) -> Formula:
    """The element of all pieces together at (outer, other indices); ``shape`` is that of one."""
    while len(pieces) > MOST:
        pieces = [
            _stored(steps, pieces[first : first + MOST], shape)
            for first in range(0, len(pieces), MOST)
        ]
    return _chosen(pieces)


def _stored(steps: Steps, pieces: Sequence[Piece], shape: Sequence[int]) -> Piece:
    count = sum(piece.count for piece in pieces)
    value = steps.map((count, *shape), _chosen(pieces))
    return Piece(count, _reader(value))


def _reader(value: Value) -> Formula:
    return lambda *places: value.at(places, fill=0)


def _chosen(pieces: Sequence[Piece]) -> Formula:
    starts = [sum(piece.count for piece in pieces[:number]) for number in range(len(pieces))]

    def formula(outer: Index, *places: Index) -> Expr:
        value: Expr | None = None
        for start, piece in reversed(list(zip(starts, pieces, strict=True))):
            part = piece.formula(outer - start, *places)
            inside = terms.inside(outer, 0, start + piece.count)
            value = part if value is None else terms.select(inside, part, value)
        assert value is not None, "nothing to stack"
        return value

    return formula
