"""Variants and launches: what is chosen on predicted times, against trying everything."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product

import numpy as np
import pytest
from program_support import COST, device

from ramforge.compiler.cost import SyncCost, Work, alone_ns, busy_ns
from ramforge.compiler.device import Target, VDevice, vdevices
from ramforge.compiler.errors import CompileError
from ramforge.compiler.rprogram import FEW_REGISTERS, Body, TaskCost
from ramforge.compiler.schedule.selection import Options, Rule, Selector, select, wave_ns

BODY = Body("fake", "", "", 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """An option with a time of its own; more blocks on an SM make it slower or faster."""

    tasks: int
    time_ns: float
    arena_bytes: int = 0
    registers: int = FEW_REGISTERS
    faster_ns: float = 0.0  # for each block on an SM less than four
    cost: TaskCost = field(default_factory=lambda: TaskCost(0.0, 0.0, 0.0))
    body: Body = BODY


@dataclass(frozen=True, slots=True)
class Told:
    """A cost model that says what the options say."""

    launch_ns: float = 100.0
    barrier_ns: float = 40.0

    def task_ns(self, work: Work, device: VDevice, active: int) -> float:
        assert isinstance(work, Choice)
        shared = 1 + (active > device.target.sms)
        return work.time_ns * shared - work.faster_ns * (4 - device.blocks_per_sm)

    def key(self, work: Work) -> Hashable:
        assert isinstance(work, Choice)
        return work.time_ns, work.faster_ns

    def sync(self, target: Target) -> SyncCost:
        return SyncCost(self.launch_ns, self.barrier_ns, 20.0, 10.0)


def random_options(random: np.random.Generator) -> tuple[Choice, ...]:
    found = []
    for _ in range(int(random.integers(1, 4))):
        tasks, time = int(random.integers(1, 20)), float(random.integers(10, 200))
        arena = int(random.choice([0, 1024, 60_000, 100_000, 200_000]))
        registers = int(random.choice([32, 64, 128, 200]))
        found.append(Choice(tasks, time, arena, registers, float(random.integers(0, 3))))
    return tuple(found)


def naive_wave_ns(works: Sequence[Choice], on: VDevice, cost: Told) -> float:
    """Longest first, each task where it can start earliest."""
    active = min(on.units, sum(work.tasks for work in works))
    ready = [0.0] * on.units
    times = sorted(
        (cost.task_ns(work, on, active) for work in works for _ in range(work.tasks)), reverse=True
    )
    for time in times:
        unit = ready.index(min(ready))
        ready[unit] += time
    return max(ready)


@pytest.mark.parametrize("seed", range(40))
def test_a_wave_ends_when_its_tasks_placed_one_by_one_end(seed: int) -> None:
    random = np.random.default_rng(seed)
    on = vdevices(device(int(random.integers(1, 7))))[seed % 3]
    works = [options[0] for options in (random_options(random) for _ in range(4))]
    active = min(on.units, sum(work.tasks for work in works))
    times = [(Told().task_ns(work, on, active), work.tasks) for work in works]
    assert wave_ns(times, on.units) == pytest.approx(naive_wave_ns(works, on, Told()))


def until_known(works: Sequence[Choice], on: VDevice, cost: Told) -> float:
    """The time of a wave until the next one may begin: the more vEUs signal, the longer."""
    signals = min(on.units, sum(work.tasks for work in works))
    part = (signals - 1) / max(1, on.units - 1)
    sync = cost.sync(on.target)
    arrival = sync.event_ns + max(0.0, sync.barrier_ns - sync.event_ns) * part
    return naive_wave_ns(works, on, cost) + arrival


def fits(option: Choice, on: VDevice) -> bool:
    """Whether so many blocks of it are resident on an SM at once."""
    target, blocks = on.target, on.blocks_per_sm
    shared = blocks * (option.arena_bytes + 1024) <= target.shared_bytes_per_sm
    registers = option.registers * on.threads * blocks <= target.registers_per_sm
    return shared and registers and option.arena_bytes <= target.shared_bytes_per_block


@pytest.mark.parametrize("seed", range(40))
def test_each_rule_takes_the_best_of_its_kind(seed: int) -> None:
    random = np.random.default_rng(seed)
    devices, cost = vdevices(device(int(random.integers(1, 7)))), Told()
    choices = [random_options(random) for _ in range(int(random.integers(1, 4)))]
    for number, on in enumerate(devices):
        possible = [[o for o in options if fits(o, on)] for options in choices]
        for rule, key in ((Rule.FASTEST, alone_ns), (Rule.EFFICIENT, busy_ns)):
            found = Selector(devices, cost, rule).wave(choices, number)
            assert (found is None) == (not all(possible))
            if found is not None:
                picked = [c[o] for c, o in zip(choices, found.options, strict=True)]
                for option, others in zip(picked, possible, strict=True):
                    best = min(key(cost, other, on) for other in others)
                    assert key(cost, option, on) == pytest.approx(best)
                assert found.time_ns == pytest.approx(until_known(picked, on, cost))


@pytest.mark.parametrize("seed", range(40))
def test_what_is_selected_ends_no_later_than_the_fastest_and_no_sooner_than_possible(
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    devices, cost = vdevices(device(int(random.integers(1, 7)))), Told()
    kinds = [random_options(random) for _ in range(2)]
    choices = [kinds[int(n)] for n in random.integers(0, 2, int(random.integers(1, 4)))]
    for number, on in enumerate(devices):
        selected, fastest, efficient = (
            Selector(devices, cost, rule).wave(choices, number)
            for rule in (Rule.SELECTED, Rule.FASTEST, Rule.EFFICIENT)
        )
        assert (selected is None) == (fastest is None) == (efficient is None)
        if selected is None or fastest is None:
            continue
        assert selected.time_ns <= fastest.time_ns
        picked = [c[o] for c, o in zip(choices, selected.options, strict=True)]
        assert all(fits(option, on) for option in picked)
        assert selected.time_ns == pytest.approx(until_known(picked, on, cost))
        tasks = sum(c[o].tasks for c, o in zip(choices, fastest.options, strict=True))
        if tasks > on.units and efficient is not None:
            assert selected.time_ns <= efficient.time_ns
        possible = [[o for o in options if fits(o, on)] for options in choices]
        least = min(until_known(every, on, cost) for every in product(*possible))
        assert selected.time_ns >= least * (1 - 1e-9)


def test_a_crowded_wave_takes_variants_that_leave_room() -> None:
    """Eight of them on four vEUs: alone four small tasks are faster, together one large one is."""
    options = (Choice(4, 30.0), Choice(1, 60.0))
    devices, cost = vdevices(device(4))[:1], Told()
    one = Selector(devices, cost).wave([options], 0)
    many = Selector(devices, cost).wave([options] * 8, 0)
    assert one is not None and one.options == (0,) and one.time_ns == 30.0 + 40.0
    assert many is not None and many.options == (1,) * 8 and many.time_ns == 120.0 + 40.0


def cheapest(waves: Sequence[Sequence[int]], choices: Sequence[Options], selector: Selector
             ) -> float:  # fmt: skip
    """The least time of all ways to cut the waves into launches on vDevices."""
    sync, best = selector.cost.sync(selector.devices[0].target), float("inf")
    for path in product(range(len(selector.devices)), repeat=len(waves)):
        time = sync.launch_ns * (1 + sum(one != two for one, two in pairwise(path)))
        for wave, number in zip(waves, path, strict=True):
            found = selector.wave([choices[n] for n in wave], number)
            time += found.time_ns if found else float("inf")
        best = min(best, time)
    return best


@pytest.mark.parametrize("rule", Rule)
@pytest.mark.parametrize("launch_ns", [40.0, 100.0, 1000.0])
@pytest.mark.parametrize("seed", range(8))
def test_the_way_through_the_waves_is_the_cheapest_of_all(
    seed: int, launch_ns: float, rule: Rule
) -> None:
    random = np.random.default_rng(seed)
    selector = Selector(vdevices(device(int(random.integers(1, 5)))), Told(launch_ns), rule)
    choices = [random_options(random) for _ in range(int(random.integers(1, 6)))]
    cuts = sorted({0, len(choices), *random.integers(0, len(choices), 3).tolist()})
    waves = [list(range(*pair)) for pair in pairwise(cuts)]
    least = cheapest(waves, choices, selector)
    if least == float("inf"):
        with pytest.raises(CompileError, match="fix: choose a larger --target"):
            select(waves, choices, selector)
        return
    found = select(waves, choices, selector)
    sync = selector.cost.sync(selector.devices[0].target)
    time = 0.0
    assert [list(wave) for stage in found.stages for wave in stage.waves] == waves
    for stage in found.stages:
        picked = [choices[n][found.options[n]] for n in stage.operators]
        assert all(fits(option, stage.device) for option in picked)
        arena = max(option.arena_bytes for option in picked)
        assert arena <= stage.device.arena_bytes < arena + 128
        time += sync.launch_ns
        for wave in stage.waves:
            works = [choices[n][found.options[n]] for n in wave]
            time += until_known(works, stage.device, Told(launch_ns))
    assert time == pytest.approx(least)
    for one, two in pairwise(found.stages):
        assert one.device.blocks_per_sm != two.device.blocks_per_sm


def test_nothing_to_select_makes_no_stages() -> None:
    assert select([], [], Selector(vdevices(device(2)), COST)).stages == ()


@pytest.mark.parametrize(("saved_ns", "launches"), [(1.0, 1), (25.0, 3)])
def test_a_heavy_body_gets_a_launch_of_its_own_only_if_that_pays(
    saved_ns: float, launches: int
) -> None:
    """Nine light waves that gain from four blocks an SM, and one in the middle that needs all of
    an SM's memory.
    """
    light = Choice(8, 100.0, faster_ns=-saved_ns)
    heavy = Choice(2, 100.0, arena_bytes=200_000)
    choices: list[Options] = [(light,)] * 4 + [(heavy,)] + [(light,)] * 5
    selector = Selector(vdevices(device(8)), Told(100.0, 40.0))
    found = select([[n] for n in range(10)], choices, selector)
    assert len(found.stages) == launches
    blocks = [stage.device.blocks_per_sm for stage in found.stages]
    assert blocks == ([1] if launches == 1 else [4, 1, 4])
    assert found.stages[launches // 2].device.arena_bytes >= 200_000


def test_a_body_that_fits_nowhere_is_refused_with_the_fix() -> None:
    with pytest.raises(CompileError, match=r"(?s)needs 300000 bytes .* fix: choose"):
        select([[0]], [(Choice(1, 1.0, 300_000),)], Selector(vdevices(device(2)), Told()))
