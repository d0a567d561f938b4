"""How a row computation goes through its rows: once for each fold and once for the result.

Output: stages, in order. What a stage has in common with later ones is worked out there and kept,
so that no later one reads or computes it again: the elements themselves, then their distances from
the mean, or the powers of a softmax.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, Fold
from ramforge.compiler.expressions.functions import function
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.expressions.terms import Apply, Expr, Load, Named

# What is kept of an element goes by this name.
ELEMENT = "e"


@dataclass(frozen=True, slots=True)
class Stage:
    """Once through the row, for a fold or, without one, for the result.

    ``value`` may read what is kept of an element. That is ``now`` from this stage on, which may
    read what was kept before; None if it stays as it is.
    """

    fold: Fold | None
    value: Expr
    now: Expr | None
    operations: int


def stages_of(
    computation: Computation, columns: Collection[Var], least_work: float = 0
) -> tuple[Stage, ...]:
    """``least_work`` is what makes a part worth keeping, in multiplications."""
    folds = (*computation.folds, None)
    left = [*(fold.value for fold in computation.folds), computation.value]
    kept: Expr | None = None
    stages = []
    for number, fold in enumerate(folds):
        now = _in_common(left[number:], columns, least_work)
        if now is not None and _can_follow(kept, now, left[number + 1 :]):
            kept = _named(now)
            left[number:] = [terms.rewrite(expr, parts={now: kept}) for expr in left[number:]]
        else:
            now = None
        stages.append(Stage(fold, left[number], now, _operations(left[number], now, columns)))
    return tuple(stages)


def _named(now: Expr) -> Expr:
    return terms.named(ELEMENT, now.dtype)


def _in_common(left: Sequence[Expr], columns: Collection[Var], least_work: float) -> Expr | None:
    """The largest part of the first of these expressions that a later one has as well."""
    later = {node for expr in left[1:] for node in expr.walk()}
    varying = varying_parts(left[0], columns)
    shared = {node for node in varying if node in later and isinstance(node, Apply | Load)}
    largest = max(shared, key=_weight, default=None)
    return None if largest is None or _work(largest) < least_work else largest


def _weight(expr: Expr) -> int:
    return sum(1 for _ in expr.walk())


def _work(expr: Expr) -> int:
    return sum(function(node.name).cost for node in expr.walk() if isinstance(node, Apply))


def _can_follow(kept: Expr | None, now: Expr, later: Sequence[Expr]) -> bool:
    """Whether nobody will need any more what is kept until now, and it has the same type."""
    if kept is None:
        return True
    rest = (terms.rewrite(expr, parts={now: terms.const(0, now.dtype)}) for expr in later)
    return kept.dtype is now.dtype and all(kept not in set(expr.walk()) for expr in rest)


def varying_parts(expr: Expr, columns: Collection[Var]) -> set[Expr]:
    """The parts that are not the same for a whole row."""
    found: set[Expr] = set()
    for node in expr.walk():
        places = {var for position in node.indices for var in ix.variables(position)}
        if (
            not places.isdisjoint(columns)
            or (isinstance(node, Named) and node.name == ELEMENT)
            or any(arg in found for arg in node.args)
            or any(inner in found for inner in terms.index_data(node))
        ):
            found.add(node)
    return found


def constant_parts(expr: Expr, columns: Collection[Var]) -> list[Expr]:
    """The largest parts that are worth working out once for a whole row."""
    varying = varying_parts(expr, columns)
    if expr not in varying:
        return [expr]
    found = (
        arg
        for node in expr.walk()
        if node in varying
        for arg in (*node.args, *terms.index_data(node))
    )
    return list(dict.fromkeys(a for a in found if a not in varying and isinstance(a, Apply | Load)))


def _operations(value: Expr, now: Expr | None, columns: Collection[Var]) -> int:
    """Of each element, in multiplications; one to combine."""
    parts = varying_parts(value, columns)
    if now is not None:
        parts |= varying_parts(now, columns)
    return 1 + sum(function(node.name).cost for node in parts if isinstance(node, Apply))
