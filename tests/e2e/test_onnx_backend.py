"""The official backend interface, as other tools call it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ramforge.onnx_backend as backend
from ramforge.compiler.errors import CompileError, DeviceError, ShapeError, UnsupportedModel

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def model(
    nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], **more: Any
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "backend",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        **more,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def sums(shape: list[Any]) -> onnx.ModelProto:
    return model(
        [helper.make_node("Add", ["x", "b"], ["y"])],
        [("x", TensorProto.FLOAT, shape), ("b", TensorProto.FLOAT, [])],
        [("y", TensorProto.FLOAT, shape)],
    )


@pytest.mark.parametrize(
    "given",
    [
        [X, np.float32(2)],
        (X, 2.0 * np.ones((), np.float32)),
        {"x": X, "b": np.float32(2)},
        [numpy_helper.from_array(X), np.float32(2)],
    ],
    ids=["scalar", "rank 0", "by name", "a proto"],
)
def test_inputs_come_in_any_form(given: Any) -> None:
    outputs = backend.prepare(sums([3, 4]), "CPU").run(given)
    assert len(outputs) == 1 and np.array_equal(outputs[0], X + 2)


def test_a_single_array_is_the_only_input() -> None:
    relu = model(
        [helper.make_node("Neg", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, [3, 4])],
        [("y", TensorProto.FLOAT, [3, 4])],
    )
    assert np.array_equal(backend.run_model(relu, X)[0], -X)


def test_outputs_have_the_names_of_the_model() -> None:
    outputs = backend.run_model(sums([3, 4]), [X, np.float32(1)])
    assert np.array_equal(outputs.y, X + 1)  # type: ignore[attr-defined]


def test_another_shape_is_compiled_anew() -> None:
    prepared = backend.prepare(sums(["rows", 4]))
    for rows in (3, 5, 3):
        x = np.ones((rows, 4), np.float32)
        assert prepared.run([x, np.float32(1)])[0].shape == (rows, 4)


def test_initializers_are_no_inputs() -> None:
    held = model(
        [helper.make_node("Add", ["w", "x"], ["y"])],
        [("w", TensorProto.FLOAT, [4]), ("x", TensorProto.FLOAT, [3, 4])],
        [("y", TensorProto.FLOAT, [3, 4])],
        initializer=[numpy_helper.from_array(np.ones(4, np.float32), "w")],
    )
    assert np.array_equal(backend.run_model(held, [X])[0], X + 1)


def reshape(output: list[Any]) -> onnx.ModelProto:
    return model(
        [
            helper.make_node("Add", ["s", "t"], ["shape"]),
            helper.make_node("Reshape", ["x", "shape"], ["y"]),
        ],
        [
            ("x", TensorProto.FLOAT, [3, 4]),
            ("s", TensorProto.INT64, [2]),
            ("t", TensorProto.INT64, [2]),
        ],
        [("y", TensorProto.FLOAT, output)],
    )


def test_what_decides_a_shape_is_bound_and_data_is_not() -> None:
    prepared = backend.prepare(reshape(["a", "b"]))
    for shape in ((2, 6), (4, 3)):
        one = np.ones(2, np.int64)
        outputs = prepared.run([X, np.array(shape, np.int64) - 1, one])
        assert np.array_equal(outputs[0], X.reshape(shape))
        assert set(prepared.bound) == {"s", "t"}
        assert [port.name for port in prepared.artifact.inputs] == ["x"]


def test_nothing_is_bound_where_the_shape_is_declared() -> None:
    prepared = backend.prepare(reshape([2, 6]))
    shape, zero = np.array([2, -1], np.int64), np.zeros(2, np.int64)
    assert np.array_equal(prepared.run([X, shape, zero])[0], X.reshape(2, 6))
    assert prepared.bound == ()
    with pytest.raises(ShapeError, match="Reshape"):
        prepared.run([X, np.array([6, 2], np.int64), zero])


def test_a_large_tensor_is_data_even_where_a_shape_hangs_on_it() -> None:
    """The largest of many numbers as a size: that would fold data."""
    made = model(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=1),
            helper.make_node("ConstantOfShape", ["most"], ["y"]),
        ],
        [("x", TensorProto.INT64, [3000])],
        [("y", TensorProto.FLOAT, ["n"])],
    )
    with pytest.raises(UnsupportedModel, match="ConstantOfShape"):
        backend.run_model(made, [np.arange(3000)])


@pytest.mark.parametrize("given", [[[X, X], np.float32(1)], [None, X], ["text", X], [X] * 3])
def test_what_is_no_tensor_is_refused(given: Any) -> None:
    with pytest.raises((ShapeError, CompileError), match="fix: "):
        backend.run_model(sums([3, 4]), given)


def test_devices() -> None:
    assert backend.supports_device("CPU") and not backend.supports_device("TPU")
    with pytest.raises(DeviceError, match="fix: "):
        backend.prepare(sums([3, 4]), "TPU")
