"""The event policy: an rTask waits for just the regions that it reads.

Each rOperator that somebody waits for has an event: its rTasks are the units, in groups that share
a counter. A lane waits for the groups that write what it is about to read, or that still use the
memory it is about to overwrite, unless what it waited for before implies that they are done.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.clocks import Clocks
from ramforge.compiler.cost import CostModel
from ramforge.compiler.expressions.regions import Boxes, Ints
from ramforge.compiler.plan import Events, Kind, Launch, Plan, Row, Rows, compress
from ramforge.compiler.rprogram import ROperator
from ramforge.compiler.schedule.arrangement import Arrangement, Share, Stage, place, writers
from ramforge.compiler.schedule.policy import Conflicts, Operators, Policy
from ramforge.compiler.schedule.waves import task_times

# Of one event. More of them would be waited for more exactly, and be polled for longer.
MOST_COUNTERS = 128
# Pairs of tasks to look at, at most, for a tighter answer than sorted boxes give.
MOST_PAIRS = 1 << 18


def _arrange(operators: Operators, stages: tuple[Stage, ...], cost: CostModel) -> Arrangement:
    """Each rOperator on the vEUs that are free first once what it reads should be there."""
    shares: dict[int, Share] = {}
    done = [0.0] * len(operators)
    writer = writers(operators)
    ordered = []
    for stage in stages:
        ready = np.zeros(stage.device.units)
        event_ns = cost.sync(stage.device.target).event_ns
        inside = set(stage.operators)
        waves = []
        for wave in stage.waves:
            times = task_times(operators, wave, stage, cost)
            wave = tuple(sorted(wave, key=lambda number: -times[number]))
            waves.append(wave)
            for number in wave:
                sources = {writer.get(name) for name in operators[number].variant.reads} & inside
                after = max((done[n] + event_ns for n in sources if n is not None), default=0.0)
                share = place(operators[number].tasks, times[number], ready, after)
                shares[number] = share
                done[number] = float(ready[share.lane].max())
        ordered.append(Stage(stage.device, tuple(waves)))
    return Arrangement(tuple(ordered), tuple(shares[number] for number in range(len(operators))))


@dataclass(frozen=True, slots=True, eq=False)
class Need:
    """What the lanes of an rOperator need of another one: the tasks ``low .. high`` of it, for each
    entry of its share; none where they are equal.
    """

    source: int
    low: Ints
    high: Ints


def _synchronise(operators: Operators, arranged: Arrangement, conflicts: Conflicts) -> Plan:
    finder = _Finder(operators, arranged)
    launches, implied = [], 0
    for stage in arranged.stages:
        builder = _Builder(operators, arranged, stage, finder.needs(stage, conflicts))
        launches.append(builder.launch())
        implied += builder.implied
    return Plan("events", tuple(launches), arranged.steps, implied)


class _Finder:
    """Finds who needs whom, by regions."""

    def __init__(self, operators: Operators, arranged: Arrangement) -> None:
        self._operators = operators
        self._shares = arranged.shares
        self._writer = writers(operators)
        self._sorted: dict[str, SortedBoxes] = {}

    def needs(self, stage: Stage, conflicts: Conflicts) -> dict[int, list[Need]]:
        """For each rOperator of a stage what it needs of others in it, the latest first."""
        place_of = {number: at for at, number in enumerate(stage.operators)}
        found = {}
        for number in stage.operators:
            share = self._shares[number]
            low: dict[int, Ints] = {}
            high: dict[int, Ints] = {}
            for source, first, last in self._of(number, conflicts):
                if source not in place_of:
                    continue
                if source in low:
                    first, last = _hull(low[source], high[source], first, last)
                low[source], high[source] = first, last
            order = sorted(low, key=place_of.__getitem__, reverse=True)
            found[number] = [Need(n, low[n], high[n]) for n in order if (low[n] < high[n]).any()]
            assert all(len(need.low) == len(share.lane) for need in found[number])
        return found

    def _of(self, number: int, conflicts: Conflicts) -> Iterator[tuple[int, Ints, Ints]]:
        share = self._shares[number]
        for name, boxes in self._operators[number].variant.reads.items():
            source = self._writer.get(name)
            if source is None:
                continue
            if name not in self._sorted:
                self._sorted[name] = SortedBoxes(self._operators[source].variant.writes[name])
            low, high = self._sorted[name].touching(around(boxes, share.first))
            yield source, low, high
        for source in conflicts.get(number, ()):
            all_of_it = np.full(len(share.lane), self._operators[source].tasks, dtype=np.int64)
            yield source, np.zeros_like(all_of_it), all_of_it


def _hull(low: Ints, high: Ints, other_low: Ints, other_high: Ints) -> tuple[Ints, Ints]:
    """The ranges around two ranges each; an empty one adds nothing."""
    empty, other_empty = low >= high, other_low >= other_high
    joined_low = np.where(empty, other_low, np.where(other_empty, low, np.minimum(low, other_low)))
    joined_high = np.where(
        empty, other_high, np.where(other_empty, high, np.maximum(high, other_high))
    )
    return joined_low, joined_high


def around(boxes: Boxes, first: Ints) -> Boxes:
    """The box around the tasks of each run; the runs begin at these tasks and leave none out."""
    if len(first) == boxes.tasks:
        return boxes
    start = np.minimum.reduceat(boxes.start, first, axis=0)
    return Boxes(start, np.maximum.reduceat(boxes.stop, first, axis=0))


class SortedBoxes:
    """What the tasks of an rOperator write, made ready to be asked which of them touch a box."""

    def __init__(self, boxes: Boxes) -> None:
        self._boxes = boxes
        self._tasks = boxes.tasks
        self._ordered: list[int] = []  # axes along which tasks go forward
        self._mixed: list[int] = []
        for axis in range(boxes.start.shape[1]):
            start, stop = boxes.start[:, axis], boxes.stop[:, axis]
            forward = (np.diff(start) >= 0).all() and (np.diff(stop) >= 0).all()
            (self._ordered if forward else self._mixed).append(axis)

    def touching(self, wanted: Boxes) -> tuple[Ints, Ints]:
        """For each box the first task that touches it and the one after the last that does."""
        low = np.zeros(wanted.tasks, dtype=np.int64)
        high = np.full(wanted.tasks, self._tasks, dtype=np.int64)
        start, stop = self._boxes.start, self._boxes.stop
        for axis in self._ordered:
            after = np.searchsorted(stop[:, axis], wanted.start[:, axis], side="right")
            before = np.searchsorted(start[:, axis], wanted.stop[:, axis], side="left")
            low, high = np.maximum(low, after), np.minimum(high, before)
        narrow = [axis for axis in self._mixed if self._matters(axis, wanted)]
        if narrow and self._tasks * wanted.tasks <= MOST_PAIRS:
            low, high = self._tightened(wanted, narrow, low, high)
        nothing = (wanted.start >= wanted.stop).any(axis=1) | (low >= high)
        return np.where(nothing, 0, low), np.where(nothing, 0, high)

    def _matters(self, axis: int, wanted: Boxes) -> bool:
        """Whether some box leaves some task out along this axis."""
        first = self._boxes.stop[:, axis].min()
        last = self._boxes.start[:, axis].max()
        all_touch = (wanted.start[:, axis] < first) & (wanted.stop[:, axis] > last)
        return not bool(all_touch.all())

    def _tightened(
        self, wanted: Boxes, axes: Sequence[int], low: Ints, high: Ints
    ) -> tuple[Ints, Ints]:
        task = np.arange(self._tasks)
        meet: NDArray[np.bool_] = (task >= low[:, None]) & (task < high[:, None])
        for axis in axes:
            meet &= self._boxes.start[:, axis] < wanted.stop[:, axis, None]
            meet &= wanted.start[:, axis, None] < self._boxes.stop[:, axis]
        some = meet.any(axis=1)
        first = np.where(some, meet.argmax(axis=1), 0)
        last = np.where(some, self._tasks - meet[:, ::-1].argmax(axis=1), 0)
        return first, last


class _Builder:
    """Makes the launch of one stage: rows in topological order, and the events they speak of."""

    def __init__(
        self,
        operators: Operators,
        arranged: Arrangement,
        stage: Stage,
        needs: Mapping[int, list[Need]],
    ) -> None:
        self._operators = operators
        self._shares = arranged.shares
        self._stage = stage
        self._needs = needs
        self._group = _group_sizes(operators, arranged.shares, needs)
        self._last_use = {need.source: n for n in stage.operators for need in needs[n]}
        self._clocks = Clocks(stage.device.units)
        self._ran: dict[int, Ints] = {}  # the row in which each entry of a share runs
        self._rows: list[Row] = []
        self.implied = 0

    def launch(self) -> Launch:
        for number in self._stage.operators:
            self._add(number)
            for need in self._needs[number]:
                if self._last_use[need.source] == number:
                    self._clocks.forget(need.source)
        rows, events = self._numbered()
        return Launch(Rows.of(rows), self._stage.device.units, events, self._stage.device.shape)

    def _add(self, number: int) -> None:
        share = self._shares[number]
        held = np.zeros(len(share.lane), dtype=np.bool_)
        waits: list[Row] = []
        for need in self._needs[number]:
            for row in self._waits(share, need):
                waits.append(row)
                self._clocks.wait(need.source, self._group[need.source], row)
                held[np.searchsorted(share.lane, row.lane + np.arange(row.lanes))] = True
        if self._operators[number].variant.body.prefetch:
            lane, first, count = share.lane[held], share.first[held], share.count[held]
            self._rows += compress(Kind.PREFETCH, number, lane, first, count)
        self._rows += waits
        runs = share.rows(number)
        self._ran[number] = np.repeat(
            len(self._rows) + np.arange(len(runs)), [row.lanes for row in runs]
        )
        for row in runs:
            self._clocks.pass_row(len(self._rows), row)
            self._rows.append(row)
        if number in self._last_use:
            group = self._group[number]
            for row in runs:
                signal = row._replace(kind=Kind.SIGNAL)
                groups = -(-self._operators[number].tasks // group)
                self._clocks.signal(number, groups, group, signal)
                self._rows.append(signal)

    def _waits(self, share: Share, need: Need) -> list[Row]:
        """The waits for one source that are not implied by what the lanes know already."""
        source, group = self._shares[need.source], self._group[need.source]
        wanted = need.low < need.high
        unknown = self._clocks.over[share.lane][:, source.lane] <= self._ran[need.source]
        begin = np.searchsorted(source.first, need.low, side="right") - 1
        end = np.searchsorted(source.first, need.high, side="left")
        before = np.zeros((len(share.lane), len(source.lane) + 1), dtype=np.int32)
        np.cumsum(unknown, axis=1, out=before[:, 1:])
        line = np.arange(len(share.lane))
        open_ = wanted & (before[line, end] > before[line, np.maximum(begin, 0)])
        self.implied += int(wanted.sum() - open_.sum())
        low = need.low[open_] // group * group
        high = np.minimum(-(-need.high[open_] // group) * group,
                          self._operators[need.source].tasks)  # fmt: skip
        # the last group may be cut short: count in whole groups, so that neighbours stay alike
        count = -(-(high - low) // group) * group
        return list(compress(Kind.WAIT, need.source, share.lane[open_], low, count))

    def _numbered(self) -> tuple[list[Row], Events]:
        """Rows with events numbered in the order of first use; signals that nobody awaits fall
        away.
        """
        awaited = {row.what for row in self._rows if row.kind is Kind.WAIT}
        number_of: dict[int, int] = {}
        events: list[tuple[int, int]] = []
        rows: list[Row] = []
        for row in self._rows:
            if row.kind is Kind.SIGNAL and row.what not in awaited:
                continue
            if row.kind in (Kind.WAIT, Kind.SIGNAL):
                if row.what not in number_of:
                    number_of[row.what] = len(events)
                    events.append((self._operators[row.what].tasks, self._group[row.what]))
                row = row._replace(what=number_of[row.what])
            rows.append(row)
        return rows, Events.of(events)


def _group_sizes(
    operators: Sequence[ROperator], shares: Sequence[Share], needs: Mapping[int, list[Need]]
) -> dict[int, int]:
    """How many rTasks share a counter: as many as nobody wants to tell apart, but no more counters
    than are quick to poll, and none for less than what a lane runs in one go.
    """
    edges: dict[int, int] = defaultdict(int)
    for of_one in needs.values():
        for need in of_one:
            tasks = operators[need.source].tasks
            wanted = need.low < need.high
            ends = np.concatenate([need.low[wanted], need.high[wanted]])
            common = int(np.gcd.reduce(ends[ends < tasks], initial=0))
            edges[need.source] = math.gcd(edges[need.source], common)
    found = {}
    for source, common in edges.items():
        tasks = operators[source].tasks
        group = common or tasks
        least = max(-(-tasks // MOST_COUNTERS), int(shares[source].count.min()))
        found[source] = min(tasks, -(-least // group) * group)
    return found


EVENTS = Policy(
    "events",
    "each rTask waits for what it reads, in one launch",
    _arrange,
    _synchronise,
    slack=1,
)
