"""What a policy is: a way to arrange rOperators on vEUs, and a way to keep them in order there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ramforge.compiler.cost import CostModel
from ramforge.compiler.plan import Plan
from ramforge.compiler.rprogram import ROperator
from ramforge.compiler.schedule.arrangement import Arrangement, Stage

Operators = Sequence[ROperator]
# For an rOperator those that have to be over before it may write, because its output takes the
# place in memory of something that they use.
Conflicts = Mapping[int, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Policy:
    """One way to schedule: ``arrange`` puts the rTasks of each stage on its vEUs, ``synchronise``
    makes the Plan.

    ``is_alone``: every rOperator is a launch of its own.
    """

    name: str
    summary: str
    arrange: Callable[[Operators, tuple[Stage, ...], CostModel], Arrangement]
    synchronise: Callable[[Operators, Arrangement, Conflicts], Plan]
    is_alone: bool = False
