"""The wave policy, the paper's Algorithm 1: every fringe of ready rOperators is a wave, with a
barrier behind it.

Within a wave the rTasks of all its rOperators are packed on the vEUs that can start earliest. The
barrier is an event: a unit for each lane with work in the one wave, awaited by every lane with work
in the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ramforge.compiler.cost import CostModel
from ramforge.compiler.expressions.regions import Ints
from ramforge.compiler.plan import Events, Kind, Launch, Part, Plan, compress
from ramforge.compiler.rprogram import ROperator
from ramforge.compiler.schedule.arrangement import Arrangement, Share, Stage, place
from ramforge.compiler.schedule.policy import Conflicts, Operators, Policy
from ramforge.compiler.schedule.selection import active_in


def pack_waves(operators: Operators, stages: tuple[Stage, ...], cost: CostModel) -> Arrangement:
    """Each wave on idle vEUs, the longest rTasks first."""
    shares: dict[int, Share] = {}
    ordered = []
    for stage in stages:
        waves = []
        for wave in stage.waves:
            times = task_times(operators, wave, stage, cost)
            wave = tuple(sorted(wave, key=lambda number: -times[number]))
            ready = np.zeros(stage.device.units)
            for number in wave:
                shares[number] = place(operators[number].tasks, times[number], ready)
            waves.append(wave)
        ordered.append(Stage(stage.device, tuple(waves)))
    return Arrangement(tuple(ordered), tuple(shares[number] for number in range(len(operators))))


def task_times(
    operators: Operators, wave: Sequence[int], stage: Stage, cost: CostModel
) -> dict[int, float]:
    """The predicted time of one rTask of each rOperator of a wave."""
    works = [operators[number].variant for number in wave]
    active = active_in(works, stage.device)
    return {
        number: cost.task_ns(work, stage.device, active)
        for number, work in zip(wave, works, strict=True)
    }


def _synchronise(operators: Operators, arranged: Arrangement, conflicts: Conflicts) -> Plan:
    launches = tuple(_launch(operators, stage, arranged) for stage in arranged.stages)
    return Plan("waves", launches, arranged.steps)


def _launch(operators: Operators, stage: Stage, arranged: Arrangement) -> Launch:
    parts: list[Part] = []
    events: list[tuple[int, int]] = []
    for number, wave in enumerate(stage.waves):
        lanes = np.unique(np.concatenate([arranged.shares[n].lane for n in wave]))
        if number:
            parts += prefetches(operators, wave, arranged)
            nothing = np.zeros(len(lanes), dtype=np.int64)
            everyone = np.full(len(lanes), events[-1][0])
            parts.append(Part(Kind.WAIT, number - 1, lanes, nothing, everyone))
        for n in wave:
            parts.append(arranged.shares[n].entries(Kind.RUN, n))
        if number < len(stage.waves) - 1:
            unit = np.arange(len(lanes))
            parts.append(Part(Kind.SIGNAL, number, lanes, unit, np.ones_like(unit)))
            events.append((len(lanes), len(lanes)))
    return Launch(compress(parts), stage.device.units, Events.of(events), stage.device.shape)


def prefetches(
    operators: Sequence[ROperator], wave: Sequence[int], arranged: Arrangement
) -> list[Part]:
    """Every lane asks for the weights of the first rTask that it will run in this wave."""
    found: list[Part] = []
    asked: Ints = np.array([], dtype=np.int64)
    for number in wave:
        share = arranged.shares[number]
        new = ~np.isin(share.lane, asked)
        if operators[number].variant.body.prefetch:
            lane, first, count = share.lane[new], share.first[new], share.count[new]
            found.append(Part(Kind.PREFETCH, number, lane, first, count))
        asked = np.union1d(asked, share.lane)
    return found


WAVES = Policy("waves", "a barrier after each level, in one launch", pack_waves, _synchronise)
