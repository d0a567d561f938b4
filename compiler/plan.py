"""The Plan: which vEU runs what, when, and what it waits for. All of it is columns of numbers.

A Plan is a row of Launches. A launch has lanes, one for each vEU, and Rows: one row is one entry of
many neighbouring lanes at once. Rows stand in one topological order, and a lane is the rows that
concern it, in that order; so the size of a plan grows with operators and not with rTasks, and a
block may run several lanes, row by row, without a deadlock.

What lanes tell each other are Events: an event has units (the rTasks of an rOperator, or the lanes
that come to a barrier), Signal says that some units are done, and Wait goes on when they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.expressions.regions import Ints


class Kind(IntEnum):
    """What an entry does with ``units`` units from ``first`` on."""

    PREFETCH = 0  # ask for what these rTasks need and no running rTask makes
    WAIT = 1  # go on when these units of an event are done
    RUN = 2  # run these rTasks of an rOperator, one after the other
    SIGNAL = 3  # say that these units of an event are done, and all that the lane did before


class Row(NamedTuple):
    """One entry of the lanes ``lane .. lane + lanes``. The ``per`` first lanes begin at ``first``,
    each ``per`` lanes that follow ``step`` further on.

    ``what`` is an rOperator, or for WAIT and SIGNAL an event of the launch.
    """

    kind: Kind
    lane: int
    lanes: int
    what: int
    first: int
    units: int
    step: int = 0
    per: int = 1

    def firsts(self) -> Ints:
        """The first unit of each of the lanes."""
        return self.first + np.arange(self.lanes, dtype=np.int64) // self.per * self.step


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of a launch as columns."""

    kind: Ints
    lane: Ints
    lanes: Ints
    what: Ints
    first: Ints
    units: Ints
    step: Ints
    per: Ints

    @staticmethod
    def of(rows: Iterable[Row]) -> Rows:
        table = np.array(list(rows), dtype=np.int64).reshape(-1, len(Row._fields))
        return Rows(*np.ascontiguousarray(table.T))

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, number: int) -> Row:
        kind, *rest = (int(getattr(self, name)[number]) for name in Row._fields)
        return Row(Kind(kind), *rest)

    def __iter__(self) -> Iterator[Row]:
        columns = [getattr(self, name).tolist() for name in Row._fields]
        for kind, *rest in zip(*columns, strict=True):
            yield Row(Kind(kind), *rest)

    def spread(self, wanted: Ints) -> Entries:
        """The entries of the rows with these numbers, a line for each lane."""
        row = np.repeat(wanted, self.lanes[wanted])
        starts = np.cumsum(self.lanes[wanted]) - self.lanes[wanted]
        place = np.arange(len(row), dtype=np.int64) - np.repeat(starts, self.lanes[wanted])
        first = self.first[row] + place // self.per[row] * self.step[row]
        return Entries(row, self.lane[row] + place, self.what[row], first, self.units[row])

    def where(self, kept: NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        return Rows(*(getattr(self, name)[kept] for name in Row._fields))

    def batches(self) -> Iterator[tuple[Kind, int, Entries]]:
        """The rows in their order, neighbours of the same kind about the same thing at once."""
        new = np.ones(len(self), dtype=np.bool_)
        new[1:] = (np.diff(self.kind) != 0) | (np.diff(self.what) != 0)
        starts = np.flatnonzero(new)
        every = self.spread(np.arange(len(self)))
        cuts = np.searchsorted(every.row, starts)
        kinds, whats = self.kind[starts].tolist(), self.what[starts].tolist()
        ends = [*cuts.tolist(), len(every.row)][1:]
        for kind, what, begin, end in zip(kinds, whats, cuts.tolist(), ends, strict=True):
            yield Kind(kind), what, every.part(begin, end)

    def of_kind(self, kind: Kind) -> Ints:
        """The numbers of the rows of one kind."""
        return np.flatnonzero(self.kind == kind)


assert [field.name for field in fields(Rows)] == list(Row._fields)


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Single entries of single lanes, as columns."""

    row: Ints
    lane: Ints
    what: Ints
    first: Ints
    units: Ints

    def groups(self, group: int | Ints) -> tuple[Ints, Ints]:
        """The first group of units that each entry is about, and the one after the last."""
        return self.first // group, (self.first + self.units - 1) // group + 1

    def part(self, begin: int, end: int) -> Entries:
        """Some neighbouring entries."""
        own = slice(begin, end)
        return Entries(
            self.row[own], self.lane[own], self.what[own], self.first[own], self.units[own]
        )


@dataclass(frozen=True, eq=False)
class Events:
    """The events of a launch: ``size`` units in groups of ``group``, a counter for each group.

    A counter is full when all units of its group are done; only then does a wait for any of them
    end.
    """

    size: Ints
    group: Ints

    @staticmethod
    def of(events: Iterable[tuple[int, int]]) -> Events:
        table = np.array(list(events), dtype=np.int64).reshape(-1, 2)
        return Events(*np.ascontiguousarray(table.T))

    def __len__(self) -> int:
        return len(self.size)

    @cached_property
    def groups(self) -> Ints:
        """How many counters each event has."""
        return -(-self.size // self.group)

    @property
    def counters(self) -> int:
        return int(self.groups.sum())


@dataclass(frozen=True, slots=True)
class Shape:
    """How a kernel is launched: how much of an SM each block takes."""

    threads: int
    blocks_per_sm: int
    arena_bytes: int


@dataclass(frozen=True, eq=False)
class Launch:
    """One persistent kernel launch with a lane for each vEU."""

    rows: Rows
    lanes: int
    events: Events
    shape: Shape


@dataclass(frozen=True, eq=False)
class Plan:
    """The launches of a program, in order; a launch sees everything the one before it wrote.

    ``steps`` gives each rOperator a number: nothing of a later step comes before what it depends
    on in an earlier one. The planner of memory lets a tensor take the place of another one that was
    used in earlier steps only; the policy makes it wait for that where it has to, and the checker
    proves it. ``implied`` counts the waits that were left out because earlier ones imply them.
    """

    policy: str
    launches: tuple[Launch, ...]
    steps: tuple[int, ...]
    implied: int = 0

    @property
    def waves(self) -> int:
        """How many steps there are: the levels of the plan."""
        return 1 + max(self.steps, default=-1)

    @property
    def counters(self) -> int:
        """The counters of all launches; none serves two launches."""
        return sum(launch.events.counters for launch in self.launches)

    @property
    def events(self) -> int:
        return sum(len(launch.events) for launch in self.launches)

    @property
    def waits(self) -> int:
        """How often a lane waits, in all lanes together."""
        return sum(
            int(launch.rows.lanes[launch.rows.of_kind(Kind.WAIT)].sum()) for launch in self.launches
        )


class Part(NamedTuple):
    """Entries of one kind about one thing, for ascending lanes."""

    kind: Kind
    what: int
    lane: Ints
    first: Ints
    units: Ints


def compress(parts: Sequence[Part]) -> Rows:
    """Few rows for the entries of all parts, one part after the other: pieces of equal neighbours,
    and pieces that are equally far apart in one row.
    """
    parts = [part for part in parts if len(part.lane)]
    if not parts:
        return Rows.of(())
    lengths = [len(part.lane) for part in parts]
    lane = np.concatenate([part.lane for part in parts])
    first = np.concatenate([part.first for part in parts])
    units = np.concatenate([part.units for part in parts])
    cuts = np.cumsum(lengths)[:-1]
    pieces = _Pieces.of(lane, first, units, cuts)
    begins = np.append(0, pieces.broken.nonzero()[0] + 1)
    at, per = pieces.start[begins], pieces.size[begins]
    is_single = _until_next(begins, len(pieces.start)) == 1
    step = np.where(is_single, 0, np.append(pieces.step, 0)[begins])
    per = np.where(step == 0, 1, per)
    part_of = np.searchsorted(cuts, at, side="right")
    kind = np.array([int(part.kind) for part in parts], dtype=np.int64)[part_of]
    what = np.array([part.what for part in parts], dtype=np.int64)[part_of]
    lanes = _until_next(at, len(lane))
    return Rows(kind, lane[at], lanes, what, first[at], units[at], step, per)


def _until_next(ascending: Ints, end: int) -> Ints:
    """How far it is from each number to the next one, and from the last one to the end."""
    found = np.empty(len(ascending), dtype=np.int64)
    np.subtract(ascending[1:], ascending[:-1], out=found[:-1])
    found[-1:] = end - ascending[-1:]
    return found


def roughness(lane: Ints, first: Ints, units: Ints) -> int:
    """How many rows these entries take, without making them."""
    return 1 + int(np.count_nonzero(_Pieces.of(lane, first, units).broken)) if len(lane) else 0


def is_rough(most: int, lane: Ints, first: Ints, units: Ints) -> bool:
    """Whether these entries take more than so many rows."""
    if len(lane) <= most or np.count_nonzero(_differ(lane, first, units)) < most:
        return False
    return roughness(lane, first, units) > most


def _differ(lane: Ints, first: Ints, units: Ints) -> NDArray[np.bool_]:
    """Of each entry but the first whether it is another piece than the one before it."""
    found: NDArray[np.bool_] = (first[1:] != first[:-1]) | (units[1:] != units[:-1])
    found |= lane[1:] - lane[:-1] != 1
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Pieces:
    """Entries cut where neighbouring lanes differ. ``step`` is how far the next piece is, and
    ``broken`` says of each piece but the last whether a row ends with it.
    """

    start: Ints
    size: Ints
    step: Ints
    broken: NDArray[np.bool_]

    @staticmethod
    def of(lane: Ints, first: Ints, units: Ints, cuts: Ints | None = None) -> _Pieces:
        """``cuts`` are the places where something new begins."""
        new = np.ones(len(lane), dtype=np.bool_)
        new[1:] = _differ(lane, first, units)
        if cuts is not None:
            new[cuts] = True
        start = new.nonzero()[0]
        size = _until_next(start, len(lane))
        at, by, begin = lane[start], units[start], first[start]
        broken = (at[1:] - at[:-1] != size[:-1]) | (size[1:] != size[:-1]) | (by[1:] != by[:-1])
        if cuts is not None:
            broken[np.searchsorted(start, cuts) - 1] = True
        step = begin[1:] - begin[:-1]
        turns = np.zeros(len(step), dtype=np.bool_)
        turns[1:] = (step[1:] != step[:-1]) & ~broken[1:]
        if turns.any():
            # a row may take any step from its first piece: of turns in a row every other one counts
            place = np.arange(len(turns))
            before = np.maximum.accumulate(np.where(turns, 0, place))  # the last that is no turn
            broken |= turns & ((place - before) % 2 == np.where(broken[before], 0, 1))
        return _Pieces(start, size, step, broken)
