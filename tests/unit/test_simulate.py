"""Predicted times against a simulation that lets lanes run and wait one entry at a time."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from plan_oracle import awaited, counters_of, lanes_of
from program_support import COST, Planned, planned_model, planned_steps, random_steps, vector

from ramforge.compiler.device import VDevice
from ramforge.compiler.plan import Kind, Launch
from ramforge.compiler.schedule import POLICIES
from ramforge.compiler.schedule.arrangement import dependencies

UNITS = (1, 2, 3, 7, 40)


def task_times(made: Planned, number: int) -> dict[int, float]:
    """The time of one task of each rOperator that runs in a launch."""
    launch = made.plan.launches[number]
    shape = launch.shape
    device = VDevice(made.target, shape.threads, shape.blocks_per_sm, shape.arena_bytes)
    busy: dict[int, set[int]] = {}
    for one in made.plan.launches:
        for lane in lanes_of(one):
            for entry in lane:
                if entry.kind is Kind.RUN:
                    busy.setdefault(made.plan.steps[entry.what], set()).add(entry.lane)
    return {
        n: COST.task_ns(operator.variant, device, len(busy[made.plan.steps[n]]))
        for n, operator in enumerate(made.operators)
    }


def simulated(made: Planned, number: int) -> float:
    """How long a launch takes: lanes go on in any order as long as one of them can."""
    launch: Launch = made.plan.launches[number]
    sync, times = COST.sync(made.target), task_times(made, number)
    size, group = launch.events.size.tolist(), launch.events.group.tolist()
    lanes = lanes_of(launch)
    wanted: dict[tuple[int, int], int] = {}
    for lane in lanes:
        for entry in lane:
            if entry.kind is Kind.SIGNAL:
                event = entry.what
                for counter, _ in counters_of(size[event], group[event], entry.first, entry.units):
                    wanted[event, counter] = wanted.get((event, counter), 0) + 1
    heard: dict[tuple[int, int], list[float]] = {}
    now = [sync.launch_ns] * launch.lanes
    since: list[float | None] = [None] * launch.lanes
    at = [0] * launch.lanes
    moved = True
    while moved:
        moved = False
        for lane in reversed(range(launch.lanes)):
            if at[lane] == len(lanes[lane]):
                continue
            entry = lanes[lane][at[lane]]
            event = entry.what
            if entry.kind is Kind.RUN:
                now[lane] += entry.units * times[entry.what]
            elif entry.kind is Kind.SIGNAL:
                for counter, _ in counters_of(size[event], group[event], entry.first, entry.units):
                    heard.setdefault((event, counter), []).append(now[lane])
            elif entry.kind is Kind.WAIT:
                keys = [(event, c) for c in awaited(group[event], entry.first, entry.units)]
                if any(len(heard.get(key, ())) < wanted[key] for key in keys):
                    continue
                begin = since[lane]
                begin = now[lane] if begin is None else begin
                since[lane] = begin
                ends = [begin + sync.poll_ns, now[lane]]
                for key in keys:
                    part = (wanted[key] - 1) / max(1, launch.lanes - 1)
                    arrival = sync.event_ns + max(0, sync.barrier_ns - sync.event_ns) * part
                    ends.append(max(heard[key]) + arrival)
                now[lane] = max(ends)
            if entry.kind in (Kind.RUN, Kind.SIGNAL):
                since[lane] = None
            at[lane] += 1
            moved = True
    assert at == [len(lane) for lane in lanes]
    return max(now)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(25))
def test_every_launch_takes_as_long_as_its_lanes_take(seed: int, policy: str) -> None:
    random = np.random.default_rng(seed)
    steps = random_steps(random, 9, 50)
    cuts, blocks = ((2, 5), (1, 2)) if seed % 3 == 0 else ((), (1,))
    made = planned_steps(steps, UNITS[seed % len(UNITS)], policy, cuts, blocks)
    expected = [simulated(made, number) for number in range(len(made.plan.launches))]
    assert made.timeline.launch_ns.tolist() == pytest.approx(expected)
    assert made.timeline.makespan_ns == pytest.approx(sum(expected))


def longest_path(made: Planned) -> float:
    """The least that any number of vEUs of this device could take: one task of each rOperator on
    the longest way, without any synchronisation but one launch.
    """
    times: dict[int, float] = {}
    for number, launch in enumerate(made.plan.launches):
        own = task_times(made, number)
        times |= {n: own[n] for n in launch.rows.what[launch.rows.of_kind(Kind.RUN)].tolist()}
    variants = [operator.variant for operator in made.operators]
    graph = dependencies([v.reads for v in variants], [v.writes for v in variants])
    ends: dict[int, float] = {}
    for n in nx.topological_sort(graph):
        ends[n] = times[n] + max((ends[m] for m in graph.predecessors(n)), default=0.0)
    return COST.sync(made.target).launch_ns + max(ends.values())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("units", UNITS)
def test_no_plan_is_predicted_to_beat_its_longest_path_or_its_work(units: int, policy: str) -> None:
    for seed in range(12):
        made = planned_steps(random_steps(np.random.default_rng(seed), 9, 50), units, policy)
        timeline = made.timeline
        assert timeline.makespan_ns >= longest_path(made) * (1 - 1e-9)
        assert timeline.makespan_ns >= timeline.busy_ns / units
        assert 0 < timeline.utilisation <= 1


@pytest.mark.parametrize("policy", POLICIES)
def test_the_timeline_of_a_model_holds_every_run_and_wait_one_after_the_other(policy: str) -> None:
    made = planned_model("resnet_small", policy, 33)
    timeline = made.timeline
    runs = timeline.kind == Kind.RUN
    assert int(timeline.count[runs].sum()) == sum(operator.tasks for operator in made.operators)
    assert int((~runs).sum()) == made.plan.waits
    assert (timeline.end >= timeline.start).all()
    ends = np.cumsum(timeline.launch_ns)
    assert (timeline.end <= ends[timeline.launch] * (1 + 1e-9)).all()
    assert (timeline.start >= (ends - timeline.launch_ns)[timeline.launch]).all()
    for launch in range(len(ends)):
        for lane in range(int(timeline.units[launch])):
            own = (timeline.launch == launch) & (timeline.lane == lane)
            assert (timeline.start[own][1:] >= timeline.end[own][:-1] * (1 - 1e-9)).all()
    assert timeline.waiting_ns == pytest.approx(float((timeline.end - timeline.start)[~runs].sum()))


def test_waits_behind_each_other_poll_together_and_an_event_is_cheaper_than_a_barrier() -> None:
    """Two sources, each done by a lane of its own, and a task that reads both."""
    steps = (vector(1, -1), vector(1, -1), vector(1, 0, 1))
    times = {}
    for policy in ("waves", "events"):
        made = planned_steps(steps, 2, policy)
        task = task_times(made, 0)
        alone = made.timeline.makespan_ns - COST.sync(made.target).launch_ns
        times[policy] = alone - task[0] - task[2]
    sync = COST.sync(planned_steps(steps, 2).target)
    assert times["waves"] == pytest.approx(sync.barrier_ns)
    assert times["events"] == pytest.approx(sync.event_ns)
    assert sync.poll_ns < sync.event_ns < 2 * sync.poll_ns


def test_a_wait_for_what_is_long_done_costs_a_poll() -> None:
    """The second lane is done at once, and waited for by the first one after a long task."""
    steps = (vector(1, -1, flops=0.0), vector(1, -1, flops=1e7), vector(1, 0, 1, flops=1e6))
    made = planned_steps(steps, 2, "events")
    task = task_times(made, 0)
    sync = COST.sync(made.target)
    assert made.timeline.makespan_ns == pytest.approx(
        sync.launch_ns + task[1] + task[2] + sync.poll_ns
    )
