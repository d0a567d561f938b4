"""Operands that list numbers for some of the axes, read at run time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, conjunction, const, select
from ramforge.compiler.ir import DType, Node


class Listed:
    """Lists of one number for each axis, or for those that another operand names."""

    def __init__(self, axes: Value | None, count: int, rank: int) -> None:
        self._axes, self._count, self._rank = axes, count, rank

    def number(self, values: Value | None, axis: int, default: int, start: int = 0) -> Expr:
        """The one for this axis, of the list that begins at ``start``."""
        found = integer(default)
        if values is not None:
            for place in range(self._count):
                value = values[place + start].cast(DType.INT64)
                found = select(self._is_for(place, axis), value, found)
        return found

    def fits(self) -> Expr:
        """Whether every axis that is named is there, and named once."""
        if self._axes is None:
            return const(True, DType.BOOL)
        named = [self._axes[place].cast(DType.INT64) for place in range(self._count)]
        inside = [(axis >= -self._rank) & (axis < self._rank) for axis in named]
        counted = [select(axis < 0, axis + self._rank, axis) for axis in named]
        differ = [~first.equals(other) for first, other in itertools.combinations(counted, 2)]
        return conjunction([*inside, *differ])

    def _is_for(self, place: int, axis: int) -> Expr:
        if self._axes is None:
            return const(place == axis, DType.BOOL)
        named = self._axes[place].cast(DType.INT64)
        return named.equals(axis) | named.equals(axis - self._rank)


def integer(value: int) -> Expr:
    return const(value, DType.INT64)


def are_known(*values: Value | None) -> bool:
    return all(value is None or value.known is not None for value in values)


def other_shape(steps: Steps) -> str:
    """What to say if operands of run time do not ask for the shape that was declared."""
    node: Node = steps.node
    shape: Sequence[int] = steps.shape()
    return (
        f"{node.op} {node.origin[0]!r}: its operands ask for another shape than the declared "
        f"{'x'.join(map(str, shape))}\n    fix: give operands for this shape, or compile for "
        "others (--bind)"
    )
