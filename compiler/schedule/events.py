"""The event policy: an rTask waits for just the regions that it reads.

Each rOperator that somebody waits for has an event: its rTasks are the units, in groups that share
a counter. A lane waits for the groups that write what it is about to read, or that still use the
memory it is about to overwrite, unless what it waited for before implies that they are done.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.cost import CostModel
from ramforge.compiler.expressions.regions import Ints
from ramforge.compiler.plan import (
    Events,
    Kind,
    Launch,
    Part,
    Plan,
    Rows,
    compress,
    is_rough,
)
from ramforge.compiler.rprogram import ROperator
from ramforge.compiler.schedule.arrangement import (
    Arrangement,
    Need,
    Needs,
    Share,
    Stage,
    place,
    writers,
)
from ramforge.compiler.schedule.known import MOST_GROUPS, Known
from ramforge.compiler.schedule.policy import Conflicts, Operators, Policy
from ramforge.compiler.schedule.tiles import Tiles
from ramforge.compiler.schedule.waves import task_times

# Of one need. More of them would be more exact, and longer to look through.
MOST_ROWS = 16


def _arrange(operators: Operators, stages: tuple[Stage, ...], cost: CostModel) -> Arrangement:
    """Each rOperator on the vEUs that are free first once what it reads should be there."""
    shares: dict[int, Share] = {}
    stage_of = [0] * len(operators)
    begin = [0.0] * len(operators)
    done = [0.0] * len(operators)
    writer = writers(operators)
    ordered = []
    for at, stage in enumerate(stages):
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
                free = ready.copy()
                share = place(operators[number].tasks, times[number], ready, after)
                shares[number] = share
                stage_of[number] = at
                begin[number] = max(after, float(free[share.lane].min()))
                done[number] = float(ready[share.lane].max())
        ordered.append(Stage(stage.device, tuple(waves)))
    parts = tuple(shares[number] for number in range(len(operators)))
    finder = _Finder(operators, parts)
    reads = {number: needs for stage in ordered for number, needs in finder.needs(stage)}
    needs = Needs(reads, finder.periods, stage_of, begin, done)
    return Arrangement(tuple(ordered), parts, needs)


def _synchronise(operators: Operators, arranged: Arrangement, conflicts: Conflicts) -> Plan:
    launches, implied = [], 0
    for stage in arranged.stages:
        builder = _Builder(operators, arranged, stage, conflicts)
        launches.append(builder.launch())
        implied += builder.implied
    return Plan("events", tuple(launches), arranged.steps, implied)


class _Finder:
    """Finds who needs whom, by regions."""

    def __init__(self, operators: Operators, shares: Sequence[Share]) -> None:
        self._operators = operators
        self._shares = shares
        self._writer = writers(operators)
        self._tiles: dict[str, Tiles] = {}

    def needs(self, stage: Stage) -> Iterator[tuple[int, list[Need]]]:
        """For each rOperator of a stage what it reads of others in it, the latest first."""
        place_of = {number: at for at, number in enumerate(stage.operators)}
        for number in stage.operators:
            own: dict[int, tuple[Ints, Ints]] = {}
            for source, low, high in self._reads(number):
                if source in place_of:
                    known = own.get(source)
                    own[source] = _hull(*known, low, high) if known else (low, high)
            order = sorted(own, key=place_of.__getitem__, reverse=True)
            yield number, [self._need(source, *own[source]) for source in order]

    def _need(self, source: int, low: Ints, high: Ints) -> Need:
        all_of_it = not low.any() and bool((high == self._operators[source].tasks).all())
        return Need(source) if all_of_it else Need(source, (low, high))

    def periods(self, number: int) -> set[int]:
        """Sizes of groups that follow how the tasks go through what they write."""
        names = self._operators[number].variant.writes
        return {period for name in names for period in self._tiles_of(name, number).periods}

    def _tiles_of(self, name: str, writer: int) -> Tiles:
        if name not in self._tiles:
            self._tiles[name] = Tiles(self._operators[writer].variant.writes[name])
        return self._tiles[name]

    def _reads(self, number: int) -> Iterator[tuple[int, Ints, Ints]]:
        share = self._shares[number]
        for name, boxes in self._operators[number].variant.reads.items():
            source = self._writer.get(name)
            if source is None:
                continue
            tiles = self._tiles_of(name, source)
            low, high = tiles.touching(boxes.around(share.first))
            if (low < high).any():
                yield source, low, high


def _hull(low: Ints, high: Ints, other_low: Ints, other_high: Ints) -> tuple[Ints, Ints]:
    """The ranges around two ranges each; an empty one adds nothing."""
    empty, other_empty = low >= high, other_low >= other_high
    joined_low = np.where(empty, other_low, np.where(other_empty, low, np.minimum(low, other_low)))
    joined_high = np.where(
        empty, other_high, np.where(other_empty, high, np.maximum(high, other_high))
    )
    return joined_low, joined_high


def _all_needs(stage: Stage, needs: Needs, conflicts: Conflicts) -> dict[int, list[Need]]:
    """What is read, and those that still use the memory that is written."""
    place_of = {number: at for at, number in enumerate(stage.operators)}
    found = {}
    for number in stage.operators:
        own = {need.source: need for need in needs.reads[number]}
        own.update({n: Need(n) for n in conflicts.get(number, ()) if n in place_of})
        found[number] = [own[n] for n in sorted(own, key=place_of.__getitem__, reverse=True)]
    return found


class _Builder:
    """Makes the launch of one stage: rows in topological order, and the events they speak of."""

    def __init__(
        self,
        operators: Operators,
        arranged: Arrangement,
        stage: Stage,
        conflicts: Conflicts,
    ) -> None:
        self._operators = operators
        self._shares = arranged.shares
        self._stage = stage
        assert arranged.needs is not None
        self._needs = needs = _all_needs(stage, arranged.needs, conflicts)
        self._group = _group_sizes(operators, arranged.shares, needs, arranged.needs.periods)
        self._last_use = {need.source: n for n in stage.operators for need in needs[n]}
        self._known = Known(stage.device.units)
        self._parts: list[Part] = []
        self.implied = 0

    def launch(self) -> Launch:
        for number in self._stage.operators:
            self._add(number)
            for need in self._needs[number]:
                if self._last_use[need.source] == number:
                    self._known.forget(need.source)
        rows, events = self._numbered(compress(self._parts))
        return Launch(rows, self._stage.device.units, events, self._stage.device.shape)

    def _add(self, number: int) -> None:
        share = self._shares[number]
        waits, held = self._waits(number)
        if waits and self._operators[number].variant.body.prefetch:
            lane, first, count = share.lane[held], share.first[held], share.count[held]
            self._parts.append(Part(Kind.PREFETCH, number, lane, first, count))
        self._parts += waits
        self._parts.append(share.entries(Kind.RUN, number))
        if number in self._last_use:
            group = self._group[number]
            end = share.first + share.count
            self._known.signal(number, share.lane, share.first // group, -(-end // group))
            self._parts.append(share.entries(Kind.SIGNAL, number))

    def _waits(self, number: int) -> tuple[list[Part], NDArray[np.bool_]]:
        """The waits of an rOperator that are not implied, and which entries of its share wait."""
        share = self._shares[number]
        waits: list[Part] = []
        held = np.zeros(len(share.lane), dtype=np.bool_)
        for need in self._needs[number]:
            group = self._group[need.source]
            if need.span is None:
                open_ = self._known.misses_some(need.source, share.lane)
                wanted = len(open_)
            else:
                low, high = need.span[0] // group, -(-need.span[1] // group)
                open_ = self._known.misses(need.source, share.lane, low, high)
                wanted = int(np.count_nonzero(low < high))
            self.implied += wanted
            if not open_.any():
                continue
            if need.span is None:
                low = np.zeros_like(share.lane)
                high = low - (-self._operators[need.source].tasks // group)
            lane, low, high = share.lane[open_], low[open_], high[open_]
            if len(lane) != wanted and is_rough(MOST_ROWS, lane, low, high - low):
                # a plain wait of all lanes is asked together with their others; the rows that
                # would spare some of them it are looked at by everyone
                open_ = np.ones_like(open_)
                lane, last = share.lane, high.max()
                low, high = np.zeros_like(lane), np.full_like(lane, last)
            self.implied -= min(wanted, len(lane))
            held |= open_
            self._known.wait(need.source, lane, low, high)
            # whole groups even where the last one is cut short, so that neighbours stay alike
            waits.append(Part(Kind.WAIT, need.source, lane, low * group, (high - low) * group))
        return waits, held

    def _numbered(self, rows: Rows) -> tuple[Rows, Events]:
        """Rows with events numbered in the order of the first wait; signals that nobody awaits
        fall away.
        """
        is_wait, is_signal = rows.kind == Kind.WAIT, rows.kind == Kind.SIGNAL
        awaited, first = np.unique(rows.what[is_wait], return_index=True)
        awaited = awaited[np.argsort(first)]
        number_of = np.full(len(self._operators), -1, dtype=np.int64)
        number_of[awaited] = np.arange(len(awaited))
        of_event = is_wait | is_signal
        what = np.where(of_event, number_of[np.where(of_event, rows.what, 0)], rows.what)
        kept = what >= 0
        rows = replace(rows, what=what).where(kept)
        events = [(self._operators[n].tasks, self._group[n]) for n in awaited.tolist()]
        return rows, Events.of(events)


def _group_sizes(
    operators: Sequence[ROperator],
    shares: Sequence[Share],
    needs: Mapping[int, list[Need]],
    periods: Callable[[int], Iterable[int]],
) -> dict[int, int]:
    """How many rTasks share a counter: as many as nobody wants to tell apart, but no more counters
    than are quick to poll, none for less than what a lane runs in one go, and not so few rTasks
    that the waits of neighbouring lanes look irregular.
    """
    edges: dict[int, list[tuple[int, Need]]] = defaultdict(list)
    for number, of_one in needs.items():
        for need in of_one:
            edges[need.source].append((number, need))
    found = {}
    for source, of_one_source in edges.items():
        tasks = operators[source].tasks
        common = _common(of_one_source, tasks)
        least = max(-(-tasks // MOST_GROUPS), int(shares[source].count.min()))
        sizes = [size for size in sorted(periods(source)) if least <= size < tasks]
        if common > 1 or not sizes:
            sizes.insert(0, min(tasks, -(-least // common) * common))
        smooth = (size for size in sizes if not _are_rough(of_one_source, shares, size))
        found[source] = next(smooth, tasks)
    return found


def _common(edges: Sequence[tuple[int, Need]], tasks: int) -> int:
    """The largest group that no need begins or ends inside of."""
    common = 0
    for _, need in edges:
        if need.span is not None:
            low, high = need.span
            ends = np.concatenate([low[low < high], high[low < high]])
            common = math.gcd(common, int(np.gcd.reduce(ends[ends < tasks], initial=0)))
    return common or tasks


def _are_rough(edges: Sequence[tuple[int, Need]], shares: Sequence[Share], group: int) -> bool:
    for number, need in edges:
        if need.span is not None:
            low, high = need.span
            some = low < high
            low, high = low[some] // group, -(-high[some] // group)
            if is_rough(MOST_ROWS, shares[number].lane[some], low, high - low):
                return True
    return False


EVENTS = Policy(
    "events",
    "each rTask waits for what it reads, in one launch",
    _arrange,
    _synchronise,
)
