"""The planner of memory: what lives at the same time lies apart, and little is wasted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_support import MODELS, Step, device, planned, planned_model, program

from ramforge.compiler import memory
from ramforge.compiler.memory import ALIGNMENT, WEIGHTS, WORKSPACE, Buffer, Place, plan_memory
from ramforge.compiler.schedule import POLICIES

MOST_WASTE = 1.3  # workspace over the least that any plan of memory needs

lifetimes = st.builds(
    lambda nbytes, first, length: Buffer((f"{nbytes}",), nbytes, first, first + length),
    st.integers(0, 5000),
    st.integers(0, 12),
    st.integers(0, 6),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(lifetimes, max_size=24))
def test_buffers_that_live_at_the_same_time_lie_apart(buffers: list[Buffer]) -> None:
    offsets, size = memory._pack(buffers)
    lines = -(-size // ALIGNMENT) if size else 0
    for step in range(20):
        owner = np.full(max(1, size), -1)
        for number, (buffer, offset) in enumerate(zip(buffers, offsets, strict=True)):
            assert offset % ALIGNMENT == 0
            assert offset + buffer.nbytes <= size
            if buffer.first_step <= step <= buffer.last_step:
                own = owner[offset : offset + buffer.nbytes]
                assert (own == -1).all()
                own[:] = number
    live = max(
        (
            sum(
                -(-buffer.nbytes // ALIGNMENT)
                for buffer in buffers
                if buffer.first_step <= step <= buffer.last_step
            )
            for step in range(20)
        ),
        default=0,
    )
    assert memory._peak(buffers) == live * ALIGNMENT
    assert lines >= live


def test_a_buffer_lives_from_its_writer_to_its_last_reader() -> None:
    steps = (Step(2, (-1,)), Step(3, (0,)), Step(2, (1,)), Step(1, (0, 2)))
    made = planned(*program(steps), device(2))
    found = memory._lifetimes(made.graph, made.operators, made.plan, {"x": Place(2, 0),
                              "t3": Place(3, 0)})  # fmt: skip
    assert {buffer.tensors[0]: (buffer.first_step, buffer.last_step) for buffer in found} == {
        "t0": (0, 3),
        "t1": (1, 2),
        "t2": (2, 3),
    }


def test_a_chain_needs_two_buffers_only() -> None:
    steps = tuple(Step(64, (number - 1,)) for number in range(10))
    made = planned(*program(steps), device(4))
    assert made.memory.workspace_bytes == made.memory.peak_live_bytes == 2 * 64 * 4 * 4


def test_inputs_and_outputs_are_spaces_of_their_own() -> None:
    made = planned(*program((Step(2, (-1,)), Step(2, (-1,)))), device(2))
    places = made.memory.places
    assert (places["x"], places["t0"], places["t1"]) == (Place(2, 0), Place(3, 0), Place(4, 0))
    assert made.memory.workspace_bytes == 0


@given(st.lists(st.integers(0, 5000), max_size=12))
def test_weights_follow_each_other_in_file_order_on_64_byte_boundaries(sizes: list[int]) -> None:
    operators, graph = program((Step(2, (-1,)),))
    plan = planned(operators, graph, device(2)).plan
    weights = {f"w{number}": size for number, size in enumerate(sizes)}
    made = plan_memory(graph, operators, plan, weights)
    end = 0
    for name, size in weights.items():
        offset = made.weight_offsets[name]
        assert made.places[name] == Place(WEIGHTS, offset)
        assert offset % 64 == 0 and end <= offset < end + 64
        end = offset + size
    assert made.weight_bytes >= end and made.weight_bytes % 64 == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_the_workspace_of_the_example_models_is_close_to_the_least(policy: str) -> None:
    print(f"\n{policy}: workspace over the peak of what lives at once")
    for model in MODELS:
        made = planned_model(model, policy, 132)
        used, least = made.memory.workspace_bytes, made.memory.peak_live_bytes
        print(f"  {model:16} {used:9} / {least:9} = {used / max(1, least):.3f}")
        assert least <= used <= MOST_WASTE * least


@pytest.mark.parametrize("model", MODELS)
def test_tensors_of_the_example_models_that_live_at_once_lie_apart(model: str) -> None:
    made = planned_model(model, "waves", 132)
    live: dict[str, list[int]] = {}
    for operator, step in zip(made.operators, made.plan.steps, strict=True):
        for name in operator.variant.operands:
            if made.memory.places[name].space == WORKSPACE:
                live.setdefault(name, []).append(step)
    for step in range(max(made.plan.steps) + 1):
        owner: dict[int, str] = {}
        for name, uses in live.items():
            if min(uses) <= step <= max(uses):
                start = made.memory.places[name].offset
                assert start % ALIGNMENT == 0
                for line in range(start, start + made.graph.tensor(name).nbytes, ALIGNMENT):
                    assert owner.setdefault(line, name) == name
