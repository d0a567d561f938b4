"""Opsets 1 to 8 mean what they said, or are refused: ONNX Runtime runs them no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from frontend_support import ALL_OPERATORS, have, parse, run_reference, to_model
from onnx import helper, numpy_helper

from ramforge.compiler.errors import InvalidModel, UnsupportedModel
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import Array

F = np.float32


def values(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(F)


def old(operator: str, opset: int, *inputs: Array, outputs: int = 1, **attrs: Any) -> Any:
    """A node of an old opset; its inputs but for the first are constants."""
    names = [f"x{number}" for number in range(len(inputs))]
    made = [f"y{number}" for number in range(outputs)]
    node = helper.make_node(operator, names, made, name="the_node", **attrs)
    graph = helper.make_graph(
        [node],
        "old",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in zip(names, inputs, strict=True)
        ],
        [onnx.ValueInfoProto(name=name) for name in made],
        [numpy_helper.from_array(v, n) for n, v in zip(names[1:], inputs[1:], strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)


X, CHANNEL, ROWS = values(2, 3, 4, 5), values(3, seed=1), values(3, 4, seed=2)
BATCH = [values(3, seed=seed) for seed in (3, 4, 5)]
FULL = [values(3, 4, 5, seed=seed) for seed in (6, 7, 8)]
VARIANCE = {len(a.shape): np.abs(a) + F(0.5) for a in (CHANNEL, FULL[0])}


def selu(x: Array, alpha: float, gamma: float) -> Array:
    return np.asarray(gamma * np.where(x > 0, x, alpha * (np.exp(x) - 1)), F)


def normalised(x: Array, scale: Array, bias: Array, mean: Array, variance: Array) -> Array:
    def wide(a: Array) -> Array:
        return a.reshape(*a.shape, *[1] * (4 - 1 - a.ndim))

    unit = (x - wide(mean)) / np.sqrt(wide(variance) + 1e-5)
    return np.asarray(unit * wide(scale) + wide(bias), F)


CASES: dict[str, tuple[Any, Callable[[Array], Array]]] = {
    "axis": (
        old("Add", 6, X, ROWS, broadcast=1, axis=1),
        lambda x: x + ROWS[:, :, None],
    ),
    "axis-negative": (
        old("Mul", 1, X, CHANNEL, broadcast=1, axis=-3, consumed_inputs=[0, 0]),
        lambda x: x * CHANNEL[:, None, None],
    ),
    "axis-scalar": (
        old("Div", 6, X, np.array(3, F), broadcast=1, axis=0),
        lambda x: x / F(3),
    ),
    "no-axis": (
        old("Sub", 6, X, values(4, 5), broadcast=1),
        lambda x: x - values(4, 5),
    ),
    "less": (
        old("Less", 1, X, CHANNEL, broadcast=1, axis=1),
        lambda x: x < CHANNEL[:, None, None],
    ),
    "consumed": (old("Relu", 1, X, consumed_inputs=[0]), lambda x: np.maximum(x, 0)),
    "prelu": (
        old("PRelu", 6, X, CHANNEL),
        lambda x: np.where(x < 0, x * CHANNEL[:, None, None], x),
    ),
    "prelu-shared": (
        old("PRelu", 1, X, CHANNEL[:1]),
        lambda x: np.where(x < 0, x * CHANNEL[0], x),
    ),
    "batch-normalization": (
        old("BatchNormalization", 6, X, *BATCH, VARIANCE[1], is_test=1),
        lambda x: normalised(x, *BATCH, VARIANCE[1]),
    ),
    "batch-normalization-of-each-place": (
        old("BatchNormalization", 7, X, *FULL, VARIANCE[3], spatial=0),
        lambda x: normalised(x, *FULL, VARIANCE[3]),
    ),
    "dropout": (old("Dropout", 6, X, is_test=1, outputs=1), lambda x: x),
    "gemm": (
        old("Gemm", 6, values(2, 3), values(3, 4), values(4), broadcast=1, alpha=0.5),
        lambda x: 0.5 * x @ values(3, 4) + values(4),
    ),
    "concat": (old("Concat", 1, X, X), lambda x: np.concatenate([x, X], 1)),
    "selu": (old("Selu", 1, X), lambda x: selu(x, 1.6732, 1.0507)),
    "pad": (
        old("Pad", 1, X, paddings=[0, 1, 0, 0, 0, 0, 2, 0], value=2.5),
        lambda x: np.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0)), constant_values=2.5),
    ),
    "reshape": (old("Reshape", 1, X, shape=[0, -1]), lambda x: x.reshape(2, 60)),
    "split": (
        old("Split", 1, X, np.array([1, 1], F), outputs=2),
        lambda x: x[:1],
    ),
    "cast": (old("Cast", 1, X, to="INT32"), lambda x: x.astype(np.int32)),
    "tile": (
        old("Tile", 1, X, np.array(3, F), np.array(1, F)),
        lambda x: np.tile(x, (1, 3, 1, 1)),
    ),
    "upsample": (
        old("Upsample", 1, X, height_scale=2.0, width_scale=3.0),
        lambda x: x.repeat(2, 2).repeat(3, 3),
    ),
    "clip": (old("Clip", 1, X, max=0.25), lambda x: np.minimum(x, F(0.25))),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_old_form_means_what_it_said(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS)
    model, meaning = CASES[case]
    graph = import_model(model)
    x = numpy_helper.to_array(model.graph.initializer[0]) if not graph.inputs else None
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    x = values(*dims)
    found = run_reference(to_model(graph), {"x0": x})[0]
    wanted = np.asarray(meaning(x))
    assert found.shape == wanted.shape and (found.dtype == wanted.dtype or wanted.dtype == float)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


REFUSED = {
    "it drops at random": old("Dropout", 6, X),
    "its mask is used": old("Dropout", 10, X, outputs=2),
    "is_test is 0": old("BatchNormalization", 6, X, *BATCH, VARIANCE[1]),
    "without broadcast": old("Add", 6, X, values(4, 5)),
    "do not fit into 4 from axis 3": old("Add", 6, X, ROWS, broadcast=1, axis=3),
    "p is 1.5": old("LpPool", 1, X, kernel_shape=[2, 2], p=1.5),
    "no type COMPLEX7": old("Cast", 1, X, to="COMPLEX7"),
}


@pytest.mark.parametrize("reason", REFUSED, ids=str)
def test_what_has_no_newer_form_is_refused(reason: str) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        import_model(REFUSED[reason])


def test_nodes_of_subgraphs_are_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS)
    model = parse(
        """g (float[2,3,4] x, float[3] s) => (float[2,3,4] y) <bool c = {1}> {
        y = If (c) <then_branch = t () => (float[2,3,4] a) { a = PRelu (x, s) },
                    else_branch = e () => (float[2,3,4] b) { b = Hardmax <axis = 0> (x) }> }""",
        6,
    )
    for chosen in (True, False):
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([chosen]), "c"))
        graph = import_model(model)
        x, s = values(2, 3, 4), values(3)
        feeds = {"x": x, "s": s}
        (found,) = run_reference(to_model(graph), {name: feeds[name] for name in graph.inputs})
        flat = np.zeros(24, F)
        flat[np.argmax(x)] = 1
        wanted = np.where(x < 0, x * s[:, None], x) if chosen else flat.reshape(x.shape)
        np.testing.assert_allclose(found, wanted)


def test_a_scan_of_opset_8_runs_over_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS)
    model = parse(
        """g (float[2,3] start, float[2,4,3] x) => (float[2,3] last, float[2,4,3] sums) {
        last, sums = Scan <num_scan_inputs = 1, directions = [1],
            body = b (float[3] a, float[3] e) => (float[3] o, float[3] p) {
                o = Add (a, e)  p = Identity (o) }> (, start, x) }""",
        8,
    )
    start, x = values(2, 3), values(2, 4, 3)
    graph = import_model(model)
    last, sums = run_reference(to_model(graph), {"start": start, "x": x})
    wanted = start[:, None] + np.cumsum(x[:, ::-1], 1)
    np.testing.assert_allclose(sums, wanted, rtol=1e-5)
    np.testing.assert_allclose(last, wanted[:, -1], rtol=1e-5)


def test_an_opset_of_0_is_no_opset() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.opset_import[0].version = 0
    with pytest.raises(InvalidModel, match="opset"):
        import_model(model)
