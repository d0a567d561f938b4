"""The Plan: which vEU runs what, when, and what it waits for. All of it is columns of numbers.

A Plan is a row of Launches. A launch has lanes, one for each vEU, and Rows: one row is one entry of
many neighbouring lanes at once. Rows stand in one topological order, and a lane is the rows that
concern it, in that order; so the size of a plan grows with operators and not with rTasks, and a
block may run several lanes, row by row, without a deadlock.

What lanes tell each other are Events: an event has units (the rTasks of an rOperator, or the lanes
that come to a barrier), Signal says that some units are done, and Wait goes on when they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np

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


def compress(kind: Kind, what: int, lane: Ints, first: Ints, count: Ints | int) -> Iterator[Row]:
    """The fewest rows, taken greedily, for entries of these ascending lanes."""
    if not len(lane):
        return
    count = np.broadcast_to(np.asarray(count, dtype=np.int64), lane.shape)
    new = np.ones(len(lane), dtype=np.bool_)  # where a piece of equal neighbours starts
    new[1:] = (np.diff(lane) != 1) | (np.diff(first) != 0) | (np.diff(count) != 0)
    start = np.flatnonzero(new)
    size = np.diff(start, append=len(lane))
    # neighbouring pieces may be one row if they are alike; the step between them, else none
    alike = (np.diff(lane[start]) == size[:-1]) & (np.diff(size) == 0)
    alike &= np.diff(count[start]) == 0
    step = np.diff(first[start])
    # how far the step at each piece stays what it is
    broken = np.flatnonzero(~alike | np.append(True, np.diff(step) != 0)[: len(alike)])
    piece = 0
    while piece < len(start):
        end = piece
        if piece < len(alike) and alike[piece]:
            after = broken[np.searchsorted(broken, piece, side="right") :]
            end = int(after[0]) if len(after) else len(alike)
        at = start[piece]
        lanes = int(size[piece]) * (end - piece + 1)
        by = int(step[piece]) if end > piece else 0
        per = int(size[piece])
        yield Row(kind, int(lane[at]), lanes, what, int(first[at]), int(count[at]), by, per)
        piece = end + 1
