"""The policies: every rTask once, levels as the graph has them, vEUs evenly busy."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from program_support import MODELS, Step, device, planned_model, program, random_steps

from ramforge.compiler.errors import CompileError
from ramforge.compiler.rprogram import Entry, Launch, Plan, Prefetch, ROperator, Run, Signal, Wait
from ramforge.compiler.schedule import POLICIES, find_policy
from ramforge.compiler.schedule.placement import levels, place

UNITS = (1, 2, 7, 264)
EVERY_POLICY = pytest.mark.parametrize("policy", POLICIES)
DIAMOND = (Step(3, (-1,)), Step(5, (0,)), Step(2, (0,)), Step(4, (1, 2)))
PARALLEL = (*(Step(3, (-1,)) for _ in range(16)), Step(1, tuple(range(16))))
CHAIN = tuple(Step(9, (number - 1,)) for number in range(6))
GRAPHS = {"diamond": DIAMOND, "parallel": PARALLEL, "chain": CHAIN}


def plan(steps: Sequence[Step], policy: str, units: int) -> Plan:
    operators, _ = program(steps)
    return find_policy(policy)(operators, device(units))


def entries(made: Plan) -> list[Entry]:
    return [entry for launch in made.launches for lane in launch.lanes for entry in lane]


def tasks_run(made: Plan) -> Counter[tuple[int, int]]:
    runs = (entry for entry in entries(made) if isinstance(entry, Run))
    return Counter(
        (run.operator, task) for run in runs for task in range(run.first, run.first + run.count)
    )


def assert_every_task_once(made: Plan, operators: Sequence[ROperator]) -> None:
    expected = {(n, task) for n, operator in enumerate(operators) for task in range(operator.tasks)}
    found = tasks_run(made)
    assert set(found) == expected and set(found.values()) <= {1}


@EVERY_POLICY
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_task_runs_once(graph: str, units: int, policy: str) -> None:
    operators, _ = program(GRAPHS[graph])
    assert_every_task_once(find_policy(policy)(operators, device(units)), operators)


@EVERY_POLICY
@pytest.mark.parametrize("model", MODELS)
def test_every_task_of_the_example_models_runs_once(model: str, policy: str) -> None:
    made = planned_model(model, policy, 132)
    assert_every_task_once(made.plan, made.operators)


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (DIAMOND, [[0], [1, 2], [3]]),
        (PARALLEL, [list(range(16)), [16]]),
        (CHAIN, [[number] for number in range(6)]),
        # as early as what it reads allows, however late it stands
        ((Step(1, (-1,)), Step(1, (0,)), Step(1, (-1,)), Step(1, (0, 2))), [[0, 2], [1, 3]]),
        ((), []),
    ],
)
def test_a_level_is_one_more_than_the_last_of_what_it_reads(
    graph: Sequence[Step], expected: list[list[int]]
) -> None:
    assert levels(program(graph)[0]) == expected


def test_the_waves_are_the_levels_and_the_launches_of_per_op_the_operators() -> None:
    made = plan(DIAMOND, "waves", 7)
    assert (made.waves, len(made.launches), made.steps) == (3, 1, (0, 1, 1, 2))
    single = plan(DIAMOND, "per-op", 7)
    assert (single.waves, len(single.launches), single.steps) == (4, 4, (0, 1, 2, 3))
    assert [launch.counters for launch in single.launches] == [0, 0, 0, 0]


@EVERY_POLICY
def test_no_operators_make_an_empty_plan(policy: str) -> None:
    made = plan((), policy, 4)
    assert entries(made) == [] and made.steps == ()


def simulated(launch: Launch) -> list[list[tuple[int, int]]]:
    """For each wave the number of tasks that each vEU with work ran, as (vEU, tasks)."""
    waves: list[Counter[int]] = [Counter() for _ in range(launch.waves)]
    for unit, lane in enumerate(launch.lanes):
        wave = 0
        for entry in lane:
            if isinstance(entry, Wait):
                wave = entry.counter + 1
            elif isinstance(entry, Run):
                waves[wave][unit] += entry.count
    return [sorted(wave.items()) for wave in waves]


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_tasks_of_one_cost_are_spread_evenly_from_the_first_veu_on(graph: str, units: int) -> None:
    steps = GRAPHS[graph]
    (launch,) = plan(steps, "waves", units).launches
    for fringe, wave in zip(levels(program(steps)[0]), simulated(launch), strict=True):
        total = sum(steps[number].tasks for number in fringe)
        whole, rest = divmod(total, units)
        expected = [whole + (unit < rest) for unit in range(units)]
        assert wave == [(unit, count) for unit, count in enumerate(expected) if count]


def test_a_task_goes_to_the_veu_that_can_start_it_earliest() -> None:
    ready = [5.0, 0.0, 2.0]
    assert place(3, 3.0, ready) == [(1, 0, 2), (2, 2, 1)]  # at 0, 3 and 2
    assert ready == [5.0, 6.0, 5.0]
    assert place(2, 3.0, ready) == [(0, 0, 1), (2, 1, 1)]


def greedy(tasks: int, cost: float, ready: list[float]) -> list[int]:
    """The definition: one task after the other, each to the earliest vEU, the lowest of equals."""
    counts = [0] * len(ready)
    for _ in range(tasks):
        unit = min(range(len(ready)), key=lambda unit: (ready[unit], unit))
        counts[unit] += 1
        ready[unit] += cost
    return counts


@pytest.mark.parametrize("seed", range(20))
def test_placement_is_what_placing_one_by_one_gives(seed: int) -> None:
    random = np.random.default_rng(seed)
    units = int(random.integers(1, 12))
    # whole numbers, so that sums of costs are exact in any order
    ready = [float(time) for time in random.integers(0, 1 + 9 * (seed % 2), units)]
    expected_ready = list(ready)
    for _ in range(3):
        tasks, cost = int(random.integers(0, 60)), float(random.integers(1, 8))
        counts = greedy(tasks, cost, expected_ready)
        placed = place(tasks, cost, ready)
        assert ready == expected_ready
        assert [(unit, count) for unit, _, count in placed] == [
            (unit, count) for unit, count in enumerate(counts) if count
        ]
        assert [first for _, first, _ in placed] == [
            sum(count for _, _, count in placed[:number]) for number in range(len(placed))
        ]


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("seed", range(5))
def test_each_barrier_is_signalled_by_all_of_a_wave_and_awaited_by_all_of_the_next(
    seed: int, units: int
) -> None:
    steps = random_steps(np.random.default_rng(seed), 12, 30)
    (launch,) = plan(steps, "waves", units).launches
    busy = [{unit for unit, _ in wave} for wave in simulated(launch)]
    assert launch.counters == len(busy) - 1
    for counter in range(launch.counters):
        signals = [
            unit
            for unit, lane in enumerate(launch.lanes)
            for entry in lane
            if isinstance(entry, Signal) and entry.counter == counter
        ]
        waits = {
            unit: entry.full
            for unit, lane in enumerate(launch.lanes)
            for entry in lane
            if isinstance(entry, Wait) and entry.counter == counter
        }
        assert sorted(signals) == sorted(busy[counter])
        assert set(waits) == busy[counter + 1] and set(waits.values()) == {len(signals)}


@pytest.mark.parametrize("units", UNITS)
def test_a_prefetch_stands_before_the_wait_and_names_the_first_run_behind_it(units: int) -> None:
    steps = [Step(9, (number - 1,), prefetches=number % 2 == 1) for number in range(6)]
    (launch,) = plan(steps, "waves", units).launches
    found = 0
    for lane in launch.lanes:
        for number, entry in enumerate(lane):
            if not isinstance(entry, Prefetch):
                continue
            found += 1
            wait, run = lane[number + 1 : number + 3]
            assert isinstance(wait, Wait) and isinstance(run, Run)
            asked = (entry.operator, entry.first, entry.count)
            assert asked == (run.operator, run.first, run.count)
            assert steps[entry.operator].prefetches
    assert found == 3 * min(units, 9)  # nothing to overlap with before the first wave


@pytest.mark.parametrize("units", UNITS)
def test_ranks_grow_along_a_lane_and_signals_rank_before_their_waits(units: int) -> None:
    steps = random_steps(np.random.default_rng(units), 12, 30)
    (launch,) = plan(steps, "waves", units).launches
    for lane in launch.lanes:
        ranks = [entry.rank for entry in lane]
        assert ranks == sorted(set(ranks))
    every = [entry for lane in launch.lanes for entry in lane]
    for counter in range(launch.counters):
        own = [e for e in every if isinstance(e, Wait | Signal) and e.counter == counter]
        last_signal = max(entry.rank for entry in own if isinstance(entry, Signal))
        assert last_signal < min(entry.rank for entry in own if isinstance(entry, Wait))


@EVERY_POLICY
def test_the_same_operators_make_the_same_plan(policy: str) -> None:
    steps = random_steps(np.random.default_rng(3), 12, 30)
    first, second = (plan(steps, policy, 7) for _ in range(2))
    parts = [(made.policy, made.launches, made.steps) for made in (first, second)]
    assert pickle.dumps(parts[0]) == pickle.dumps(parts[1])


def test_an_unknown_policy_names_those_there_are() -> None:
    with pytest.raises(CompileError, match="fix: use one of waves, per-op"):
        find_policy("best")
