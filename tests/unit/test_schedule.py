"""The policies: every rTask once, levels as the graph has them, vEUs evenly busy, plans that are
proved safe on any number of vEUs.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from plan_oracle import Entry, entries_of, is_safe, lanes_of
from program_support import (
    COST,
    INPUT,
    MODELS,
    Pattern,
    Planned,
    Step,
    device,
    planned_model,
    planned_steps,
    program,
    random_steps,
    vector,
)

from ramforge.compiler.errors import CompileError
from ramforge.compiler.plan import Kind, Launch
from ramforge.compiler.schedule import AUTO, POLICIES, find_policies
from ramforge.compiler.schedule.arrangement import levels, place
from ramforge.compiler.schedule.search import Search, fixed, plan

UNITS = (1, 2, 3, 7, 40, 264)
EVERY_POLICY = pytest.mark.parametrize("policy", POLICIES)
DIAMOND = (vector(3, INPUT), vector(5, 0), vector(2, 0), vector(4, 1, 2))
PARALLEL = (*(vector(3, INPUT) for _ in range(16)), vector(1, *range(16)))
CHAIN = tuple(vector(9, number - 1) for number in range(6))
GRAPHS = {"diamond": DIAMOND, "parallel": PARALLEL, "chain": CHAIN}


def tasks_run(made: Planned) -> Counter[tuple[int, int]]:
    runs = [e for launch in made.plan.launches for e in entries_of(launch) if e.kind is Kind.RUN]
    return Counter(
        (run.what, task) for run in runs for task in range(run.first, run.first + run.units)
    )


def assert_every_task_once(made: Planned) -> None:
    operators = enumerate(made.operators)
    expected = {(n, task) for n, operator in operators for task in range(operator.tasks)}
    found = tasks_run(made)
    assert set(found) == expected and set(found.values()) <= {1}


@EVERY_POLICY
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_task_runs_once(graph: str, units: int, policy: str) -> None:
    made = planned_steps(GRAPHS[graph], units, policy)
    assert_every_task_once(made)
    made.check()


@EVERY_POLICY
@pytest.mark.parametrize("model", MODELS)
def test_every_task_of_the_example_models_runs_once(model: str, policy: str) -> None:
    assert_every_task_once(planned_model(model, policy, 132))


@EVERY_POLICY
@pytest.mark.parametrize("units", UNITS)
def test_random_programs_are_planned_safely(units: int, policy: str) -> None:
    """In one launch or several, with blocks that share an SM or not."""
    for seed in range(30 if units < 200 else 12):
        random = np.random.default_rng([seed, units])
        steps = random_steps(random, 10, 3 * units if units > 2 else 12)
        cuts = random.integers(1, 8, 2).tolist() if seed % 3 == 0 else ()
        made = planned_steps(steps, units, policy, cuts, (1, 2) if seed % 2 else (1,))
        assert_every_task_once(made)
        made.check()


@EVERY_POLICY
@pytest.mark.parametrize("units", [1, 2, 3, 7])
def test_the_oracle_finds_small_random_programs_safe(units: int, policy: str) -> None:
    for seed in range(25):
        random = np.random.default_rng([seed, units, 1])
        steps = random_steps(random, 8, 12)
        cuts = random.integers(1, 6, 1).tolist() if seed % 3 == 0 else ()
        made = planned_steps(steps, units, policy, cuts, (1, 2) if seed % 6 == 0 else (1,))
        made.check()
        assert is_safe(made)


def levels_of(steps: Sequence[Step]) -> list[list[int]]:
    variants = [operator.variant for operator in program(steps)[0]]
    return levels([tuple(v.reads) for v in variants], [tuple(v.writes) for v in variants])


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (DIAMOND, [[0], [1, 2], [3]]),
        (PARALLEL, [list(range(16)), [16]]),
        (CHAIN, [[number] for number in range(6)]),
        # as early as what it reads allows, however late it stands
        ((vector(1, INPUT), vector(1, 0), vector(1, INPUT), vector(1, 0, 2)), [[0, 2], [1, 3]]),
        ((), []),
    ],
)
def test_a_level_is_one_more_than_the_last_of_what_it_reads(
    graph: Sequence[Step], expected: list[list[int]]
) -> None:
    assert levels_of(graph) == expected


@pytest.mark.parametrize(("policy", "launches", "steps"), [
    ("waves", 1, (0, 1, 1, 2)), ("events", 1, (0, 1, 1, 2)), ("per-op", 4, (0, 1, 2, 3)),
])  # fmt: skip
def test_the_steps_are_the_levels_or_for_per_op_the_operators(
    policy: str, launches: int, steps: tuple[int, ...]
) -> None:
    made = planned_steps(DIAMOND, 7, policy).plan
    assert (len(made.launches), made.steps, made.waves) == (launches, steps, 1 + max(steps))
    if policy == "per-op":
        assert made.events == made.waits == 0


@EVERY_POLICY
def test_no_operators_make_an_empty_plan(policy: str) -> None:
    made = planned_steps((), 4, policy)
    assert made.plan.launches == () and made.plan.steps == ()
    assert made.timeline.makespan_ns == 0
    made.check()


# Where tasks go


def greedy(tasks: int, task_ns: float, ready: list[float], not_before: float) -> list[int]:
    """The definition: one task after the other, each to the earliest vEU, the lowest of equals."""
    start = [max(time, not_before) for time in ready]
    counts = [0] * len(ready)
    for _ in range(tasks):
        unit = min(range(len(ready)), key=lambda unit: (start[unit], unit))
        counts[unit] += 1
        start[unit] += task_ns
        ready[unit] = start[unit]
    return counts


def test_a_task_goes_to_the_veu_that_can_start_it_earliest() -> None:
    ready = np.array([5.0, 0.0, 2.0])
    share = place(3, 3.0, ready)
    assert [share.lane.tolist(), share.first.tolist(), share.count.tolist()] == [
        [1, 2], [0, 2], [2, 1]
    ]  # fmt: skip
    assert ready.tolist() == [5.0, 6.0, 5.0]
    assert place(2, 3.0, ready).lane.tolist() == [0, 2]


@pytest.mark.parametrize("seed", range(80))
def test_placement_is_what_placing_one_by_one_gives(seed: int) -> None:
    random = np.random.default_rng(seed)
    units = int(random.integers(1, 12))
    # whole numbers, so that sums of times are exact in any order
    ready = random.integers(0, 1 + 9 * (seed % 2), units).astype(np.float64)
    expected_ready = ready.tolist()
    for _ in range(4):
        tasks, task_ns = int(random.integers(1, 60)), float(random.integers(1, 8))
        not_before = float(random.integers(0, 30)) if seed % 3 else 0.0
        counts = greedy(tasks, task_ns, expected_ready, not_before)
        share = place(tasks, task_ns, ready, not_before)
        assert ready.tolist() == expected_ready
        assert share.lane.tolist() == [unit for unit, count in enumerate(counts) if count]
        assert share.count.tolist() == [count for count in counts if count]
        assert share.first.tolist() == (np.cumsum(share.count) - share.count).tolist()


def waves_of(launch: Launch) -> list[list[tuple[int, int]]]:
    """For each wave the number of tasks that each vEU with work ran, as (vEU, tasks)."""
    waves: list[Counter[int]] = [Counter() for _ in range(len(launch.events) + 1)]
    for unit, lane in enumerate(lanes_of(launch)):
        wave = 0
        for entry in lane:
            if entry.kind is Kind.WAIT:
                wave = entry.what + 1
            elif entry.kind is Kind.RUN:
                waves[wave][unit] += entry.units
    return [sorted(wave.items()) for wave in waves]


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_tasks_of_one_cost_are_spread_evenly_from_the_first_veu_on(graph: str, units: int) -> None:
    steps = GRAPHS[graph]
    (launch,) = planned_steps(steps, units, "waves").plan.launches
    for fringe, wave in zip(levels_of(steps), waves_of(launch), strict=True):
        total = sum(steps[number].tasks for number in fringe)
        whole, rest = divmod(total, units)
        expected = [whole + (unit < rest) for unit in range(units)]
        assert wave == [(unit, count) for unit, count in enumerate(expected) if count]


def test_the_longest_tasks_of_a_wave_are_placed_first() -> None:
    """Two long ones and two short ones on three vEUs: the short ones share a vEU."""
    times = (1e4, 1e7, 1e4, 1e7)
    made = planned_steps([vector(1, INPUT, flops=flops) for flops in times], 3, "waves")
    lanes = lanes_of(made.plan.launches[0])
    assert [[entry.what for entry in lane] for lane in lanes] == [[1], [3], [0, 2]]


def test_events_start_work_where_a_veu_is_idle_while_others_still_run_the_level_before() -> None:
    """A long rOperator on one vEU; a chain beside it does not wait for it."""
    steps = (vector(1, INPUT, flops=1e8), vector(1, INPUT), vector(1, 1), vector(1, 2))
    waves, events = (planned_steps(steps, 2, policy) for policy in ("waves", "events"))
    lanes = lanes_of(events.plan.launches[0])
    assert [[e.what for e in lane if e.kind is Kind.RUN] for lane in lanes] == [[0], [1, 2, 3]]
    assert events.plan.waits == 0
    assert events.timeline.makespan_ns < waves.timeline.makespan_ns


# Barriers


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("seed", range(5))
def test_each_barrier_is_signalled_by_all_of_a_wave_and_awaited_by_all_of_the_next(
    seed: int, units: int
) -> None:
    steps = random_steps(np.random.default_rng(seed), 12, 30)
    (launch,) = planned_steps(steps, units, "waves").plan.launches
    busy = [[unit for unit, _ in wave] for wave in waves_of(launch)]
    every = entries_of(launch)
    assert len(launch.events) == len(levels_of(steps)) - 1
    for event in range(len(launch.events)):
        size, group = int(launch.events.size[event]), int(launch.events.group[event])
        signals = sorted((e.lane, e.first, e.units) for e in every if is_about(e, event, "SIGNAL"))
        waits = sorted((e.lane, e.first, e.units) for e in every if is_about(e, event, "WAIT"))
        assert size == group == len(busy[event])
        assert signals == [(lane, place, 1) for place, lane in enumerate(busy[event])]
        assert waits == [(lane, 0, size) for lane in busy[event + 1]]


def is_about(entry: Entry, event: int, kind: str) -> bool:
    return entry.kind is Kind[kind] and entry.what == event


@pytest.mark.parametrize("units", UNITS)
def test_a_prefetch_stands_before_the_wait_and_names_the_first_run_behind_it(units: int) -> None:
    steps = [vector(9, number - 1, prefetches=number % 2 == 1) for number in range(6)]
    (launch,) = planned_steps(steps, units, "waves").plan.launches
    found = 0
    for lane in lanes_of(launch):
        for prefetch, wait, run in zip(lane, lane[1:], lane[2:], strict=False):
            if prefetch.kind is Kind.PREFETCH:
                found += 1
                assert (wait.kind, run.kind) == (Kind.WAIT, Kind.RUN)
                asked = (prefetch.what, prefetch.first, prefetch.units)
                assert asked == (run.what, run.first, run.units)
                assert steps[prefetch.what].prefetches
    assert found == 3 * min(units, 9)  # nothing to overlap with before the first wave


@EVERY_POLICY
@pytest.mark.parametrize("units", UNITS)
def test_every_wait_stands_behind_all_signals_that_it_is_for(units: int, policy: str) -> None:
    """So that a block may run several lanes row by row."""
    for seed in range(10):
        steps = random_steps(np.random.default_rng([seed, units]), 12, 30)
        for launch in planned_steps(steps, units, policy).plan.launches:
            last: dict[int, int] = {}
            for number, row in enumerate(launch.rows):
                if row.kind is Kind.SIGNAL:
                    last[row.what] = number
            for number, row in enumerate(launch.rows):
                assert row.kind is not Kind.WAIT or last[row.what] < number


@pytest.mark.parametrize("policy", ["waves", "events"])
def test_launches_run_their_own_waves_on_their_own_vdevices(policy: str) -> None:
    made = planned_steps(CHAIN, 3, policy, cuts=(2, 4), blocks=(1, 2))
    assert [launch.lanes for launch in made.plan.launches] == [3, 6, 3]
    assert [launch.shape.blocks_per_sm for launch in made.plan.launches] == [1, 2, 1]
    for number, launch in enumerate(made.plan.launches):
        runs = {entry.what for entry in entries_of(launch) if entry.kind is Kind.RUN}
        assert runs == {2 * number, 2 * number + 1}
        assert len(launch.events) == 1
    assert made.plan.steps == (0, 1, 2, 3, 4, 5)
    made.check()


# The whole of it


@EVERY_POLICY
def test_the_same_operators_make_the_same_plan(policy: str) -> None:
    steps = random_steps(np.random.default_rng(3), 12, 30)
    first, second = (planned_steps(steps, 7, policy).plan for _ in range(2))
    assert pickle.dumps(first) == pickle.dumps(second)


def search_of(steps: Sequence[Step], units: int) -> Search:
    operators, graph = program(steps)
    return Search(
        graph,
        device(units),
        COST,
        [tuple(operator.variant.reads) for operator in operators],
        [tuple(operator.variant.writes) for operator in operators],
        [(operator.variant,) for operator in operators],
        lambda options: operators,
        lambda _: {},
    )


@pytest.mark.parametrize("seed", range(25))
def test_auto_takes_the_plan_that_is_predicted_to_be_done_first(seed: int) -> None:
    random = np.random.default_rng(seed)
    found = search_of(random_steps(random, 9, 40), int(random.integers(1, 9)))
    times = {name: found.best(find_policies(name)).timeline.makespan_ns for name in POLICIES}
    best = found.best(find_policies(AUTO))
    assert best.timeline.makespan_ns == min(times.values()) == times[best.plan.policy]


@EVERY_POLICY
def test_operators_of_one_variant_are_planned_alike_with_stages_chosen_beforehand(
    policy: str,
) -> None:
    steps = random_steps(np.random.default_rng(5), 9, 40)
    operators, graph = program(steps)
    one = search_of(steps, 3).best(find_policies(policy))
    stages = fixed(operators, POLICIES[policy], device(3), COST)
    two = plan(POLICIES[policy], operators, stages, graph, device(3), COST, lambda _: {})
    rows = [[list(launch.rows) for launch in made.plan.launches] for made in (one, two)]
    assert rows[0] == rows[1]
    numbers = [n for stage in stages for n in stage.operators]
    assert sorted(numbers) == list(range(len(operators)))
    assert all(one.operators for one, _ in pairwise(stages))


def test_each_policy_may_use_more_blocks_than_there_are_sms() -> None:
    steps = [vector(64, number - 1, pattern=Pattern.SHARE, flops=1e6) for number in range(3)]
    made = search_of(steps, 3).best(find_policies("events"))
    assert max(launch.lanes for launch in made.plan.launches) > 3


def test_an_unknown_policy_names_those_there_are() -> None:
    with pytest.raises(CompileError, match="fix: use one of auto, waves, events, per-op"):
        find_policies("best")
