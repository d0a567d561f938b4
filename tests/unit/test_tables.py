"""The tables of the emitted text say exactly what the lanes do, in few rows."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from program_support import Step, device, planned, planned_model, program, random_steps

from ramforge.codegen import tables
from ramforge.compiler.rprogram import Entry, Launch, Plan, Prefetch, Run, Signal, Wait
from ramforge.compiler.schedule import POLICIES

KINDS: dict[str, type[Any]] = {"RF_RUN": Run, "RF_PREFETCH": Prefetch}


def expanded(rows: list[tables.Row], lanes: int) -> tuple[tuple[Entry, ...], ...]:
    """What lanes.cuh makes of the rows, written again."""
    found: list[list[Entry]] = [[] for _ in range(lanes)]
    for row in rows:
        for step in range(row.lanes):
            lane = found[row.lane + step]
            if row.kind == "RF_WAIT":
                lane.append(Wait(row.rank, row.what, row.first))
            elif row.kind == "RF_SIGNAL":
                lane.append(Signal(row.rank, row.what))
            else:
                first = row.first + step * row.count
                lane.append(KINDS[row.kind](row.rank, row.what, first, row.count))
    return tuple(map(tuple, found))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("units", [1, 2, 7, 264])
@pytest.mark.parametrize("seed", range(6))
def test_the_rows_expand_to_the_lanes(seed: int, units: int, policy: str) -> None:
    steps = random_steps(np.random.default_rng(seed), 14, 600)
    made = planned(*program(steps), device(units), policy)
    for launch in made.plan.launches:
        assert expanded(tables.rows(launch), units) == launch.lanes


@pytest.mark.parametrize("seed", range(30))
def test_the_rows_of_any_lanes_expand_to_them(seed: int) -> None:
    """Lanes that no policy makes: gaps, and neighbours that differ in one number only."""
    random = np.random.default_rng(seed)
    lanes: list[list[Entry]] = [[] for _ in range(int(random.integers(1, 9)))]
    for rank in range(12):
        what, first, count = (int(number) for number in random.integers(0, 2, 3))
        kind = int(random.integers(4))
        for number, lane in enumerate(lanes):
            if random.random() < 0.3:
                continue
            at = first + number * (count + int(random.random() < 0.2))
            entries: tuple[Entry, ...] = (
                Run(rank, what, at, count + 1),
                Prefetch(rank, what, at, count + 1),
                Wait(rank, what, first + int(random.random() < 0.2)),
                Signal(rank, what),
            )
            lane.append(entries[kind])
    launch = Launch(tuple(map(tuple, lanes)), 256, 1, 0, 2)
    assert expanded(tables.rows(launch), len(lanes)) == launch.lanes


def test_a_launch_without_entries_has_no_rows() -> None:
    assert tables.rows(Launch(((), ()), 256, 1, 0, 0)) == []


def row_count(model: str, sms: int) -> tuple[int, int]:
    made = planned_model(model, "waves", sms)
    count = len(tables.table(made.plan, made.operators)[0])
    return count, len(made.operators)


def test_the_rows_of_resnet18_grow_with_its_operators_and_not_with_its_tasks() -> None:
    for sms in (3, 33, 132):
        rows, operators = row_count("resnet18", sms)
        print(f"\nresnet18 on {sms} SMs: {rows} rows for {operators} rOperators")
        # a run, a prefetch, a wait and a signal, each in at most two pieces
        assert rows <= 8 * operators


def test_the_rows_of_a_long_operator_are_few_whatever_its_tasks() -> None:
    counts = []
    for tasks in (1000, 100_000):
        made = planned(*program((Step(tasks, (-1,)), Step(tasks, (0,), reads_all=False))),
                       device(264))  # fmt: skip
        counts.append(len(tables.table(made.plan, made.operators)[0]))
    assert counts == [6, 6]  # two runs in two pieces, a signal, a wait


def test_each_launch_has_counters_of_its_own() -> None:
    """A run raises the epoch once, so a counter that two launches raise would never fit it."""
    made = planned(*program((Step(4, (-1,)), Step(4, (0,)))), device(2))
    (launch,) = made.plan.launches
    plan = Plan("two", (launch, launch), made.plan.steps)
    texts, launches = tables.table(plan, made.operators)
    count = len(texts)
    assert plan.counters == 2 and count == len(texts) == 2 * len(tables.rows(launch))
    found = [re.match(r"\{(\w+), \d+, \d+, (\d+),", text) for text in texts]
    used = [match[2] for match in found if match and match[1] in ("RF_WAIT", "RF_SIGNAL")]
    assert used == ["0", "0", "1", "1"]
    assert launches == ["{0, 4, 2},", "{4, 8, 2},"]


def test_a_name_cannot_leave_its_comment() -> None:
    made = planned(*program((Step(1, (-1,)),)), device(1))
    bad = replace(made.operators[0], name="a\n#error\\ ??/ \u2028b")
    texts, _ = tables.table(made.plan, (bad,))
    assert len(texts) == 1 and not set(texts[0].split("//")[1]) & set("\n\\?\u2028")
