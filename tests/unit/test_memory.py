"""The planner of memory: what lives at the same time lies apart, and little is wasted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_support import (
    COST,
    INPUT,
    MODELS,
    Pattern,
    Planned,
    Step,
    planned_model,
    planned_steps,
    program,
    random_steps,
    vector,
)

from ramforge.compiler.device import find_target
from ramforge.compiler.frontend import import_model
from ramforge.compiler.memory import (
    WEIGHTS,
    WORKSPACE,
    Memory,
    Place,
    conflicts,
    neighbours,
    plan_memory,
)
from ramforge.compiler.packing import ALIGNMENT
from ramforge.compiler.pipeline import attempts, optimise, search
from ramforge.compiler.schedule import POLICIES
from ramforge.compiler.schedule.arrangement import Need, Needs
from ramforge.zoo import ZOO

MOST_WASTE = 1.1  # workspace over what lives at once, under any schedule


def test_a_buffer_lives_from_its_writer_to_its_last_reader() -> None:
    steps = (vector(2, INPUT), vector(3, 0), vector(2, 1), vector(1, 0, 2))
    made = planned_steps(steps, 2)
    assert {b.tensors[0]: (b.first_step, b.last_step) for b in made.memory.buffers} == {
        "t0": (0, 3),
        "t1": (1, 2),
        "t2": (2, 3),
    }


@pytest.mark.parametrize("policy", POLICIES)
def test_a_chain_needs_two_buffers(policy: str) -> None:
    steps = tuple(vector(64, number - 1) for number in range(10))
    made = planned_steps(steps, 4, policy)
    assert made.memory.workspace_bytes == made.memory.peak_live_bytes == 2 * 64 * 4 * 4


@pytest.mark.parametrize(
    ("policy", "pattern", "own_place"),
    [
        ("events", Pattern.SHARE, True),
        ("events", Pattern.ALL, False),
        ("waves", Pattern.SHARE, False),
    ],
)
def test_memory_is_used_again_where_nobody_waits_longer_for_it(
    policy: str, pattern: Pattern, own_place: bool
) -> None:
    """In a chain beside a large tensor: a step that waits for all of the one before it may as well
    take the place of what that one has read.
    """
    chain = [vector(16, number, pattern=pattern) for number in (1, 2)]
    steps = (vector(400, INPUT), vector(16, INPUT), *chain, vector(4, 0, 3))
    made = planned_steps(steps, 4, policy)
    made.check()
    places = made.memory.places
    assert (places["t3"] != places["t1"]) == own_place


def test_a_wait_is_as_long_as_predicted_and_nothing_in_another_launch() -> None:
    needs = Needs(
        reads={0: (), 1: (), 2: (Need(0), Need(1, (np.array([0]), np.array([1])))), 3: ()},
        periods=lambda number: set(),
        stage=(0, 0, 0, 1),
        begin_ns=(0.0, 0.0, 50.0, 0.0),
        end_ns=(90.0, 70.0, 100.0, 10.0),
    )
    assert needs.wait_ns(2, 0) == 0  # it reads all of that
    assert needs.wait_ns(2, 1) == 20
    assert needs.wait_ns(1, 2) == 100
    assert needs.wait_ns(3, 2) == 0
    done_before = replace(needs, end_ns=(90.0, 30.0, 100.0, 10.0))
    assert done_before.wait_ns(2, 1) > 0


def test_inputs_and_outputs_are_spaces_of_their_own() -> None:
    made = planned_steps((vector(2, INPUT), vector(2, INPUT)), 2)
    places = made.memory.places
    assert (places["x"], places["t0"], places["t1"]) == (Place(2, 0), Place(3, 0), Place(4, 0))
    assert made.memory.workspace_bytes == 0


@given(st.lists(st.integers(0, 5000), max_size=12))
def test_weights_follow_each_other_in_file_order_on_64_byte_boundaries(sizes: list[int]) -> None:
    operators, graph = program((vector(2, INPUT),))
    weights = {f"w{number}": size for number, size in enumerate(sizes)}
    made = plan_memory(graph, operators, (0,), weights)
    end = 0
    for name, size in weights.items():
        offset = made.weight_offsets[name]
        assert made.places[name] == Place(WEIGHTS, offset)
        assert offset % 64 == 0 and end <= offset < end + 64
        end = offset + size
    assert made.weight_bytes >= end and made.weight_bytes % 64 == 0


def uses(made: Planned) -> dict[str, list[int]]:
    """The rOperators that use each tensor of the workspace."""
    found: dict[str, list[int]] = {}
    for number, operator in enumerate(made.operators):
        for name in {*operator.variant.reads, *operator.variant.writes}:
            if made.memory.places[name].space == WORKSPACE:
                found.setdefault(name, []).append(number)
    return found


def shares(made: Planned, one: str, two: str) -> bool:
    """Whether two tensors have a byte in common."""
    spans = [
        set(range(place.offset, place.offset + made.graph.tensor(name).nbytes))
        for name, place in ((one, made.memory.places[one]), (two, made.memory.places[two]))
    ]
    return bool(spans[0] & spans[1])


def random_plan(seed: int, policy: str) -> Planned:
    random = np.random.default_rng(seed)
    steps = random_steps(random, 14, 20)
    return planned_steps(steps, int(random.choice([1, 3, 7])), policy)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(25))
def test_whoever_writes_waits_for_all_that_used_the_memory_before(seed: int, policy: str) -> None:
    """Of any two tensors that share a byte one is over, and the conflicts say so, directly or
    through others.
    """
    made = random_plan(seed, policy)
    steps, users = made.plan.steps, uses(made)
    writer = {name: n for n, o in enumerate(made.operators) for name in o.variant.writes}
    found = conflicts(made.memory, made.operators, steps)
    chain = nx.DiGraph([(user, number) for number, those in found.items() for user in those])
    chain.add_nodes_from(range(len(made.operators)))
    chain.add_edges_from((writer[name], user) for name, those in users.items() for user in those)
    expected: set[tuple[int, int]] = set()
    for one in users:
        for two in users:
            if steps[writer[one]] < steps[writer[two]] and shares(made, one, two):
                assert max(steps[n] for n in users[one]) < min(steps[n] for n in users[two])
                assert all(nx.has_path(chain, user, writer[two]) for user in users[one])
                expected |= {(writer[two], user) for user in users[one]}
            elif one != two and steps[writer[one]] == steps[writer[two]]:
                assert not shares(made, one, two)
    assert {(number, user) for number, those in found.items() for user in those} <= expected


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8)), max_size=8))
def test_neighbours_are_those_with_nobody_between_them_on_some_byte(
    spans: list[tuple[int, int]],
) -> None:
    order = [f"t{number}" for number in range(len(spans))]
    places = {name: Place(WORKSPACE, start) for name, (start, _) in zip(order, spans, strict=True)}
    sizes = {name: size for name, (_, size) in zip(order, spans, strict=True)}
    expected = set()
    for byte in range(30):
        here = [name for name, (a, size) in zip(order, spans, strict=True) if a <= byte < a + size]
        expected |= set(pairwise(here))
    assert set(neighbours(order, places, sizes)) == expected


@pytest.mark.parametrize("name", ZOO)
def test_the_workspace_is_close_to_what_lives_at_once(name: str) -> None:
    """The small forms of the zoo, on two cores and on a GPU, with and without sums in parts."""
    graph = optimise(import_model(ZOO[name].small()))
    for target in map(find_target, ("host:2", "h200")):
        for lowered in attempts(graph, target, COST):
            for policy in POLICIES.values():
                made = search(lowered, COST).best((policy,)).memory
                peak = brute_force_peak(made)
                print(f"{target.name} {policy.name}: {made.workspace_bytes} of {peak}")
                assert made.peak_live_bytes == peak
                assert peak <= made.workspace_bytes <= MOST_WASTE * peak


def brute_force_peak(made: Memory) -> int:
    """The most that lives in one step, by going through all of them."""
    steps = {b.first_step for b in made.buffers}
    alive = [[b for b in made.buffers if b.first_step <= s <= b.last_step] for s in steps]
    return max((sum(-(-b.nbytes // ALIGNMENT) for b in each) for each in alive), default=0) * (
        ALIGNMENT
    )


def overlapping(made: Planned, names: Sequence[str]) -> bool:
    spans = sorted(
        (made.memory.places[name].offset, made.memory.places[name].offset
         + made.graph.tensor(name).nbytes) for name in names
    )  # fmt: skip
    return any(end > start for (_, end), (start, _) in pairwise(spans))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("model", MODELS)
def test_tensors_of_the_example_models_that_live_at_once_lie_apart(model: str, policy: str) -> None:
    made = planned_model(model, policy, 132)
    steps, users = made.plan.steps, uses(made)
    for step in range(max(steps) + 1):
        alive = [
            name
            for name, those in users.items()
            if min(steps[n] for n in those) <= step <= max(steps[n] for n in those)
        ]
        assert not overlapping(made, alive)
        assert all(made.memory.places[name].offset % ALIGNMENT == 0 for name in alive)


def test_steps_of_several_sizes_take_the_place_of_one_another() -> None:
    """A large tensor, then two small ones in its place, then a large one over both."""
    steps: tuple[Step, ...] = (
        vector(32, INPUT),
        vector(4, 0),
        vector(16, 1, tile=4),
        vector(16, 1, tile=4),
        vector(32, 2, 3),
        vector(1, 4),
    )
    made = planned_steps(steps, 3, "events")
    made.check()
    assert made.memory.workspace_bytes < sum(b.nbytes for b in made.memory.buffers)
    assert conflicts(made.memory, made.operators, made.plan.steps)
