"""What a Plan is predicted to do in time: each lane's entries, from when to when.

Rows are gone through in their order; a lane's time goes forward with what it runs and with what it
waits for. It serves ``auto``, ``inspect``, the benchmark of schedules and the traces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.cost import CostModel, SyncCost
from ramforge.compiler.device import Target, VDevice
from ramforge.compiler.expressions.regions import Ints
from ramforge.compiler.plan import Entries, Kind, Launch, Plan
from ramforge.compiler.rprogram import ROperator

Times = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spans:
    """Runs and waits of lanes as columns, in nanoseconds from the start of the program.

    ``kind`` is RUN or WAIT; ``what`` an rOperator, or the event that is waited for.
    """

    launch: Ints
    lane: Ints
    kind: Ints
    what: Ints
    first: Ints
    count: Ints
    start: Times
    end: Times


@dataclass(frozen=True, eq=False)
class Timeline(Spans):
    """All that the lanes of a plan do."""

    launch_ns: Times  # how long each launch takes, with the launch itself
    units: Ints  # the lanes of each launch

    @property
    def makespan_ns(self) -> float:
        return float(self.launch_ns.sum())

    @cached_property
    def busy_ns(self) -> float:
        """vEU time spent on rTasks."""
        runs = self.kind == Kind.RUN
        return float((self.end - self.start)[runs].sum())

    @property
    def utilisation(self) -> float:
        """The part of all vEUs' time that is spent on rTasks."""
        whole = float((self.launch_ns * self.units).sum())
        return self.busy_ns / whole if whole else 0.0

    @property
    def waiting_ns(self) -> float:
        """vEU time spent waiting in the launches."""
        waits = self.kind == Kind.WAIT
        return float((self.end - self.start)[waits].sum())


def simulate(
    operators: Sequence[ROperator], plan: Plan, target: Target, cost: CostModel
) -> Timeline:
    """Predict the times of a plan."""
    sync = cost.sync(target)
    active = _active(plan, len(operators))
    parts: list[Spans] = []
    launch_ns = []
    begin = 0.0
    for number, launch in enumerate(plan.launches):
        run = _LaunchRun(number, launch, operators, target, cost, sync, active, begin)
        launch_ns.append(run.go())
        begin += launch_ns[-1]
        parts += run.parts
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts] or [np.zeros(0)])
        for name in (field.name for field in fields(Spans))
    }
    units = np.array([launch.lanes for launch in plan.launches], dtype=np.int64)
    return Timeline(**columns, launch_ns=np.array(launch_ns), units=units)


def _active(plan: Plan, operators: int) -> list[int]:
    """For each rOperator how many lanes are busy in its step."""
    lanes: dict[int, list[Ints]] = {}
    for launch in plan.launches:
        entries = launch.rows.spread(launch.rows.of_kind(Kind.RUN))
        steps = np.array(plan.steps, dtype=np.int64)[entries.what]
        order = np.argsort(steps, kind="stable")
        cuts = np.flatnonzero(np.diff(steps[order])) + 1
        for piece in np.split(order, cuts):
            if len(piece):
                lanes.setdefault(int(steps[piece[0]]), []).append(entries.lane[piece])
    busy = {step: len(np.unique(np.concatenate(found))) for step, found in lanes.items()}
    return [busy.get(plan.steps[number], 1) for number in range(operators)]


class _LaunchRun:
    """One launch on its way through time."""

    def __init__(
        self,
        number: int,
        launch: Launch,
        operators: Sequence[ROperator],
        target: Target,
        cost: CostModel,
        sync: SyncCost,
        active: Sequence[int],
        begin: float,
    ) -> None:
        self._number = number
        self._launch = launch
        self._operators = operators
        self._cost = cost
        self._sync = sync
        self._active = active
        shape = launch.shape
        self._device = VDevice(target, shape.threads, shape.blocks_per_sm, shape.arena_bytes)
        self._begin = begin
        self._time = np.full(launch.lanes, begin + sync.launch_ns)
        self._full: dict[int, Times] = {}  # when each counter of an event is full
        self._signals: dict[int, Ints] = {}
        self._size = launch.events.size.tolist()
        self._group = launch.events.group.tolist()
        # waits that follow each other poll together: when the first of them began
        self._waiting_since = np.full(launch.lanes, np.nan)
        self.parts: list[Spans] = []

    def go(self) -> float:
        """How long the launch takes."""
        for kind, what, entries in self._launch.rows.batches():
            if kind is Kind.RUN:
                self._run(what, entries)
            elif kind is Kind.SIGNAL:
                self._signal(what, entries)
            elif kind is Kind.WAIT:
                self._wait(what, entries)
        return float(self._time.max(initial=self._begin)) - self._begin

    def _run(self, what: int, entries: Entries) -> None:
        task_ns = self._cost.task_ns(
            self._operators[what].variant, self._device, self._active[what]
        )
        start = self._time[entries.lane]
        np.add.at(self._time, entries.lane, entries.units * task_ns)
        self._waiting_since[entries.lane] = np.nan
        self._note(Kind.RUN, entries, start)

    def _signal(self, event: int, entries: Entries) -> None:
        group = self._group[event]
        counters = -(-self._size[event] // group)
        if event not in self._full:
            self._full[event] = np.zeros(counters)
            self._signals[event] = np.zeros(counters, dtype=np.int64)
        low, high = entries.groups(group)
        now = self._time[entries.lane]
        for place in range(int((high - low).max())):
            counter = np.minimum(low + place, high - 1)
            np.maximum.at(self._full[event], counter, now)
            np.add.at(self._signals[event], counter, low + place < high)
        self._waiting_since[entries.lane] = np.nan

    def _wait(self, event: int, entries: Entries) -> None:
        arrival = self._sync.arrival_ns(self._signals[event], self._launch.lanes)
        there = np.append(self._full[event] + arrival, 0.0)
        low, high = entries.groups(self._group[event])
        until = np.maximum.reduceat(there, np.stack([low, high], axis=1).ravel())[::2]
        start = self._time[entries.lane]
        since = self._waiting_since[entries.lane]
        since = np.where(np.isnan(since), start, since)
        self._waiting_since[entries.lane] = since
        answered = np.maximum(until, since + self._sync.poll_ns)
        np.maximum.at(self._time, entries.lane, answered)
        self._note(Kind.WAIT, entries, start)

    def _note(self, kind: Kind, entries: Entries, start: Times) -> None:
        same = np.ones(len(entries.lane), dtype=np.int64)
        end = self._time[entries.lane]
        self.parts.append(
            Spans(
                same * self._number,
                entries.lane,
                same * int(kind),
                entries.what,
                entries.first,
                entries.units,
                start,
                end,
            )
        )
