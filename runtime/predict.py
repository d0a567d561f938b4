"""All that the compiler would try for a graph, kept apart: for those who compare plans.

Input: an optimised graph, output: a Search for each of the ways to cut it into rTasks.
``compile_graph`` takes the best plan of all of them.
"""

from __future__ import annotations

from ramforge.compiler.cost import CostModel
from ramforge.compiler.device import Target
from ramforge.compiler.ir import Graph
from ramforge.compiler.lower import Lowered
from ramforge.compiler.pipeline import attempts, search
from ramforge.compiler.schedule.policy import Policy
from ramforge.compiler.schedule.search import Scheduled, Search
from ramforge.compiler.schedule.selection import Rule


def searches(
    graph: Graph, target: Target, cost: CostModel, rule: Rule = Rule.SELECTED
) -> tuple[tuple[Lowered, Search], ...]:
    found = attempts(graph, target, cost, rule=rule)
    return tuple((lowered, search(lowered, cost)) for lowered in found)


def best(tried: tuple[Search, ...], policy: Policy) -> tuple[Search, Scheduled]:
    """The best plan of a policy, the first of equally good ones, and whose it is."""
    found = [(search, search.best((policy,))) for search in tried]
    return min(found, key=lambda pair: pair[1].timeline.makespan_ns)
