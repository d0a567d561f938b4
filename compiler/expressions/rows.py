"""Rows: maps that know something of their whole row.

Input: a computation of a row kind. ``as_row`` writes a softmax out as folds; ``as_softmax`` finds
one that was spelled out.
"""

from __future__ import annotations

from dataclasses import replace

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, Fold
from ramforge.compiler.expressions.terms import Expr


def softmax_folds(value: Expr) -> tuple[Fold, Fold]:
    """The largest element of a row, and the sum of all powers over its power."""
    peak = Fold("s0", comp.MAXIMUM, value)
    return peak, Fold("s1", comp.SUM, terms.apply("exp", value - peak.known))


def as_row(computation: Computation) -> Computation:
    """The same with nothing but folds and the value of an element."""
    if computation.finish is None and computation.kind == comp.ROW:
        return computation
    folds, value = computation.folds, computation.value
    if computation.kind == comp.SOFTMAX:
        folds = softmax_folds(value)
        value = folds[1].value * (1 / folds[1].known)
    whole = terms.rewrite(computation.result, filled=value)
    return replace(computation, kind=comp.ROW, value=whole, finish=None, folds=folds)


def as_softmax(computation: Computation) -> Computation:
    """A row that is a softmax, with something done to it, as one that is called so."""
    if computation.kind != comp.ROW or len(computation.folds) != 2:
        return computation
    value = computation.folds[0].value
    wanted = softmax_folds(value)
    if computation.folds != wanted or not value.dtype.is_float:
        return computation
    total, power = wanted[1].known, wanted[1].value
    hole = terms.hole(value.dtype)
    shares = {power / total: hole, power * (1 / total): hole}
    finish = terms.rewrite(as_row(computation).value, parts=shares)
    if any(isinstance(node, terms.Named) for node in finish.walk()):
        return computation
    return replace(computation, kind=comp.SOFTMAX, value=value, folds=(), finish=finish)
