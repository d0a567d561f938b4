"""Vector clocks against a naive one that keeps a dictionary for each lane."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramforge.compiler.clocks import Clocks, largest
from ramforge.compiler.plan import Kind, Row, Rows

LANES = 6
EVENTS = ((12, 1), (12, 4), (7, 3))  # units, and how many share a counter


class Naive:
    """For each lane how many rows of each lane are over; row by row, lane by lane."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.over = [defaultdict(lambda: start) for _ in range(LANES)]
        self.told: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)

    def do(self, number: int, row: Row) -> None:
        for i in range(row.lanes):
            lane, first = row.lane + i, row.first + i // row.per * row.step
            counters = {unit // EVENTS[row.what][1] for unit in range(first, first + row.units)}
            for counter in counters:
                told = self.told[row.what, counter]
                if row.kind is Kind.SIGNAL:
                    for other in range(LANES):
                        told[other] = max(told.get(other, 0), self.over[lane][other])
                elif row.kind is Kind.WAIT:
                    for other, value in told.items():
                        self.over[lane][other] = max(self.over[lane][other], value)
        for lane in range(row.lane, row.lane + row.lanes):
            self.over[lane][lane] = self.start + number + 1


def random_rows(random: np.random.Generator) -> list[Row]:
    """Rows of any shape; the first signals of each event come from all lanes."""
    rows = [
        Row(Kind.SIGNAL, 0, LANES, event, 0, 1, size // LANES)
        for event, (size, _) in enumerate(EVENTS)
    ]
    for _ in range(int(random.integers(5, 40))):
        lane = int(random.integers(LANES))
        lanes, per = int(random.integers(1, LANES - lane + 1)), int(random.integers(1, 4))
        what, step = int(random.integers(len(EVENTS))), int(random.integers(-2, 3))
        reach = (lanes - 1) // per * step
        limit = EVENTS[what][0]
        units = int(random.integers(1, 4))
        low, high = max(0, -reach), limit - units - max(0, reach)
        kind = list(Kind)[int(random.integers(4))]
        if low <= high:
            first = int(random.integers(low, high + 1))
            rows.append(Row(kind, lane, lanes, what, first, units, step, per))
    return rows


def runs_known(clock: int, lane: int, rows: list[Row], start: int) -> int:
    """How many runs of a lane somebody with this clock knows to be over."""
    before = rows[: max(0, clock - start)]
    return sum(row.kind is Kind.RUN and 0 <= lane - row.lane < row.lanes for row in before)


@pytest.mark.parametrize("seed", range(80))
def test_clocks_know_the_runs_that_a_naive_clock_knows(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, start = random_rows(random), int(random.integers(0, 3)) * 10
    clocks, naive = Clocks(LANES, start), Naive(start)
    for kind, what, entries in Rows.of(rows).batches():
        size, group = EVENTS[what]
        if kind is Kind.SIGNAL:
            clocks.signal(what, -(-size // group), group, entries)
        elif kind is Kind.WAIT:
            clocks.wait(what, group, entries)
        clocks.pass_rows(entries, start)
        for number in np.unique(entries.row).tolist():
            naive.do(number, rows[number])
        for lane in range(LANES):
            for other in range(LANES):
                found = int(clocks.over[lane, other])
                wanted = naive.over[lane][other]
                assert runs_known(found, other, rows, start) == runs_known(
                    wanted, other, rows, start
                )


def test_what_was_told_about_a_forgotten_event_is_gone() -> None:
    clocks = Clocks(2)
    run, signal, wait = (Rows.of([Row(kind, 0, 1, 0, 0, 1)]).spread(np.arange(1))
                         for kind in (Kind.RUN, Kind.SIGNAL, Kind.WAIT))  # fmt: skip
    clocks.pass_rows(run)
    clocks.signal(0, 1, 1, signal)
    clocks.forget(0)
    with pytest.raises(KeyError):
        clocks.wait(0, 1, wait)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 70), st.integers(1, 20))
def test_the_largest_of_any_ranges(seed: int, lines: int, ranges: int) -> None:
    random = np.random.default_rng(seed)
    table = random.integers(0, 100, (lines, 3)).astype(np.int32)
    begin = random.integers(0, lines, ranges)
    end = begin + 1 + random.integers(0, lines, ranges) % (lines - begin)
    expected = [table[b:e].max(axis=0).tolist() for b, e in zip(begin, end, strict=True)]
    assert largest(table, begin, end).tolist() == expected
