"""Integer index arithmetic in one canonical form: a sum of coefficient times atom, plus a constant.

An atom is a loop variable, a quotient, a remainder, or an integer read from a tensor. Sums are
sorted and like terms merged when they are made, and quotients and remainders are simplified by the
ranges of what is in them; so a reshape of a reshape is again plain variables, and two equal indices
are equal objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ramforge.compiler.expressions.terms import Expr

Bounds = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Var:
    """A loop variable, 0 <= name < size."""

    name: str
    size: int

    @property
    def key(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class FloorDiv:
    """The quotient of a sum by a positive constant, rounded down."""

    operand: Index
    divisor: int

    @property
    def key(self) -> str:
        return f"({self.operand.key}/{self.divisor})"


@dataclass(frozen=True, slots=True)
class Mod:
    """The remainder that goes with ``FloorDiv``, never negative."""

    operand: Index
    divisor: int

    @property
    def key(self) -> str:
        return f"({self.operand.key}%{self.divisor})"


@dataclass(frozen=True, slots=True)
class Data:
    """An integer that is read at run time (Gather); its value lies in 0 <= value < size."""

    expr: Expr
    size: int

    @property
    def key(self) -> str:
        return f"data:{self.expr.key}"


Atom = Var | FloorDiv | Mod | Data
Term = tuple[Atom, int]


@dataclass(frozen=True, slots=True)
class Index:
    """``sum(coefficient * atom) + const``, terms sorted by the atoms' keys."""

    terms: tuple[Term, ...]
    const: int = 0

    @property
    def key(self) -> str:
        parts = [f"{coefficient}*{atom.key}" for atom, coefficient in self.terms]
        return "+".join([*parts, str(self.const)])

    @property
    def is_const(self) -> bool:
        return not self.terms

    def __add__(self, other: Index | int) -> Index:
        if isinstance(other, int):
            return Index(self.terms, self.const + other)
        return total((*self.terms, *other.terms), self.const + other.const)

    def __sub__(self, other: Index | int) -> Index:
        return self + (-other if isinstance(other, int) else other * -1)

    def __mul__(self, factor: int) -> Index:
        if factor == 0:
            return Index(())
        return Index(tuple((atom, c * factor) for atom, c in self.terms), self.const * factor)

    def __floordiv__(self, divisor: int) -> Index:
        return _quotient(self, divisor)

    def __mod__(self, divisor: int) -> Index:
        return _remainder(self, divisor)

    def coefficient(self, atom: Atom) -> int:
        return next((c for candidate, c in self.terms if candidate == atom), 0)


def constant(value: int) -> Index:
    return Index((), value)


def of(atom: Atom) -> Index:
    """The index that is just this atom; a variable of one value is the constant zero."""
    if isinstance(atom, Var) and atom.size == 1:
        return constant(0)
    return Index(((atom, 1),))


def wrapped(position: int, size: int) -> int:
    """What ``Data`` makes of an integer: negative counts from the end, none leaves the tensor."""
    return min(max(position + size if position < 0 else position, 0), size - 1)


def total(terms: tuple[Term, ...], const: int) -> Index:
    """The canonical sum of these terms."""
    merged: dict[Atom, int] = {}
    for atom, coefficient in terms:
        merged[atom] = merged.get(atom, 0) + coefficient
    merged = {atom: coefficient for atom, coefficient in merged.items() if coefficient}
    rejoined = _rejoin(merged)
    if rejoined is not None:
        return total(rejoined, const)
    return Index(tuple(sorted(merged.items(), key=lambda term: term[0].key)), const)


def _rejoin(merged: Mapping[Atom, int]) -> tuple[Term, ...] | None:
    """Turn ``c*B*(x // B) + c*(x % B)`` back into ``c*x``; None if there is no such pair."""
    for atom, coefficient in merged.items():
        if not isinstance(atom, Mod):
            continue
        quotient = atom.operand // atom.divisor
        if len(quotient.terms) != 1 or quotient.const or quotient.terms[0][1] != 1:
            continue
        partner = quotient.terms[0][0]
        if merged.get(partner) != coefficient * atom.divisor:
            continue
        rest = tuple((a, c) for a, c in merged.items() if a not in (atom, partner))
        if atom.operand.const:
            continue
        return (*rest, *((a, c * coefficient) for a, c in atom.operand.terms))
    return None


def _quotient(index: Index, divisor: int) -> Index:
    assert divisor > 0
    if divisor == 1:
        return index
    whole = tuple((a, c // divisor) for a, c in index.terms if c % divisor == 0)
    rest = Index(tuple((a, c) for a, c in index.terms if c % divisor), index.const % divisor)
    outside = total(whole, index.const // divisor)
    low, high = bounds(rest)
    if low >= 0 and high < divisor:
        return outside
    common = math.gcd(divisor, *(c for _, c in rest.terms))
    if common > 1:
        smaller = Index(tuple((a, c // common) for a, c in rest.terms), rest.const // common)
        return outside + _quotient(smaller, divisor // common)
    parts = _in_steps(rest, divisor)
    if parts is not None:
        return outside + _quotient(parts.steps, divisor // parts.size)
    if len(rest.terms) == 1 and not rest.const and rest.terms[0][1] == 1:
        inner = rest.terms[0][0]
        if isinstance(inner, FloorDiv):
            return outside + _quotient(inner.operand, inner.divisor * divisor)
    return outside + Index(((FloorDiv(rest, divisor), 1),))


@dataclass(frozen=True, slots=True)
class _Steps:
    """``size * steps + within``, where ``within`` never reaches a whole step."""

    steps: Index
    within: Index
    size: int


def _in_steps(index: Index, divisor: int) -> _Steps | None:
    """An index in steps of which the divisor is a multiple; None if there are none."""
    for _, size in index.terms:
        if size <= 1 or divisor % size:
            continue
        within = Index(tuple((a, c) for a, c in index.terms if c % size), index.const % size)
        low, high = bounds(within)
        if low >= 0 and high < size:
            whole = tuple((a, c // size) for a, c in index.terms if c % size == 0)
            return _Steps(Index(whole, index.const // size), within, size)
    return None


def _remainder(index: Index, divisor: int) -> Index:
    assert divisor > 0
    if divisor == 1:
        return constant(0)
    rest = Index(tuple((a, c) for a, c in index.terms if c % divisor), index.const % divisor)
    low, high = bounds(rest)
    if low >= 0 and high < divisor:
        return rest
    common = math.gcd(divisor, *(c for _, c in rest.terms))
    if common > 1 and rest.const % common == 0:
        smaller = Index(tuple((a, c // common) for a, c in rest.terms), rest.const // common)
        return _remainder(smaller, divisor // common) * common
    parts = _in_steps(rest, divisor)
    if parts is not None:
        return _remainder(parts.steps, divisor // parts.size) * parts.size + parts.within
    if len(rest.terms) == 1 and not rest.const and rest.terms[0][1] == 1:
        inner = rest.terms[0][0]
        if isinstance(inner, Mod) and inner.divisor % divisor == 0:
            return _remainder(inner.operand, divisor)
    return Index(((Mod(rest, divisor), 1),))


def bounds(index: Index, ranges: Mapping[Var, Bounds] | None = None) -> Bounds:
    """The least and the greatest value, with the variables in ``ranges`` held to theirs."""
    low = high = index.const
    for atom, coefficient in index.terms:
        first, last = _atom_bounds(atom, ranges)
        low += coefficient * (first if coefficient > 0 else last)
        high += coefficient * (last if coefficient > 0 else first)
    return low, high


def _atom_bounds(atom: Atom, ranges: Mapping[Var, Bounds] | None) -> Bounds:
    if isinstance(atom, Var):
        return ranges[atom] if ranges and atom in ranges else (0, atom.size - 1)
    if isinstance(atom, Data):
        return 0, atom.size - 1
    low, high = bounds(atom.operand, ranges)
    if isinstance(atom, FloorDiv):
        return low // atom.divisor, high // atom.divisor
    if low // atom.divisor == high // atom.divisor:
        return low % atom.divisor, high % atom.divisor
    return 0, atom.divisor - 1


def rewrite(index: Index, change: Callable[[Var | Data], Index]) -> Index:
    """Put another index in the place of each variable and each run-time integer."""
    result = constant(index.const)
    for atom, coefficient in index.terms:
        if isinstance(atom, FloorDiv):
            part = rewrite(atom.operand, change) // atom.divisor
        elif isinstance(atom, Mod):
            part = rewrite(atom.operand, change) % atom.divisor
        else:
            part = change(atom)
        result = result + part * coefficient
    return result


def variables(index: Index) -> set[Var]:
    """The loop variables of an index, also those inside quotients and run-time integers."""
    found: set[Var] = set()
    for atom, _ in index.terms:
        if isinstance(atom, Var):
            found.add(atom)
        elif isinstance(atom, Data):
            found.update(atom.expr.variables())
        else:
            found.update(variables(atom.operand))
    return found


def own_variables(index: Index) -> set[Var]:
    """The loop variables of an index, without those inside run-time integers."""
    found: set[Var] = set()
    for atom, _ in index.terms:
        if isinstance(atom, Var):
            found.add(atom)
        elif not isinstance(atom, Data):
            found.update(own_variables(atom.operand))
    return found


def flatten(index: tuple[Index, ...], strides: tuple[int, ...]) -> Index:
    """The offset in elements of a position in a tensor with these strides."""
    result = constant(0)
    for position, stride in zip(index, strides, strict=True):
        result = result + position * stride
    return result


def unflatten(offset: Index, shape: tuple[int, ...]) -> tuple[Index, ...]:
    """The row-major position of an offset; the inverse of ``flatten`` with row-major strides."""
    positions: list[Index] = []
    step = math.prod(shape)
    for axis, size in enumerate(shape):
        step = step // size if size else step
        position = offset // step if step else constant(0)
        positions.append(position if axis == 0 else position % size)
    return tuple(positions)
