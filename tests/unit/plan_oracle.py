"""What a plan may do, found by brute force: the judge of ``check_plan``, for small programs only.

Nothing is shared with the checker. Happens-before is the transitive closure of a relation over
entries; memory is looked at cell by cell; and every number of blocks is tried, each running several
lanes in the order in which the emitted text lists their entries.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from program_support import Planned

from ramforge.compiler.memory import WORKSPACE
from ramforge.compiler.rprogram import Entry, Run, Signal, Wait

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Event:
    """An entry as some block meets it."""

    launch: int
    block: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Access:
    """One task touches one cell on behalf of a tensor."""

    event: int
    task: tuple[int, int]
    tensor: str
    is_write: bool


def is_safe(planned: Planned) -> bool:
    launches = planned.plan.launches
    limit = planned.device.units
    if any(len(launch.lanes) > limit for launch in launches):
        return False
    if not (_every_task_once(planned) and _inside(planned)):
        return False
    # one block a lane, as the plan means it, and then every number of blocks as the text runs it
    if not _runs_well(planned, limit, by_rank=False):
        return False
    return all(_runs_well(planned, blocks, by_rank=True) for blocks in range(1, limit + 1))


def _every_task_once(planned: Planned) -> bool:
    found: Counter[tuple[int, int]] = Counter()
    for launch in planned.plan.launches:
        for lane in launch.lanes:
            for entry in lane:
                if isinstance(entry, Run):
                    tasks = range(entry.first, entry.first + entry.count)
                    found.update((entry.operator, task) for task in tasks)
    operators = enumerate(planned.operators)
    every = {(number, task) for number, operator in operators for task in range(operator.tasks)}
    return set(found) == every and set(found.values()) <= {1}


def _inside(planned: Planned) -> bool:
    memory, graph = planned.memory, planned.graph
    for operator in planned.operators:
        for name in operator.variant.operands:
            place = memory.places[name]
            if place.space == WORKSPACE:
                end = place.offset + graph.tensor(name).nbytes
                if place.offset < 0 or end > memory.workspace_bytes:
                    return False
    return True


def _runs_well(planned: Planned, blocks: int, *, by_rank: bool) -> bool:
    events = _events(planned, blocks, by_rank=by_rank)
    before = _happens_before(events)
    return before is not None and _reads_are_right(planned, events, before)


def _events(planned: Planned, blocks: int, *, by_rank: bool) -> list[Event]:
    events = []
    for number, launch in enumerate(planned.plan.launches):
        for block in range(blocks):
            lanes = range(block, len(launch.lanes), blocks)
            own = [(entry.rank, lane, entry) for lane in lanes for entry in launch.lanes[lane]]
            if by_rank:
                own.sort(key=lambda row: row[:2])
            events += [Event(number, block, entry) for _, _, entry in own]
    return events


def _happens_before(events: list[Event]) -> Bools | None:
    """None if some block waits for ever, or goes on before all signals have come."""
    signals: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, event in enumerate(events):
        if isinstance(event.entry, Signal):
            signals[event.launch, event.entry.counter].append(number)
    before = np.zeros((len(events), len(events)), dtype=np.bool_)
    launch = np.array([event.launch for event in events])
    before |= launch[:, None] < launch[None, :]
    for number, event in enumerate(events):
        if number and (events[number - 1].launch, events[number - 1].block) == (
            event.launch,
            event.block,
        ):
            before[number - 1, number] = True
        if isinstance(event.entry, Wait):
            own = signals[event.launch, event.entry.counter]
            if len(own) != event.entry.full:
                return None
            before[own, number] = True
    for middle in range(len(events)):
        before |= before[:, middle, None] & before[None, middle, :]
    return None if before.diagonal().any() else before


def _reads_are_right(planned: Planned, events: list[Event], before: Bools) -> bool:
    """Every read gets what the tensor's own writer wrote, whatever the speed of the blocks."""
    cells: dict[tuple[int, int], list[Access]] = defaultdict(list)
    for number, event in enumerate(events):
        if isinstance(event.entry, Run):
            for task in range(event.entry.first, event.entry.first + event.entry.count):
                _touch(planned, number, (event.entry.operator, task), cells)
    for accesses in cells.values():
        writes = [access for access in accesses if access.is_write]
        for read in (access for access in accesses if not access.is_write):
            own = [write for write in writes if write.tensor == read.tensor]
            others = [write for write in writes if write.tensor != read.tensor]
            if len(own) != 1 or not _ordered(own[0], read, before):
                return False
            for other in others:
                early = _ordered(other, own[0], before)
                if not early and not _ordered(read, other, before):
                    return False
    return True


def _touch(
    planned: Planned,
    event: int,
    task: tuple[int, int],
    cells: dict[tuple[int, int], list[Access]],
) -> None:
    variant = planned.operators[task[0]].variant
    for regions, is_write in ((variant.reads, False), (variant.writes, True)):
        for name, boxes in regions.items():
            place = planned.memory.places[name]
            if name in planned.graph.inputs:
                continue
            start, stop = int(boxes.start[task[1], 0]), int(boxes.stop[task[1], 0])
            for element in range(start, stop):
                cell = (place.space, place.offset + 4 * element)
                cells[cell].append(Access(event, task, name, is_write))


def _ordered(first: Access, second: Access, before: Bools) -> bool:
    if first.event == second.event:  # tasks of one run go one after the other
        return first.task < second.task
    return bool(before[first.event, second.event])
