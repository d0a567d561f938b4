"""The event policy: who needs whom, which waits that takes, and which of them others imply."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from plan_oracle import Entry, awaited, bit_of, blocks_of, counters_of, lanes_of, past_of
from program_support import (
    INPUT,
    Pattern,
    Planned,
    Step,
    planned_model,
    planned_steps,
    random_steps,
    read_boxes,
    vector,
    written_boxes,
)

from ramforge.compiler.expressions.regions import Boxes
from ramforge.compiler.memory import conflicts
from ramforge.compiler.plan import Kind, Launch
from ramforge.compiler.schedule import tiles
from ramforge.compiler.schedule.events import MOST_ROWS
from ramforge.compiler.schedule.known import MOST_GROUPS, Known
from ramforge.compiler.schedule.tiles import Tiles

UNITS = (1, 2, 3, 7, 40)
Ints = NDArray[np.int64]


# Which tasks touch a box


def touching_naively(written: Boxes, wanted: Boxes) -> list[tuple[int, int]]:
    """Of each box the first task that touches it and the one after the last; (0, 0) if none."""
    found = []
    for start, stop in zip(wanted.start, wanted.stop, strict=True):
        meets = ((written.start < stop) & (start < written.stop)).all(axis=1) & (start < stop).all()
        tasks = np.flatnonzero(meets).tolist()
        found.append((tasks[0], tasks[-1] + 1) if tasks else (0, 0))
    return found


def some_boxes(random: np.random.Generator, shape: tuple[int, ...]) -> Boxes:
    start = np.stack([random.integers(0, size + 1, 30) for size in shape], axis=1)
    size = np.stack([random.integers(0, 1 + size, 30) for size in shape], axis=1)
    return Boxes(start, np.minimum(start + size, np.array(shape)))


def some_writes(random: np.random.Generator) -> tuple[Boxes, tuple[int, ...]]:
    """A grid in either order; of some the tasks are shuffled or the last ones write nothing."""
    grid = tuple(random.integers(1, 7, int(random.integers(1, 4))).tolist())
    tile, spare = int(random.integers(1, 4)), int(random.integers(0, 3) * (random.random() < 0.3))
    step = Step(grid, (), tile, spare, by_columns=random.random() < 0.5)
    boxes = written_boxes(step)
    if random.random() < 0.25:
        order = random.permutation(boxes.tasks)
        boxes = Boxes(boxes.start[order], boxes.stop[order])
    return boxes, step.shape


@pytest.mark.parametrize("seed", range(120))
def test_the_tasks_that_touch_a_box_are_found(seed: int) -> None:
    random = np.random.default_rng(seed)
    written, shape = some_writes(random)
    wanted = some_boxes(random, shape)
    low, high = Tiles(written).touching(wanted)
    found = list(zip(low.tolist(), high.tolist(), strict=True))
    assert found == touching_naively(written, wanted)


@pytest.mark.parametrize("seed", range(60))
def test_too_many_pairs_make_the_answer_wider_and_never_too_narrow(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "MOST_PAIRS", 0)
    random = np.random.default_rng(seed)
    written, shape = some_writes(random)
    wanted = some_boxes(random, shape)
    low, high = Tiles(written).touching(wanted)
    naive = touching_naively(written, wanted)
    for first, last, (least, most) in zip(low.tolist(), high.tolist(), naive, strict=True):
        assert (least == most) or (0 <= first <= least and most <= last <= written.tasks)
        assert 0 <= first <= last <= written.tasks


@pytest.mark.parametrize("seed", range(40))
def test_a_grid_in_plain_order_needs_no_pairs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tasks there are: the answer for layers of real models stays exact."""
    monkeypatch.setattr(tiles, "MOST_PAIRS", 0)
    random = np.random.default_rng(seed)
    grid = tuple(random.integers(1, 7, int(random.integers(1, 4))).tolist())
    step = Step(grid, (), int(random.integers(1, 4)), by_columns=seed % 2 == 1)
    written, wanted = written_boxes(step), some_boxes(random, step.shape)
    low, high = Tiles(written).touching(wanted)
    found = list(zip(low.tolist(), high.tolist(), strict=True))
    assert found == touching_naively(written, wanted)


def test_a_scalar_is_touched_by_the_task_that_writes_it() -> None:
    one = Boxes(np.zeros((1, 0), np.int64), np.zeros((1, 0), np.int64))
    three = Boxes(np.zeros((3, 0), np.int64), np.zeros((3, 0), np.int64))
    low, high = Tiles(one).touching(three)
    assert low.tolist() == [0, 0, 0] and high.tolist() == [1, 1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_the_box_around_a_run_holds_the_boxes_of_its_tasks(seed: int) -> None:
    random = np.random.default_rng(seed)
    step = Step((int(random.integers(1, 30)),), ())
    boxes = read_boxes(step, list(Pattern)[seed % len(Pattern)], (37, 5))
    first = np.unique(np.append(0, random.integers(0, step.tasks, 4)))
    found = boxes.around(first)
    for line, (begin, end) in enumerate(pairwise([*first.tolist(), step.tasks])):
        assert found.start[line].tolist() == boxes.start[begin:end].min(axis=0).tolist()
        assert found.stop[line].tolist() == boxes.stop[begin:end].max(axis=0).tolist()


# What lanes know


@pytest.mark.parametrize("seed", range(60))
def test_lanes_know_what_they_waited_for_and_what_that_implies(seed: int) -> None:
    """Against sets of (event, group). Over 64 events, so that words are used again."""
    random = np.random.default_rng(seed)
    lanes = int(random.integers(1, 7))
    known = Known(lanes)
    naive: list[set[tuple[int, int]]] = [set() for _ in range(lanes)]
    told: dict[tuple[int, int], set[tuple[int, int]]] = {}
    groups: dict[int, int] = {}
    for event in range(150 if seed < 3 else 30):
        own = np.sort(random.permutation(lanes)[: int(random.integers(1, lanes + 1))])
        size = int(random.integers(len(own), 70))
        group = -(-size // int(random.integers(1, MOST_GROUPS + 1)))
        cuts = np.sort(random.permutation(size - 1)[: len(own) - 1]) + 1
        first, end = np.append(0, cuts), np.append(cuts, size)
        known.signal(event, own, first // group, -(-end // group))
        groups[event] = -(-size // group)
        done_by = {
            g: [
                lane
                for lane, a, b in zip(own.tolist(), first.tolist(), end.tolist(), strict=True)
                if a < (g + 1) * group and g * group < b
            ]
            for g in range(groups[event])
        }
        for g, by in done_by.items():
            if len(by) == 1:
                naive[by[0]].add((event, g))
        for g, by in done_by.items():
            told[event, g] = {(event, g)}.union(*(naive[lane] for lane in by))
        for _ in range(3):
            about = list(groups)[int(random.integers(len(groups)))]
            own = np.sort(random.permutation(lanes)[: int(random.integers(1, lanes + 1))])
            low = random.integers(0, groups[about], len(own))
            high = low + 1 + random.integers(0, groups[about], len(own)) % (groups[about] - low)
            asked = [
                {(about, g) for g in range(a, b)}
                for a, b in zip(low.tolist(), high.tolist(), strict=True)
            ]
            missing = [not some <= naive[lane] for lane, some in zip(own, asked, strict=True)]
            assert known.misses(about, own, low, high).tolist() == missing
            known.wait(about, own, low, high)
            for lane, some in zip(own.tolist(), asked, strict=True):
                naive[lane] |= set().union(*(told[key] for key in some))
        if len(groups) > 4:
            gone = list(groups)[int(random.integers(len(groups)))]
            known.forget(gone)
            del groups[gone]
            for one in (*naive, *told.values()):
                one.difference_update([key for key in one if key[0] == gone])


# The waits of a plan


def source_of(launch: Launch) -> dict[int, int]:
    """The rOperator that each event tells of: what the lane has just run."""
    found = {}
    for lane in lanes_of(launch):
        for before, entry in pairwise(lane):
            if entry.kind is Kind.SIGNAL:
                assert before.kind is Kind.RUN
                assert (before.first, before.units) == (entry.first, entry.units)
                assert found.setdefault(entry.what, before.what) == before.what
    return found


def needed(made: Planned, run: Entry, source: int, clashes: dict[int, list[int]]) -> set[int]:
    """The tasks of a source between the first and the last that a run needs, task by task."""
    if source in clashes.get(run.what, ()):
        return set(range(made.operators[source].tasks))
    found: set[int] = set()
    for name, boxes in made.operators[run.what].variant.reads.items():
        if name in made.operators[source].variant.writes:
            own = slice(run.first, run.first + run.units)
            box = Boxes(boxes.start[own].min(axis=0)[None], boxes.stop[own].max(axis=0)[None])
            written = made.operators[source].variant.writes[name]
            found.update(*touching_naively(written, box))
    return set(range(min(found), max(found))) if found else set()


def plain_waits(blocks: list[list[Entry]]) -> dict[tuple[int, int], tuple[int, int]]:
    """Where all lanes of an rOperator wait for the same first units of an event: by event and
    rOperator. That may be more than they need, if what they need is too irregular for few rows.
    """
    found: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
    for block in blocks:
        held: dict[int, tuple[int, int]] = {}
        for entry in block:
            if entry.kind is Kind.WAIT:
                held[entry.what] = (entry.first, entry.units)
            elif entry.kind is Kind.RUN:
                for event, units in held.items():
                    found[event, entry.what].add(units)
                held = {}
    return {
        key: units
        for key, (units, *others) in found.items()
        if not others and units[0] == 0 and all(
            any(e.kind is Kind.WAIT and e.what == key[0] for e in block)
            for block in blocks if any(e.kind is Kind.RUN and e.what == key[1] for e in block)
        )
    }  # fmt: skip


def assert_waits_are_right(made: Planned) -> tuple[int, int, int]:
    """How many waits there are, how many were left out, and how many were not necessary."""
    clashes = conflicts(made.memory, made.operators, made.plan.steps)
    waits = left_out = idle = 0
    for launch in made.plan.launches:
        blocks = blocks_of(launch, launch.lanes)
        past, bit, sources = past_of(blocks, launch), bit_of(blocks), source_of(launch)
        assert past is not None
        inside = {entry.what for block in blocks for entry in block if entry.kind is Kind.RUN}
        event_of = {source: event for event, source in sources.items()}
        signals: dict[tuple[int, int], int] = defaultdict(int)
        size, group = launch.events.size.tolist(), launch.events.group.tolist()
        ran: dict[tuple[int, int], int] = {}
        for entry in (entry for block in blocks for entry in block):
            if entry.kind is Kind.SIGNAL:
                own = counters_of(size[entry.what], group[entry.what], entry.first, entry.units)
                for counter, _ in own:
                    signals[entry.what, counter] |= 1 << bit[entry.row, entry.lane]
            elif entry.kind is Kind.RUN:
                for task in range(entry.first, entry.first + entry.units):
                    ran[entry.what, task] = bit[entry.row, entry.lane]
        # of so few lanes the needs are never too irregular
        plain = plain_waits(blocks) if launch.lanes > MOST_ROWS else {}
        for block in blocks:
            held: dict[int, Entry] = {}
            before: dict[int, int] = {}  # what was over when a wait began
            over = 0
            for entry in block:
                if entry.kind is Kind.WAIT:
                    held[entry.what], before[entry.what] = entry, over
                over = past[entry.row, entry.lane] | 1 << bit[entry.row, entry.lane]
                if entry.kind is not Kind.RUN:
                    continue
                for source in inside - {entry.what}:
                    tasks = needed(made, entry, source, clashes)
                    event = event_of.get(source)
                    wait = held.pop(event, None) if event is not None else None
                    if event is not None and wait is not None and (event, entry.what) in plain:
                        assert (wait.first, wait.units) == plain[event, entry.what]
                        assert max(tasks, default=0) < wait.units
                        waits += 1
                        continue
                    if not tasks:
                        assert wait is None
                        continue
                    if event is None:  # nobody waits for it: all know of it in another way
                        assert all(over >> ran[source, task] & 1 for task in tasks)
                        left_out += 1
                        continue
                    counters = range(min(tasks) // group[event], max(tasks) // group[event] + 1)
                    all_of_them = 0
                    for counter in counters:
                        all_of_them |= signals[event, counter]
                    if wait is None:
                        assert all_of_them & ~past[entry.row, entry.lane] == 0
                        left_out += 1
                    else:
                        assert awaited(group[event], wait.first, wait.units) == counters
                        waits += 1
                        if all_of_them & ~before[event] == 0:
                            idle += 1
                            # whoever did a part of a group tells nobody that it is done
                            shared = [signals[event, c].bit_count() > 1 for c in counters]
                            assert any(shared)
                assert not held, "a wait for what is not needed"
    return waits, left_out, idle


@pytest.mark.parametrize("units", UNITS)
def test_waits_are_for_what_is_needed_and_left_out_only_if_implied(units: int) -> None:
    totals = np.zeros(3, dtype=np.int64)
    for seed in range(25):
        random = np.random.default_rng([seed, units])
        steps = random_steps(random, 8, 4 * units if units < 10 else 50)
        cuts, blocks = ((2,), (1, 2)) if seed % 4 == 0 else ((), (1,))
        made = planned_steps(steps, units, "events", cuts, blocks)
        found = assert_waits_are_right(made)
        assert found[:2] == (made.plan.waits, made.plan.implied)
        totals += found
    print(f"\n{units} vEUs: {totals[0]} waits, {totals[1]} implied, {totals[2]} idle")
    assert totals[2] <= 0.1 * totals[0]


@pytest.mark.parametrize("model", ["resnet_small", "encoder_small", "mobilenet_small"])
def test_the_waits_of_example_models_are_right(model: str) -> None:
    made = planned_model(model, "events", 7)
    waits, implied, _ = assert_waits_are_right(made)
    assert (waits, implied) == (made.plan.waits, made.plan.implied) and waits > 0 < implied


def test_neighbours_wait_for_neighbours_only() -> None:
    """A chain of halos: each lane waits for at most three lanes of the step before it."""
    steps = [vector(8, n - 1, pattern=Pattern.HALO) for n in range(3)]
    made = planned_steps(steps, 8, "events")
    (launch,) = made.plan.launches
    assert launch.events.group.tolist() == [1, 1]
    for row in launch.rows.spread(launch.rows.of_kind(Kind.WAIT)).units.tolist():
        assert 2 <= row <= 3
    assert made.plan.waits == 2 * 8


def test_own_work_is_not_waited_for() -> None:
    steps = [vector(8, n - 1, pattern=Pattern.SHARE) for n in range(3)]
    made = planned_steps(steps, 8, "events")
    assert made.plan.waits == made.plan.events == 0
    assert len(made.plan.launches[0].rows.of_kind(Kind.SIGNAL)) == 0


def test_what_an_earlier_wait_implies_is_not_waited_for_again() -> None:
    """The last step reads the first one too, which the wait for the second one implies."""
    made = planned_steps((vector(4, INPUT), vector(4, 0), vector(4, 0, 1)), 4, "events")
    assert made.plan.events == 2 and made.plan.waits == 8 and made.plan.implied == 4


@pytest.mark.parametrize("units", UNITS)
def test_an_event_has_few_groups_and_only_awaited_ones_are_signalled(units: int) -> None:
    for seed in range(20):
        steps = random_steps(np.random.default_rng(seed), 8, 200)
        made = planned_steps(steps, units, "events")
        for launch in made.plan.launches:
            events = launch.events
            assert (events.groups <= MOST_GROUPS).all() and (events.group <= events.size).all()
            kinds = (Kind.WAIT, Kind.SIGNAL)
            waits, signals = (set(launch.rows.what[launch.rows.of_kind(k)].tolist()) for k in kinds)
            assert waits == signals == set(range(len(events)))


@pytest.mark.parametrize("units", UNITS)
def test_prefetches_stand_before_the_waits_of_the_run_that_they_are_for(units: int) -> None:
    found = 0
    for seed in range(20):
        steps = random_steps(np.random.default_rng(seed), 8, 60)
        made = planned_steps(steps, units, "events")
        for launch in made.plan.launches:
            for lane in lanes_of(launch):
                for at, entry in enumerate(lane):
                    if entry.kind is Kind.PREFETCH:
                        found += 1
                        assert steps[entry.what].prefetches
                        after = [other.kind for other in lane[at + 1 :]]
                        run = lane[at + 1 + after.index(Kind.RUN)]
                        assert (run.what, run.first, run.units) == (
                            entry.what, entry.first, entry.units
                        )  # fmt: skip
                        assert set(after[: after.index(Kind.RUN)]) == {Kind.WAIT}
    assert found > 10 or units == 1


def test_neighbours_wait_for_neighbours_only_however_many_they_are() -> None:
    """What is needed goes forward from lane to lane: that is regular, and takes few rows."""
    steps = [vector(60, n - 1, pattern=Pattern.HALO) for n in range(3)]
    made = planned_steps(steps, 60, "events")
    (launch,) = made.plan.launches
    units = launch.rows.spread(launch.rows.of_kind(Kind.WAIT)).units
    assert set(units.tolist()) == {2, 3} and made.plan.waits == 2 * 60
