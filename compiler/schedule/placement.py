"""What every policy needs: who depends on whom, and which vEU takes how many tasks."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import networkx as nx

from ramforge.compiler.rprogram import ROperator


def dependencies(operators: Sequence[ROperator]) -> nx.DiGraph:
    """The graph of rOperators, an edge from the writer of a tensor to each reader. Computed, never
    declared.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(operators)))
    writer: dict[str, int] = {}
    for number, operator in enumerate(operators):
        for name in operator.variant.reads:
            if name in writer:
                graph.add_edge(writer[name], number)
        for name in operator.variant.writes:
            writer[name] = number
    return graph


def levels(operators: Sequence[ROperator]) -> list[list[int]]:
    """The breadth-first fringes: every operator as early as what it reads allows."""
    fringes = nx.topological_generations(dependencies(operators))
    return [sorted(fringe) for fringe in fringes]


def place(tasks: int, cost_ns: float, ready: list[float]) -> list[tuple[int, int, int]]:
    """Give tasks to the vEUs that can start earliest; (vEU, first task, count) for each that got
    some.

    ``ready`` is when each vEU is free, and is brought up to date. A vEU's tasks are neighbours.
    """
    counts = [0] * len(ready)
    whole, _ = divmod(tasks, len(ready))
    if whole > 1 and max(ready) == min(ready):  # all alike: no need to place one by one
        counts = [whole] * len(ready)
        tasks -= whole * len(ready)
        for unit in range(len(ready)):
            ready[unit] += whole * cost_ns
    queue = [(time, unit) for unit, time in enumerate(ready)]
    heapq.heapify(queue)
    for _ in range(tasks):
        time, unit = heapq.heappop(queue)
        counts[unit] += 1
        ready[unit] = time + cost_ns
        heapq.heappush(queue, (ready[unit], unit))
    placed, first = [], 0
    for unit, count in enumerate(counts):
        if count:
            placed.append((unit, first, count))
            first += count
    return placed
