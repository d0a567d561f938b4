"""The tables of the emitted text say exactly what the lanes do, in few rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from plan_oracle import lanes_of
from program_support import (
    INPUT,
    Pattern,
    Planned,
    planned_model,
    planned_steps,
    random_steps,
    vector,
)

from ramforge.codegen.tables import Tables, tables
from ramforge.compiler.plan import Kind
from ramforge.compiler.schedule import POLICIES

# Measured: rows of resnet18 and encoder for an rOperator, and what a limit leaves for change
MOST_ROWS_OF_WAVES = 8
MOST_ROWS_OF_EVENTS = 12
ENTRY = re.compile(r"\{RF_(\w+), (-?\d+(?:, -?\d+){6})\},(?:  // .*)?")


def written(made: Planned) -> Tables:
    return tables(made.plan, made.operators, [0] * len(made.plan.launches))


def numbers_of(texts: Sequence[str], count: int) -> list[list[int]]:
    found = []
    for text in texts:
        match = re.fullmatch(r"\{(-?\d+(?:, -?\d+)*)\},", text)
        assert match, text
        found.append([int(number) for number in match[1].split(", ")])
    assert all(len(row) == count for row in found)
    return found


def run_lanes(found: Tables, launch: int, blocks: int) -> Iterator[tuple[int, ...]]:
    """What lanes.cuh does with the texts, on so many blocks: (block, lane, kind, what, first,
    count), with the counters from .. to in place of an event.
    """
    begin, end, _, _ = numbers_of(found.launches, 4)[launch]
    events = numbers_of(found.events, 3)
    for block in range(blocks):
        for text in found.entries[begin:end]:
            match = ENTRY.fullmatch(text)
            assert match, text
            kind = Kind[match[1]]
            at, lanes, per, what, first, count, step = map(int, match[2].split(", "))
            lane = block
            if block < at:
                lane += -(-(at - block) // blocks) * blocks
            while lane < at + lanes:
                unit = first + (lane - at) // per * step
                if kind in (Kind.WAIT, Kind.SIGNAL):
                    counter, _, group = events[what]
                    last = (unit + count - 1) // group
                    yield block, lane, kind, counter + unit // group, counter + last, count
                else:
                    yield block, lane, kind, what, unit, count
                lane += blocks


def expected_lanes(made: Planned, number: int) -> list[list[tuple[int, ...]]]:
    """The same of the plan, lane by lane; no two launches have a counter in common."""
    launches = made.plan.launches
    launch = launches[number]
    base = sum(other.events.counters for other in launches[:number])
    counter = base + np.cumsum(launch.events.groups) - launch.events.groups
    found = []
    for lane in lanes_of(launch):
        own: list[tuple[int, ...]] = []
        for entry in lane:
            if entry.kind in (Kind.WAIT, Kind.SIGNAL):
                group, start = int(launch.events.group[entry.what]), int(counter[entry.what])
                last = start + (entry.first + entry.units - 1) // group
                first = start + entry.first // group
                own.append((entry.lane, entry.kind, first, last, entry.units))
            else:
                own.append((entry.lane, entry.kind, entry.what, entry.first, entry.units))
        found.append(own)
    return found


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("units", [1, 2, 7, 264])
@pytest.mark.parametrize("seed", range(5))
def test_the_texts_expand_to_the_lanes(seed: int, units: int, policy: str) -> None:
    steps = random_steps(np.random.default_rng(seed), 12, 500)
    cuts = (2, 4) if seed % 2 else ()
    made = planned_steps(steps, units, policy, cuts, (1, 2))
    found = written(made)
    for number, launch in enumerate(made.plan.launches):
        lanes: list[list[tuple[int, ...]]] = [[] for _ in range(launch.lanes)]
        for block, lane, *rest in run_lanes(found, number, launch.lanes):
            assert block == lane
            lanes[lane].append((lane, *rest))
        assert lanes == expected_lanes(made, number)


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
def test_fewer_blocks_do_the_entries_of_their_lanes_row_by_row(blocks: int) -> None:
    made = planned_steps(random_steps(np.random.default_rng(4), 9, 40), 7, "events")
    found = written(made)
    for number in range(len(made.plan.launches)):
        expected = expected_lanes(made, number)
        own: dict[int, list[tuple[int, ...]]] = {}
        for block, lane, *rest in run_lanes(found, number, blocks):
            assert lane % blocks == block
            own.setdefault(lane, []).append((lane, *rest))
        assert [own.get(lane, []) for lane in range(len(expected))] == expected


def test_each_launch_has_entries_and_counters_of_its_own() -> None:
    """A run raises the epoch once, so a counter that two launches raise would never fit it."""
    made = planned_steps((vector(4, INPUT), vector(4, 0), vector(4, 1), vector(4, 2)), 2,
                         cuts=(2,))  # fmt: skip
    found = tables(made.plan, made.operators, [0, 5])
    assert len(made.plan.launches) == 2
    assert found.events == ["{0, 2, 2},", "{1, 2, 2},"]
    assert found.launches == ["{0, 4, 2, 0},", "{4, 8, 2, 5},"]
    kinds = [text.split(",")[0] for text in found.entries]
    assert kinds == 2 * ["{RF_RUN", "{RF_SIGNAL", "{RF_WAIT", "{RF_RUN"]
    assert [text.split(", ")[4] for text in found.entries] == [
        "0",
        "0",
        "0",
        "1",
        "2",
        "1",
        "1",
        "3",
    ]


def test_a_plan_without_launches_has_no_tables() -> None:
    assert written(planned_steps((), 3)) == Tables([], [], [])


def row_count(model: str, policy: str, sms: int) -> tuple[int, int, int]:
    """Rows, rOperators, tasks."""
    made = planned_model(model, policy, sms)
    tasks = sum(operator.tasks for operator in made.operators)
    return len(written(made).entries), len(made.operators), tasks


@pytest.mark.parametrize("model", ["resnet18", "encoder"])
@pytest.mark.parametrize(
    ("policy", "most"), [("waves", MOST_ROWS_OF_WAVES), ("events", MOST_ROWS_OF_EVENTS)]
)
def test_the_rows_of_a_model_grow_with_its_operators_and_not_with_its_tasks(
    policy: str, most: int, model: str
) -> None:
    for sms in (3, 33, 132):
        rows, operators, tasks = row_count(model, policy, sms)
        print(f"\n{model} by {policy} on {sms} SMs: {rows} rows, {operators} rOperators, "
              f"{tasks} tasks")  # fmt: skip
        assert rows <= most * operators


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("pattern", [Pattern.ALL, Pattern.SHARE, Pattern.HALO])
def test_the_rows_of_a_long_operator_are_few_whatever_its_tasks(
    pattern: Pattern, policy: str
) -> None:
    counts = []
    for tasks in (1000, 10_000, 100_000):
        steps = (vector(tasks, INPUT), vector(tasks, 0, pattern=pattern))
        counts.append(len(written(planned_steps(steps, 264, policy)).entries))
    print(f"\n{pattern.name} by {policy}: {counts} rows")
    assert max(counts) <= 30 and counts[2] <= counts[0]


def test_a_name_cannot_leave_its_comment() -> None:
    made = planned_steps((vector(1, INPUT),), 1)
    bad = replace(made.operators[0], name="a\n#error\\ ??/ \u2028b")
    found = tables(made.plan, (bad,), [0])
    assert len(found.entries) == 1
    assert not set(found.entries[0].split("//")[1]) & set("\n\\?\u2028")
