"""Which variant each rOperator takes, and where one launch ends and the next begins.

Both are decided wave by wave on predicted times. The fastest variant alone on the device is the
wrong yardstick: in a wave that asks for more vEUs than there are, a variant that takes less of them
in all leaves room for the others. And a wave belongs into the launch of the one before it unless a
launch of its own, with as much of an SM for each block as it wants, is predicted to pay for itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise
from typing import Protocol

import numpy as np

from ramforge.compiler.cost import CostModel, Work, alone_ns, busy_ns
from ramforge.compiler.device import Target, VDevice
from ramforge.compiler.errors import CompileError
from ramforge.compiler.schedule.arrangement import Stage


class Rule(Enum):
    """How the variants of a wave are chosen."""

    FASTEST = "fastest"  # the least time alone on the device
    EFFICIENT = "efficient"  # the least vEU time in all
    SELECTED = "selected"  # what makes the wave end first


class Option(Work, Protocol):
    """A way to carry out an rOperator, and what it wants of a block."""

    @property
    def arena_bytes(self) -> int: ...

    @property
    def registers(self) -> int: ...


Options = tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class WaveChoice:
    """The option of each rOperator of a wave, by number, and when all vEUs are through with it."""

    options: tuple[int, ...]
    time_ns: float


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """For each rOperator the number of its option; the stages, and how long they take."""

    options: tuple[int, ...]
    stages: tuple[Stage, ...]
    time_ns: float


@dataclass(frozen=True, eq=False)
class Selector:
    """Chooses for waves on any of some vDevices. Equal waves are worked out once."""

    devices: tuple[VDevice, ...]
    cost: CostModel
    rule: Rule = Rule.SELECTED
    _kinds: dict[Hashable, int] = field(default_factory=dict)
    _kind_of: dict[Options, int] = field(default_factory=dict)
    _known: dict[Hashable, WaveChoice | None] = field(default_factory=dict)
    _task_ns: dict[Hashable, float] = field(default_factory=dict)
    _fronts: dict[tuple[int, Options], tuple[int, ...]] = field(default_factory=dict)

    def wave(self, choices: Sequence[Options], device: int) -> WaveChoice | None:
        """The best options for rOperators that run side by side; None if one cannot run there."""
        key = (device, tuple(map(self.kind, choices)))
        if key not in self._known:
            self._known[key] = self._wave(choices, device)
        return self._known[key]

    def kind(self, choice: Options) -> int:
        """The same number for rOperators whose options cost the same and fit alike."""
        if choice not in self._kind_of:
            alike = tuple((o.tasks, self.cost.key(o), o.arena_bytes, o.registers) for o in choice)
            self._kind_of[choice] = self._kinds.setdefault(alike, len(self._kinds))
        return self._kind_of[choice]

    def front(self, choice: Options, device: int) -> tuple[int, ...]:
        """The options that no other beats in both time alone and vEU time; the fastest first."""
        key = (device, choice)
        if key not in self._fronts:
            self._fronts[key] = self._front(choice, self.devices[device])
        return self._fronts[key]

    def _front(self, choice: Options, device: VDevice) -> tuple[int, ...]:
        found: list[int] = []
        least = float("inf")
        fits = [n for n, o in enumerate(choice) if device.holds(o.arena_bytes, o.registers)]
        if len(fits) == 1:
            return tuple(fits)
        times = {
            n: (alone_ns(self.cost, choice[n], device), busy_ns(self.cost, choice[n], device))
            for n in fits
        }
        for number in sorted(fits, key=times.__getitem__):
            if times[number][1] < least:
                found.append(number)
                least = times[number][1]
        return tuple(found)

    def _wave(self, choices: Sequence[Options], number: int) -> WaveChoice | None:
        device = self.devices[number]
        fronts = [self.front(choice, number) for choice in choices]
        if not all(fronts):
            return None
        end = -1 if self.rule is Rule.EFFICIENT else 0
        picked = [front[end] for front in fronts]
        time = self._time(choices, picked, device)
        tasks = sum(choice[pick].tasks for choice, pick in zip(choices, picked, strict=True))
        if self.rule is Rule.SELECTED and tasks > device.units:
            picked, time = self._exchanged(choices, fronts, picked, time, device)
        return WaveChoice(tuple(picked), time)

    def _exchanged(
        self,
        choices: Sequence[Options],
        fronts: Sequence[tuple[int, ...]],
        picked: list[int],
        time: float,
        device: VDevice,
    ) -> tuple[list[int], float]:
        """Equal rOperators change their variant together, whenever that makes the wave end
        sooner.
        """
        kinds: dict[int, list[int]] = {}
        for at, choice in enumerate(choices):
            kinds.setdefault(self.kind(choice), []).append(at)
        for members in kinds.values():
            for option in fronts[members[0]]:
                trial = list(picked)
                for member in members:
                    trial[member] = option
                found = self._time(choices, trial, device)
                if found < time:
                    picked, time = trial, found
        efficient = [front[-1] for front in fronts]
        found = self._time(choices, efficient, device)
        return (efficient, found) if found < time else (picked, time)

    def _time(self, choices: Sequence[Options], picked: Sequence[int], device: VDevice) -> float:
        works = [choice[pick] for choice, pick in zip(choices, picked, strict=True)]
        active = active_in(works, device)
        times = []
        for work in works:
            key = (self.cost.key(work), device.blocks_per_sm, active)
            if key not in self._task_ns:
                self._task_ns[key] = self.cost.task_ns(work, device, active)
            times.append((self._task_ns[key], work.tasks))
        sync = self.cost.sync(device.target)
        return wave_ns(times, device.units) + float(sync.arrival_ns(active, device.units))


def wave_ns(works: Sequence[tuple[float, int]], units: int) -> float:
    """When the last of these (time of a task, tasks) is done if they start together on so many idle
    vEUs: the longest first, each task on the vEU that can start it earliest.
    """
    free = [(0.0, units)]  # vEUs by when they are free, as (time, how many)
    end = 0.0
    for task_ns, tasks in sorted(works, reverse=True):
        while tasks:
            time, idle = heapq.heappop(free)
            taken = min(idle, tasks)
            tasks -= taken
            heapq.heappush(free, (time + task_ns, taken))
            end = max(end, time + task_ns)
            if taken < idle:
                heapq.heappush(free, (time, idle - taken))
    return end


def active_in(works: Iterable[Work], device: VDevice) -> int:
    """How many vEUs are busy while these run side by side."""
    return min(sum(work.tasks for work in works), device.units)


def select(
    waves: Sequence[Sequence[int]], choices: Sequence[Options], selector: Selector
) -> Selection:
    """Options and stages for all waves: the cheapest way through (wave, vDevice), by dynamic
    programming, where another vDevice means another launch.
    """
    devices, cost = selector.devices, selector.cost
    options = [0] * len(choices)
    if not waves:
        return Selection(tuple(options), (), 0.0)
    picked = [
        [selector.wave([choices[n] for n in wave], d) for d in range(len(devices))]
        for wave in waves
    ]
    sync = cost.sync(devices[0].target)
    best = [0.0] * len(devices)
    came: list[list[int]] = []
    for number, row in enumerate(picked):
        cheapest = int(np.argmin(best))
        new, source = [], []
        for d, found in enumerate(row):
            goes_on = best[d] + (0.0 if number else sync.launch_ns)
            afresh = best[cheapest] + sync.launch_ns
            stays = goes_on <= afresh
            source.append(d if stays else cheapest)
            time = found.time_ns if found else float("inf")
            new.append(min(goes_on, afresh) + time)
        if min(new) == float("inf"):
            raise _too_large([choices[n] for n in waves[number]], devices[0].target)
        best = new
        came.append(source)
    path = [int(np.argmin(best))]
    for source in reversed(came[1:]):
        path.append(source[path[-1]])
    path.reverse()
    for wave, row, d in zip(waves, picked, path, strict=True):
        found = row[d]
        assert found is not None
        for number, option in zip(wave, found.options, strict=True):
            options[number] = option
    stages = _stages(waves, choices, options, [devices[d] for d in path])
    return Selection(tuple(options), stages, min(best))


def _stages(
    waves: Sequence[Sequence[int]],
    choices: Sequence[Options],
    options: Sequence[int],
    path: Sequence[VDevice],
) -> tuple[Stage, ...]:
    cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(path)) if a is not b), len(path)]
    stages = []
    for start, end in pairwise(cuts):
        own = tuple(tuple(wave) for wave in waves[start:end])
        arena = max(choices[n][options[n]].arena_bytes for wave in own for n in wave)
        device = replace(path[start], arena_bytes=-(-arena // 128) * 128)
        stages.append(Stage(device, own))
    return tuple(stages)


def _too_large(choices: Sequence[Options], target: Target) -> CompileError:
    least = max(min(option.arena_bytes for option in choice) for choice in choices)
    return CompileError(
        f"an rTask needs {least} bytes of shared memory a block, {target.name} has "
        f"{target.shared_bytes_per_block}\n    fix: choose a larger --target"
    )
