"""The table of operators: everything the compiler knows about an operator, declared in one place.

Each module of ``ramforge.kernels`` adds its entries when it is imported; nothing else in the
compiler asks for an operator by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ramforge.compiler.device import Target
    from ramforge.compiler.expressions.placed import Placed
    from ramforge.compiler.ir import Graph, Node
    from ramforge.compiler.rprogram import Candidate

Express = Callable[["Node", "Graph"], "tuple[Node, ...]"]
Refusal = Callable[["Node", "Graph"], "tuple[str, str] | None"]


def never(node: Node, graph: Graph) -> tuple[str, str] | None:
    """Nothing is refused."""
    return None


@dataclass(frozen=True, slots=True)
class Told:
    """A value of an operand that the shapes of the node's outputs allow.

    It is taken if every place finds one of its ``choices`` in the operand: in the element of the
    same number, or with ``anywhere`` in any element; a place without choices takes everything.
    Values of one ``meaning`` make the same outputs.
    """

    value: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    anywhere: bool = False
    meaning: object = None


Solve = Callable[["Node", "Graph", int], Sequence[Told]]

# Nodes that compare an operand of run time with the values told of it, by meaning (WAYS): how many
# places find none of their choices; and the tensor that belongs to the meaning that fits.
COMPARE, CHOOSE, WAYS = "ramforge.Compare", "ramforge.Choose", "ways"


def untold(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    """No shape says what such an operand is."""
    return ()


@dataclass(frozen=True, slots=True)
class Operator:
    """An ONNX operator.

    ``express`` rewrites a node into single-output nodes that carry a computation; ``refuse`` gives
    (reason, fix) for a node this entry cannot do. ``needs`` are the operands that have to be known
    at compile time, each with what the shapes of the outputs tell about it; ``reads`` are others
    that decide a shape, which ``express`` can read at run time where that shape is declared.
    ``like_input`` says that the first output has the type and shape of the first input, for
    operators of which onnx's shape inference says nothing.
    """

    name: str
    express: Express
    refuse: Refusal = never
    needs: Mapping[int, Solve] = field(default_factory=dict)
    reads: tuple[int, ...] = ()
    like_input: bool = False

    @property
    def deciding(self) -> tuple[int, ...]:
        """The operands that decide a shape."""
        return (*self.needs, *self.reads)


_OPERATORS: dict[str, Operator] = {}


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
def _family_for(placed: Placed) -> Family | None:
    return next((family for family in families() if family.fits(placed)), None)


def can_do(placed: Placed) -> bool:
    """Whether there is a family for it: there is for any map, fold and row, but not for all that a
    pass might think of.
    """
    return _family_for(placed) is not None


def family_of(placed: Placed) -> Family:
    """The family that carries out a computation."""
    family = _family_for(placed)
    assert family is not None, f"no kernel family fits {placed.computation}"
    return family


@functools.lru_cache(maxsize=8192)
def candidates_of(placed: Placed, target: Target) -> tuple[Candidate, ...]:
    """The designs that its family offers."""
    return family_of(placed).candidates(placed, target)
