"""The wave policy (the paper's Algorithm 1 in its first form): every fringe is a wave, all in one
launch.

Within a wave rTasks of all its operators are packed on the vEUs that can start earliest. Between
two waves stands a barrier: a counter that every vEU with work in the one wave signals and every vEU
with work in the next one awaits.
"""

from __future__ import annotations

from ramforge.compiler.cost import CostModel
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import VDevice
from ramforge.compiler.rprogram import (
    Entry,
    Launch,
    Plan,
    Prefetch,
    ROperator,
    Run,
    Signal,
    Wait,
)
from ramforge.compiler.schedule.placement import levels, place


def waves(operators: tuple[ROperator, ...], device: VDevice) -> Plan:
    lanes: list[list[Entry]] = [[] for _ in range(device.units)]
    steps = [0] * len(operators)
    fringes = levels(operators)
    rank = 0
    signals = 0
    for wave, fringe in enumerate(fringes):
        work = _pack(operators, fringe, device)
        is_last = wave == len(fringes) - 1
        rank_of = {operator: rank + 2 + place for place, operator in enumerate(fringe)}
        for unit, runs in work.items():
            lane = lanes[unit]
            first_operator = runs[0][0]
            if wave:
                if operators[first_operator].variant.body.prefetch:
                    lane.append(Prefetch(rank, *runs[0]))
                lane.append(Wait(rank + 1, wave - 1, signals))
            for operator, first, count in runs:
                lane.append(Run(rank_of[operator], operator, first, count))
            if not is_last:
                lane.append(Signal(rank + 2 + len(fringe), wave))
        for operator in fringe:
            steps[operator] = wave
        signals = len(work)
        rank += 3 + len(fringe)
    launch = Launch(
        tuple(tuple(lane) for lane in lanes),
        device.threads,
        device.blocks_per_sm,
        device.arena_bytes,
        max(0, len(fringes) - 1),
    )
    return Plan("waves", (launch,), tuple(steps))


def _pack(
    operators: tuple[ROperator, ...], fringe: list[int], device: VDevice
) -> dict[int, list[tuple[int, int, int]]]:
    """(operator, first task, count) for each vEU with work in this wave, in the fringe's order."""
    cost: CostModel = AnalyticCost()
    ready = [0.0] * device.units
    total = sum(operators[number].tasks for number in fringe)
    work: dict[int, list[tuple[int, int, int]]] = {}
    for number in fringe:
        variant = operators[number].variant
        task_ns = cost.task_ns(variant.cost, device, min(total, device.units))
        for unit, first, count in place(variant.tasks, task_ns, ready):
            work.setdefault(unit, []).append((number, first, count))
    return dict(sorted(work.items()))
