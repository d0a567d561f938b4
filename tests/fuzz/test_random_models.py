"""Random valid models: the optimised graph, host body and emulator agree with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from ramforge.compiler import registry
from ramforge.compiler.errors import RamforgeError, UnsupportedModel
from ramforge.runtime.drivers.emulated import Settings
from ramforge.runtime.drivers.emulator import Order
from tests.fuzz import cases
from tests.fuzz.maker import Maker, program
from tests.fuzz.operators import GENERATORS, WITHOUT
from tests.fuzz.run_time import with_operands_as_inputs
from tests.fuzz.running import (
    add,
    compiled,
    complaints,
    differences,
    in_emulator,
    interpreted,
    on_host,
    usable,
)

ORDERS = (
    Settings(),
    Settings(blocks=3, order=Order.RANDOM, seed=11),
    Settings(blocks=1, order=Order.DESCENDING),
)
JOINED = (17, 22)


def joined(opset: int) -> list[Maker]:
    return cases.several("joined", opset, graphs=6, steps=8)


def test_every_operator_has_a_generator_or_a_reason() -> None:
    assert set(registry.names()) - set(GENERATORS) == set(WITHOUT)


@pytest.mark.parametrize("opset", cases.OPSETS)
def test_every_generator_makes_valid_nodes(opset: int) -> None:
    """One node of each operator; one in eight tries may find nothing to work on."""
    wrong = []
    for op in usable(opset):
        tries = (Maker(cases.Seeded(f"{op} {seed}"), opset) for seed in range(8))
        made = next((maker for maker in tries if add(maker, op)), None)
        if made is None:
            wrong.append(f"{op}: no valid node in 8 tries")
            continue
        single = program([made])
        try:
            wrong += complaints(single, interpreted(single.model, single.inputs), op)
        except RamforgeError as error:
            wrong.append(f"{op}: {error}")
    assert not wrong, "\n".join(wrong)


def test_operands_that_decide_shapes_may_come_at_run_time() -> None:
    """What the shapes do not tell is refused; the rest gives the same."""
    ran, wrong = set(), []
    for op in usable(22):
        for seed in range(6):
            maker = Maker(cases.Seeded(f"{op} {seed} run time"), 22)
            if not add(maker, op):
                continue
            made = with_operands_as_inputs(program([maker]), maker)
            if made is None:
                continue
            try:
                found = interpreted(made.model, made.inputs)
            except UnsupportedModel as error:
                assert "decides a shape" in str(error), (op, seed, str(error))
                continue
            ran.add(op)
            wrong += complaints(made, found, f"{op} {seed}")
    assert not wrong, "\n".join(wrong)
    assert ran >= {"Slice", "Pad", "ReduceSum", "ReduceMax", "CumSum", "Squeeze", "Tile", "TopK"}


@settings(
    max_examples=50,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)
@given(cases.makers())
def test_optimised_graphs_give_what_each_node_gives_by_itself(maker: Maker) -> None:
    if maker.nodes:
        made = program([maker])
        assert not complaints(made, interpreted(made.model, made.inputs), "NumPy")


@pytest.mark.parametrize("opset", JOINED)
def test_host_and_emulator_give_what_each_node_gives_by_itself(opset: int, tmp_path: Path) -> None:
    """Many graphs in one program, on the host and in the emulator in several orders."""
    made = program(joined(opset))
    artifact = compiled(made.model, tmp_path)
    host = on_host(artifact, made.inputs)
    found = complaints(made, host, "host")
    assert not found, "\n".join(found)
    emulated = in_emulator(artifact, made.inputs, ORDERS)
    for order, results in zip(ORDERS, emulated, strict=True):
        wrong = differences(made, host, results)
        assert not wrong, f"{order}: " + "\n".join(wrong)
    for other in emulated[1:]:
        assert all(np.array_equal(a, b, True) for a, b in zip(emulated[0], other, strict=True))


def test_the_graphs_are_what_they_are_for() -> None:
    """Values with several readers, tensors of nothing, NaNs, ranks from 0 to 5, many types."""
    makers = [maker for opset in JOINED for maker in joined(opset)]
    values = [value for maker in makers for value in maker.values]
    assert {value.rank for value in values} >= {0, 1, 2, 3, 4, 5}
    assert len({value.kind for value in values}) >= 9
    assert any(0 in value.shape for value in values)
    assert any(value.kind.kind == "f" and np.isnan(value.array).any() for value in values)
    reads = [name for maker in makers for node in maker.nodes for name in node.input if name]
    assert len(reads) - len(set(reads)) > 10
    assert len({node.op_type for maker in makers for node in maker.nodes}) > 50


def test_a_wrong_result_is_seen() -> None:
    maker = Maker(cases.Seeded("wrong"), 22)
    assert add(maker, "Exp")
    made = program([maker])
    (right,) = interpreted(made.model, made.inputs)
    assert not complaints(made, [right], "NumPy")
    wrong = right.copy()
    wrong.reshape(-1)[0] = wrong.reshape(-1)[0] * 1.5 + 1
    assert complaints(made, [wrong], "NumPy")
    assert differences(made, [right], [wrong])
