"""Cells of recurrent networks: a product and its states as one node, in every width of a tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.codegen import artifact as artifacts
from ramforge.compiler.device import find_target
from ramforge.compiler.expressions import interpret
from ramforge.compiler.expressions.computation import CELL, computation_of
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import Graph
from ramforge.compiler.passes.merge_gates import MOST_ROWS
from ramforge.compiler.pipeline import compile_graph, optimise
from ramforge.compiler.rprogram import Candidate
from ramforge.kernels.tiles import MOST_FEW_ROWS
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.drivers.emulator import Order
from ramforge.runtime.session import Session
from ramforge.zoo import ZOO
from tests.host_builds import quick_host_builds

Array = NDArray[Any]
STEPS = 3


def recurrent(
    kind: str, gates: int, hidden: int, batch: int = 1, width: int = 8, **attributes: Any
) -> onnx.ModelProto:
    """An operator of this kind over a few steps; the states of all steps are the output."""
    random = np.random.default_rng(hidden)
    weights = {
        "W": random.standard_normal((1, gates * hidden, width)) / np.sqrt(width),
        "R": random.standard_normal((1, gates * hidden, hidden)) / np.sqrt(hidden),
        "B": random.standard_normal((1, 2 * gates * hidden)),
    }
    node = helper.make_node(
        kind, ["x", "W", "R", "B"], ["states"], hidden_size=hidden, **attributes
    )
    behind = helper.make_node("Neg", ["states"], ["y"])
    graph = helper.make_graph(
        [node, behind],
        "recurrent",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [STEPS, batch, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [STEPS, 1, batch, hidden])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


MODELS = {
    "LSTM": recurrent("LSTM", 4, 32),
    "LSTM, 4 rows": recurrent("LSTM", 4, 48, batch=4),
    "GRU": recurrent("GRU", 3, 32, linear_before_reset=1),
    "RNN": recurrent("RNN", 1, 64, batch=2),
}


def fed(model: onnx.ModelProto) -> dict[str, Array]:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}


def reference(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, dict(feeds))[0])


def cells(graph: Graph) -> int:
    return sum(computation_of(node).kind == CELL for node in graph.nodes)


@pytest.mark.parametrize("name", ["LSTM", "LSTM, 4 rows", "GRU"])
def test_steps_are_cells_and_mean_the_same(name: str) -> None:
    model = MODELS[name]
    graph = optimise(import_model(model))
    assert cells(graph) >= STEPS - 1
    feeds = fed(model)
    known = {**graph.constants, **feeds}
    for node in graph.nodes:
        given = [known[tensor] for tensor in node.inputs]
        known[node.outputs[0]] = interpret.run(computation_of(node), given)
    np.testing.assert_allclose(known["y"], reference(model, feeds), atol=1e-5)


def test_many_rows_and_gates_that_others_read_stay_products() -> None:
    assert not cells(optimise(import_model(recurrent("LSTM", 4, 32, batch=5))))
    text = "p = MatMul(x, w) a, b = Split<axis=1>(p) s = Sigmoid(a) t = Tanh(b) y = Mul(s, t) "
    head = '<ir_version: 8, opset_import: ["" : 17]>\n'
    inputs = "float[1, 64] x, float[32, 32] v"
    random = np.random.default_rng(3)

    def count(nodes: str, outputs: str) -> int:
        model = onnx.parser.parse_model(f"{head}g ({inputs}) => ({outputs}) {{ {nodes} }}")
        weight = random.standard_normal((64, 64)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        return cells(optimise(import_model(model)))

    assert count(text + "z = Neg(y)", "float[1, 32] y") == 0  # a state that is an output
    gated = text + "u = MatMul(y, v)"
    assert count(gated, "float[1, 32] u") == 1
    assert count(gated, "float[1, 32] u, float[1, 64] p") == 0


def candidate(number: int) -> Any:
    def offer(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        is_cell = candidates[0].body.family == "cell"
        return (candidates[number % len(candidates)],) if is_cell else candidates[:1]

    return offer


@pytest.mark.parametrize(
    ("name", "number", "precision", "tolerance", "race"),
    [
        ("LSTM", 0, "fp32", 1e-5, False),
        ("LSTM", 1, "fp32", 1e-5, True),
        ("LSTM, 4 rows", 0, "fp32", 1e-5, False),
        ("GRU", 0, "fp32", 1e-5, True),
        ("LSTM", 0, "fp16", 4e-3, False),
        ("LSTM, 4 rows", 1, "bf16", 4e-2, False),
    ],
)
def test_cells_are_right_in_the_emulator(
    name: str, number: int, precision: str, tolerance: float, race: bool, tmp_path: Path
) -> None:
    model = MODELS[name]
    target = replace(find_target("h200"), sms=3).with_precision(precision)
    program = compile_graph(import_model(model), target, "waves", offer=candidate(number))
    assert any(operator.variant.body.family == "cell" for operator in program.operators)
    artifact = artifacts.emit(program, tmp_path / "out.cu", {})
    driver = EmulatedDriver(artifact, race=race, quick=True)
    driver.settings = Settings(order=Order.RANDOM)
    feeds = fed(model)
    (found,) = driver.run([feeds["x"]])
    driver.close()
    expected = reference(model, feeds)
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("target", ["host:2", "h200"])
def test_cells_are_right_on_the_host(name: str, target: str, tmp_path: Path) -> None:
    """As made for cores, and as made for a GPU."""
    model = MODELS[name]
    program = compile_graph(import_model(model), find_target(target), "events")
    artifact = artifacts.emit(program, tmp_path / "out.cu", {})
    feeds = fed(model)
    with quick_host_builds(), Session(artifact, "host") as session:
        (found,) = session.run(None, feeds)
    np.testing.assert_allclose(found, reference(model, feeds), atol=1e-5)


def test_gates_with_weights_of_their_own_are_one_product() -> None:
    """As an unrolled LSTM is spelled: small, two layers of five steps."""
    model = ZOO["lstm_tc"].small()
    assert sum(node.op_type == "MatMul" for node in model.graph.node) == 8 * 2 * 5
    graph = optimise(import_model(model))
    kinds = [computation_of(node).kind for node in graph.nodes]
    assert kinds.count(CELL) == 2 * 5 - 1
    assert kinds.count("sum") == 2 * 5 - 1
    assert max(graph.levels().values()) == 8


def test_gates_are_merged_for_as_many_rows_as_cells_have() -> None:
    assert MOST_ROWS == MOST_FEW_ROWS


def test_products_that_meet_in_no_state_stay_apart() -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "g (float[1, 8] x, float[8, 8] u, float[8, 8] v) => (float[1, 8] y, float[1, 8] z)"
        "{ a = MatMul(x, k) b = MatMul(x, l) y = MatMul(a, u) z = MatMul(b, v) }"
    )
    model = onnx.parser.parse_model(text)
    for name in "kl":
        model.graph.initializer.append(numpy_helper.from_array(np.eye(8, dtype=np.float32), name))
    assert len(optimise(import_model(model)).nodes) == 4


def test_gates_that_are_mixed_in_any_order_stay_in_order() -> None:
    """Products in an order of their own, whose maps meet late."""
    text = (
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "g (float[1, 8] x) => (float[1, 8] r, float[1, 8] m1, float[1, 8] m3, float[1, 8] m4)"
        "{ a = MatMul(x, w1) r = Sigmoid(a) b = MatMul(x, w2) b2 = Sigmoid(b) c = MatMul(x, w3)"
        " m1 = Mul(a, c) d = MatMul(x, w4) m3 = Mul(d, m1) m4 = Mul(d, b2) }"
    )
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(4)
    for name in ("w1", "w2", "w3", "w4"):
        weight = random.standard_normal((8, 8)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    graph, feeds = optimise(import_model(model)), fed(model)
    known = {**graph.constants, **feeds}
    for node in graph.nodes:
        known[node.outputs[0]] = interpret.run(
            computation_of(node), [known[tensor] for tensor in node.inputs]
        )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for name, expected in zip(["r", "m1", "m3", "m4"], session.run(None, feeds), strict=True):
        np.testing.assert_allclose(known[name], expected, atol=1e-5)
