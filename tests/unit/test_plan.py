"""Rows: many entries in few lines, and back again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from program_support import planned_steps, random_steps, vector

from ramforge.compiler.plan import (
    Events,
    Kind,
    Part,
    Plan,
    Row,
    Rows,
    compress,
    is_rough,
    roughness,
)

Ints = NDArray[np.int64]
Line = tuple[Kind, int, int, int, int]  # kind, what, lane, first, units

rows = st.builds(
    Row,
    kind=st.sampled_from(Kind),
    lane=st.integers(0, 5),
    lanes=st.integers(1, 9),
    what=st.integers(0, 2),
    first=st.integers(0, 20),
    units=st.integers(1, 4),
    step=st.integers(-3, 3),
    per=st.integers(1, 4),
)


@st.composite
def parts(draw: st.DrawFn) -> Part:
    """Entries that are often, but not always, those of a regular row."""
    count = draw(st.integers(0, 14))
    lane = np.cumsum(draw(st.lists(st.sampled_from([1, 1, 1, 2]), min_size=count, max_size=count)))
    by = draw(st.lists(st.sampled_from([0, 0, 2, 2, 3]), min_size=count, max_size=count))
    units = draw(st.lists(st.sampled_from([2, 2, 2, 1]), min_size=count, max_size=count))
    kind, what = draw(st.sampled_from(Kind)), draw(st.integers(0, 2))
    return Part(kind, what, *(np.array(c, dtype=np.int64) for c in (lane, np.cumsum(by), units)))


def lines_of_rows(found: Rows) -> list[Line]:
    """What lanes.cuh makes of the rows, written again."""
    return [
        (row.kind, row.what, row.lane + i, row.first + i // row.per * row.step, row.units)
        for row in found
        for i in range(row.lanes)
    ]


def lines_of_part(part: Part) -> list[Line]:
    columns = zip(part.lane.tolist(), part.first.tolist(), part.units.tolist(), strict=True)
    return [(part.kind, part.what, *column) for column in columns]


@settings(max_examples=120, deadline=None)
@given(st.lists(parts(), max_size=5))
def test_the_rows_of_any_entries_expand_to_them(found: list[Part]) -> None:
    made = compress(found)
    assert lines_of_rows(made) == [line for part in found for line in lines_of_part(part)]


def greedy_rows(part: Part) -> int:
    """Pieces of equal neighbours, then as many pieces in a row as are equally far apart."""
    pieces: list[list[int]] = []  # lane, lanes, first, units
    for _, _, lane, first, units in lines_of_part(part):
        last = pieces[-1] if pieces else None
        if last and [last[0] + last[1], *last[2:]] == [lane, first, units]:
            last[1] += 1
        else:
            pieces.append([lane, 1, first, units])
    count, at = 0, 0
    while at < len(pieces):
        count, start, at = count + 1, at, at + 1
        while at < len(pieces):
            before, after = pieces[at - 1], pieces[at]
            alike = before[0] + before[1] == after[0] and before[1::2] == after[1::2]
            step = pieces[start + 1][2] - pieces[start][2]
            if not alike or after[2] - before[2] != step:
                break
            at += 1
    return count


@settings(max_examples=120, deadline=None)
@given(parts())
def test_rows_are_as_few_as_one_after_the_other_gives(part: Part) -> None:
    rows = greedy_rows(part)
    assert len(compress([part])) == rows == roughness(*part[2:])
    assert [is_rough(most, *part[2:]) for most in range(1, 9)] == [rows > m for m in range(1, 9)]


def test_neighbours_that_take_equal_shares_in_turn_are_one_row() -> None:
    lane = np.arange(12)
    assert list(compress([Part(Kind.WAIT, 3, lane, lane // 4 * 8 + 5, np.full(12, 6))])) == [
        Row(Kind.WAIT, 0, 12, 3, 5, 6, 8, 4)
    ]


@settings(max_examples=150, deadline=None)
@given(st.lists(rows, max_size=6))
def test_spread_gives_the_entries_of_the_rows_that_are_asked_for(table: list[Row]) -> None:
    made = Rows.of(table)
    assert list(made) == table and [made[n] for n in range(len(made))] == table
    wanted = np.array([n for n in range(len(table)) if n % 3 != 1], dtype=np.int64)
    entries = made.spread(wanted)
    kinds = [table[n].kind for n in entries.row.tolist()]
    columns = (entries.what, entries.lane, entries.first, entries.units)
    found = list(zip(kinds, *(column.tolist() for column in columns), strict=True))
    assert found == lines_of_rows(Rows.of([table[n] for n in wanted.tolist()]))
    kept = np.zeros(len(table), dtype=np.bool_)
    kept[wanted] = True
    assert list(made.where(kept)) == [table[n] for n in wanted.tolist()]


@settings(max_examples=150, deadline=None)
@given(st.lists(rows, max_size=8))
def test_batches_hold_all_rows_in_their_order(table: list[Row]) -> None:
    found: list[Line] = []
    heads: list[tuple[Kind, int]] = []
    numbers: list[int] = []
    for kind, what, entries in Rows.of(table).batches():
        assert set(entries.what.tolist()) == {what}
        columns = (entries.lane.tolist(), entries.first.tolist(), entries.units.tolist())
        found += [(kind, what, *column) for column in zip(*columns, strict=True)]
        heads.append((kind, what))
        numbers += entries.row.tolist()
    assert found == lines_of_rows(Rows.of(table))
    assert numbers == [n for n, row in enumerate(table) for _ in range(row.lanes)]
    assert all(one != two for one, two in pairwise(heads))


def touched(group: int, first: int, units: int) -> set[int]:
    return {unit // group for unit in range(first, first + units)}


@given(st.lists(rows, min_size=1, max_size=4), st.integers(1, 7))
def test_the_groups_of_an_entry_are_those_of_its_units(table: list[Row], group: int) -> None:
    made = Rows.of([row._replace(first=row.first + 30) for row in table])
    entries = made.spread(np.arange(len(made)))
    low, high = entries.groups(group)
    columns = (entries.first.tolist(), entries.units.tolist())
    expected = [touched(group, *column) for column in zip(*columns, strict=True)]
    assert [set(range(*pair)) for pair in zip(low, high, strict=True)] == expected


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 60)), max_size=5))
def test_an_event_has_a_counter_for_each_group_with_a_unit(
    table: list[tuple[int, int]],
) -> None:
    events = Events.of(table)
    expected = [len(touched(group, 0, size)) for size, group in table]
    assert events.groups.tolist() == expected and events.counters == sum(expected)


def test_a_plan_counts_what_its_launches_have() -> None:
    made = planned_steps([vector(4, n - 1) for n in range(3)], 2, "waves").plan
    assert (made.waves, made.events, made.counters, made.waits) == (3, 2, 2, 4)
    twice = replace(made, launches=made.launches * 2)
    assert (twice.waves, twice.events, twice.counters, twice.waits) == (3, 4, 4, 8)
    assert Plan("none", (), ()).waves == 0


def test_all_rows_of_our_plans_are_well_formed_and_stand_for_as_many_lanes_as_they_can() -> None:
    """No two neighbouring rows of a plan could be one."""
    for seed in range(60):
        steps = random_steps(np.random.default_rng(seed), 10, 60)
        for policy in ("events", "waves"):
            for launch in planned_steps(steps, 7, policy).plan.launches:
                table = list(launch.rows)
                assert not [at for at in range(len(table) - 1) if joins(table[at : at + 2])]


def joins(pair: Sequence[Row]) -> bool:
    """Whether two rows are one piece each and could be one row."""
    one, two = pair
    if one[0] != two[0] or one.what != two.what or one.lane + one.lanes != two.lane:
        return False
    return one.step == two.step == 0 and (one.lanes, one.units) == (two.lanes, two.units)
