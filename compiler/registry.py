"""The table of operators: everything the compiler knows about an operator, declared in one place.

Each module of ``ramforge.kernels`` adds its entries when it is imported; nothing else in the
compiler asks for an operator by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ramforge.compiler.device import Target
    from ramforge.compiler.expressions.placed import Placed
    from ramforge.compiler.ir import Graph, Node
    from ramforge.compiler.rprogram import Candidate

Express = Callable[["Node", "Graph"], "tuple[Node, ...]"]
Refusal = Callable[["Node", "Graph"], "tuple[str, str] | None"]


def _never(node: Node, graph: Graph) -> tuple[str, str] | None:
    return None


@dataclass(frozen=True, slots=True)
class Operator:
    """An ONNX operator.

    ``express`` rewrites a node into single-output nodes that carry a computation; ``refuse`` gives
    (reason, fix) for a node this entry cannot do. ``like_input`` says that the first output has the
    type and shape of the first input, for operators of which onnx's shape inference says nothing.
    """

    name: str
    express: Express
    refuse: Refusal = _never
    like_input: bool = False


# For each element of an operand the numbers that it may be; the first one is taken.
Accepted = Sequence[Sequence[int]]
Solve = Callable[["Node", "Graph", int], "Accepted | None"]

# The node that compares an operand of run time with these numbers, and its attribute.
CHECK_OPERAND, ACCEPTED = "ramforge.CheckOperand", "accepted"

_SOLVERS: dict[str, tuple[int, Solve]] = {}
_OPERATORS: dict[str, Operator] = {}


def register_solver(name: str, slot: int, solve: Solve) -> None:
    """Say how an operator's declared output shape gives the value of the operand in ``slot``."""
    if name in _SOLVERS:
        raise ValueError(f"operator {name} has two solvers")
    _SOLVERS[name] = (slot, solve)


def find_solver(name: str) -> tuple[int, Solve] | None:
    return _SOLVERS.get(name)


def register(operator: Operator) -> Operator:
    """Add an operator; a second entry of the same name is a mistake."""
    if operator.name in _OPERATORS:
        raise ValueError(f"operator {operator.name} is registered twice")
    _OPERATORS[operator.name] = operator
    return operator


def find(name: str) -> Operator | None:
    """The entry of an operator, or None."""
    return _OPERATORS.get(name)


def names() -> tuple[str, ...]:
    """Every operator, sorted."""
    return tuple(sorted(_OPERATORS))


@dataclass(frozen=True, slots=True)
class Family:
    """A kernel family: the kinds of computation it carries out, as designs to choose from.

    Families are asked in the order of ``rank``; the first that ``fits`` carries it out.
    """

    name: str
    rank: int
    fits: Callable[[Placed], bool]
    candidates: Callable[[Placed, Target], tuple[Candidate, ...]]


_FAMILIES: dict[str, Family] = {}


def register_family(family: Family) -> Family:
    if family.name in _FAMILIES:
        raise ValueError(f"kernel family {family.name} is registered twice")
    _FAMILIES[family.name] = family
    return family


def families() -> tuple[Family, ...]:
    """Every family, the most special first."""
    return tuple(sorted(_FAMILIES.values(), key=lambda family: family.rank))


@functools.lru_cache(maxsize=8192)
def family_of(placed: Placed) -> Family:
    """The family that carries out a computation."""
    for family in families():
        if family.fits(placed):
            return family
    raise AssertionError(f"no kernel family fits {placed.computation}")


@functools.lru_cache(maxsize=8192)
def candidates_of(placed: Placed, target: Target) -> tuple[Candidate, ...]:
    """The designs that its family offers."""
    return family_of(placed).candidates(placed, target)
