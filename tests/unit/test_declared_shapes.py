"""Operands that decide a shape and come at run time: the declared shape holds, and is checked."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import ramforge
from ramforge.codegen.build import host
from ramforge.compiler.device import find_target
from ramforge.compiler.errors import CompileError, ShapeError, UnsupportedModel
from ramforge.runtime import inspect
from ramforge.runtime.drivers.emulated import EmulatedDriver
from ramforge.runtime.session import Session

pytestmark = pytest.mark.usefixtures("quick_host")
Array = NDArray[Any]
X = np.arange(12, dtype=np.float32).reshape(3, 4)
SQUARE = np.arange(16, dtype=np.float32).reshape(4, 4)
CUBE = np.arange(8, dtype=np.float32).reshape(2, 2, 2)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def parts(numbers: Array) -> Array:
    """Complex numbers as ONNX has them."""
    return np.stack([numbers.real, numbers.imag], -1).astype(np.float32)


def model(
    op: str, inputs: Mapping[str, Array], output: Sequence[int | str], **attributes: Any
) -> onnx.ModelProto:
    """One node; ``output`` is the shape that the model declares."""
    ports = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in inputs.items()
    ]
    declared = [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)]
    if op == "TopK":
        declared.append(helper.make_tensor_value_info("places", TensorProto.INT64, output))
    names = [value.name for value in declared]
    node = helper.make_node(op, list(inputs), names, name="node", **attributes)
    graph = helper.make_graph([node], "declared", ports, declared)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


CASES = {
    "Reshape": ({"x": X, "s": ints(2, -1)}, (2, 6), X.reshape(2, 6), ints(6, 2), {}),
    "Reshape 0": ({"x": X, "s": ints(0, 2, 2)}, (3, 2, 2), X.reshape(3, 2, 2), ints(0, 4, 1), {}),
    "Expand": (
        {"x": X[:, :1], "s": ints(2, 1, 4)},
        (2, 3, 4),
        np.broadcast_to(X[:, :1], (2, 3, 4)),
        ints(2, 1, 5),
        {},
    ),
    "Tile": ({"x": X, "s": ints(2, 1)}, (6, 4), np.tile(X, (2, 1)), ints(1, 2), {}),
    "Squeeze": ({"x": X[:, None], "s": ints(-2)}, (3, 4), X, ints(0), {}),
    "Unsqueeze": ({"x": X, "s": ints(1)}, (3, 1, 4), X[:, None], ints(0), {}),
    "ReduceSum": ({"x": X, "s": ints(-1)}, (3,), X.sum(1), ints(0), {"keepdims": 0}),
    "ReduceMax": ({"x": X, "s": ints(0)}, (1, 4), X.max(0)[None], ints(1), {}),
    "ConstantOfShape": ({"s": ints(2, 3)}, (2, 3), np.zeros((2, 3), np.float32), ints(3, 2), {}),
    "Squeeze twice": ({"x": X[:, None, :, None], "s": ints(3, 1)}, (3, 4), X, ints(1, 0), {}),
    "Squeeze one": ({"x": X[:1, :1], "s": ints(1)}, (1,), X[0, :1], ints(2), {}),
    "OneHot": (
        {"x": ints(1, 0, 2), "s": np.array(4, np.int64), "v": X[0, :2]},
        (3, 4),
        np.eye(4, dtype=np.float32)[[1, 0, 2]],
        np.array(5, np.int64),
        {},
    ),
    "AffineGrid": (
        {"x": np.array([[[2, 0, 0], [0, 3, 0]]], np.float32), "s": ints(1, 7, 2, 2)},
        (1, 2, 2, 2),
        np.array([[[[-1, -1.5], [1, -1.5]], [[-1, 1.5], [1, 1.5]]]], np.float32),
        ints(1, 7, 2, 3),
        {},
    ),
    "HannWindow": (
        {"s": np.array(4, np.int64)},
        (4,),
        np.array([0, 0.5, 1, 0.5], np.float32),
        np.array(5, np.int64),
        {},
    ),
    "CenterCropPad": ({"x": X, "s": ints(2)}, (3, 2), X[:, 1:3], ints(3), {"axes": [1]}),
    "MaxUnpool": (
        {"x": X[:1, None, 3:], "i": ints(3).reshape(1, 1, 1), "s": ints(1, 1, 5)},
        (1, 1, 5),
        np.array([[[0, 0, 0, 3, 0]]], np.float32),
        ints(1, 1, 4),
        {"kernel_shape": [4]},
    ),
    "TopK": ({"x": X, "s": ints(2)}, (3, 2), X[:, :1:-1], ints(3), {}),
}


# Those for which several values fit the shape: a run chooses.
FIRST, LAST = np.array(0, np.int64), np.array(-1, np.int64)
CHOICES = {
    "CumSum": ({"x": X, "s": FIRST}, X.cumsum(0), LAST, X.cumsum(1)),
    "ReduceSum": ({"x": SQUARE, "s": ints(1)}, SQUARE.sum(1), ints(-2), SQUARE.sum(0)),
    "ReduceMax": ({"x": CUBE, "s": ints(0, 2)}, CUBE.max((0, 2)), ints(-2, 0), CUBE.max((0, 1))),
    "DFT": (
        {"x": CUBE[:, :, :1], "n": np.array(2, np.int64), "s": np.array(0, np.int64)},
        parts(np.fft.fft(CUBE[:, :, 0], 2, 0)),
        np.array(-2, np.int64),
        parts(np.fft.fft(CUBE[:, :, 0], 2, 1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("op", CHOICES)
def test_where_several_values_fit_a_run_chooses(op: str) -> None:
    given, expected, other, result = CHOICES[op]
    attributes = {"keepdims": 0} if op.startswith("Reduce") else {}
    artifact = ramforge.compile(model(op, given, expected.shape, **attributes), target="host:2")
    with Session(artifact) as session:
        for value, wanted in ((given["s"], expected), (other, result)):
            inputs = {**given, "s": value}
            assert np.allclose(session.run(None, inputs)[0], wanted, atol=1e-6)
            found = EmulatedDriver(artifact, quick=True).run(
                [inputs[port.name] for port in artifact.inputs]
            )
            assert np.allclose(found[0], wanted, atol=1e-6) and not any(found[1:])
        with pytest.raises(ShapeError, match="'node'"):
            session.run(None, {**given, "s": np.full_like(other, 7)})


def test_an_operand_without_elements_is_known() -> None:
    given = {"x": X, "s": ints()}
    with Session(ramforge.compile(model("ReduceSum", given, (1, 1)), target="host")) as session:
        assert session.run(None, given)[0] == X.sum()
    assert not session.artifact.checks


@pytest.mark.parametrize("case", CASES)
def test_the_declared_shape_holds_and_is_checked(case: str) -> None:
    inputs, shape, expected, wrong, attributes = CASES[case]
    made = model(case.split()[0], inputs, shape, **attributes)
    with Session(ramforge.compile(made, target="host")) as session:
        assert np.array_equal(session.run(None, inputs)[0], expected)
        with pytest.raises(ShapeError, match=r"'node'.*'s'(.|\n)*fix: "):
            session.run(None, {**inputs, "s": wrong})
        assert np.array_equal(session.run(None, inputs)[0], expected)


SLICES = [
    (ints(1, -2), ints(9, 4), None, None),
    (ints(-1), ints(-100), ints(-1), ints(-2)),
    (ints(3, 0), ints(-9, 3), ints(1, 0), ints(-1, 2)),
    (ints(2), ints(1), ints(0), ints(1)),
]


@pytest.mark.parametrize("starts, ends, axes, steps", SLICES)
def test_a_slice_reads_its_operands(
    starts: Array, ends: Array, axes: Array | None, steps: Array | None
) -> None:
    operands = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    given = {"x": X, **{name: value for name, value in operands.items() if value is not None}}
    where = [slice(None)] * 2
    for number in range(len(starts)):
        axis = int(axes[number]) if axes is not None else number
        step = int(steps[number]) if steps is not None else 1
        end = int(ends[number])
        where[axis] = slice(int(starts[number]), None if end < -4 else end, step)
    expected = X[tuple(where)]
    if expected.size == 0:
        expected = X[:0]
    artifact = ramforge.compile(model("Slice", given, expected.shape), target="host:2")
    with Session(artifact) as session:
        assert np.array_equal(session.run(None, given)[0], expected)
        if expected.size:
            with pytest.raises(ShapeError, match="Slice 'node'"):
                session.run(None, {**given, "ends": starts})
            found = EmulatedDriver(artifact, quick=True).run(
                [given[port.name] for port in artifact.inputs]
            )
            assert np.array_equal(found[0], expected) and found[1] == 0


def test_that_nothing_is_taken_is_checked_too() -> None:
    given = {"x": X, "starts": ints(2), "ends": ints(2)}
    with Session(ramforge.compile(model("Slice", given, (0, 4)), target="host")) as session:
        assert session.run(None, given)[0].shape == (0, 4)
        with pytest.raises(ShapeError, match="Slice 'node'"):
            session.run(None, {**given, "ends": ints(3)})


LONGEST, SHORTEST = np.iinfo(np.int64).max, np.iinfo(np.int64).min


def test_a_step_may_be_as_long_as_numbers_are() -> None:
    given = {"x": X[0], "starts": ints(2), "ends": ints(4), "axes": ints(0), "steps": ints(1)}
    with Session(ramforge.compile(model("Slice", given, (1,)), target="host")) as session:
        for end, step in ((LONGEST, LONGEST), (SHORTEST, SHORTEST), (SHORTEST, -4), (4, 5)):
            found = session.run(None, {**given, "ends": ints(end), "steps": ints(step)})
            assert np.array_equal(found[0], X[0, 2:3]), step
        for step in (0, 1, -1):
            with pytest.raises(ShapeError, match="Slice 'node'"):
                session.run(None, {**given, "steps": ints(step)})


def test_a_step_of_nothing_is_told() -> None:
    given = {"x": X[0], "starts": ints(2), "ends": ints(2), "axes": ints(0), "steps": ints(0)}
    with (
        Session(ramforge.compile(model("Slice", given, (0,)), target="host")) as session,
        pytest.raises(ShapeError, match="Slice 'node'"),
    ):
        session.run(None, given)


@pytest.mark.parametrize("op", ["Slice", "Pad"])
def test_axes_that_are_not_there_or_named_twice_are_told(op: str) -> None:
    lists = {"starts": ints(0, 0), "ends": ints(9, 9)}
    if op == "Pad":
        lists = {"pads": ints(0, 0, 0, 0), "fill": np.array(1, np.float32)}
    given = {"x": X, **lists, "axes": ints(1, 0)}
    with Session(ramforge.compile(model(op, given, X.shape), target="host")) as session:
        assert np.array_equal(session.run(None, given)[0], X)
        for wrong in (ints(0, 2), ints(-3, 0), ints(1, -1)):
            with pytest.raises(ShapeError, match=f"{op} 'node'"):
                session.run(None, {**given, "axes": wrong})


PADS = {
    "constant": (ints(1, 0, 2, 3), None),
    "constant crop": (ints(-1, 2, 0, -3), None),
    "constant axes": (ints(2, -1), ints(-1)),
    "edge": (ints(2, -1, 0, 2), None),
    "reflect": (ints(2, 1, -1, 3), None),
    "wrap": (ints(-1, 3, 2, 0), None),
}


@pytest.mark.parametrize("case", PADS)
def test_a_pad_reads_its_operands(case: str) -> None:
    pads, axes = PADS[case]
    mode = case.split()[0]
    full = pads if axes is None else np.insert(pads, (0, 1), 0)
    widths = list(zip(full[:2].tolist(), full[2:].tolist(), strict=True))
    (top, bottom), (left, right) = widths
    cropped = X[max(-top, 0) : 3 + min(bottom, 0), max(-left, 0) : 4 + min(right, 0)]
    grown = [(max(before, 0), max(after, 0)) for before, after in widths]
    fill = {"constant_values": 5} if mode == "constant" else {}
    expected = np.pad(cropped, grown, mode, **fill)  # type: ignore[call-overload]
    given = {"x": X, "pads": pads, "fill": np.array(5, np.float32)}
    if axes is not None:
        given["axes"] = axes
    artifact = ramforge.compile(model("Pad", given, expected.shape, mode=mode), target="host:2")
    with Session(artifact) as session:
        assert np.array_equal(session.run(None, given)[0], expected)
        with pytest.raises(ShapeError, match="Pad 'node'"):
            session.run(None, {**given, "pads": pads + 1})
        found = EmulatedDriver(artifact, quick=True).run(
            [given[port.name] for port in artifact.inputs]
        )
        assert np.array_equal(found[0], expected) and found[1] == 0


def test_what_a_pad_repeats_has_to_be_there() -> None:
    given = {"x": X, "pads": ints(-3, 0, 3, 0)}
    made = model("Pad", given, X.shape, mode="edge")
    with (
        Session(ramforge.compile(made, target="host")) as session,
        pytest.raises(ShapeError, match="Pad 'node'"),
    ):
        session.run(None, given)


RANGES = [(1, 2, 0.25, 4), (3, -1, -1.5, 3), (1, 0, 1, 0)]


@pytest.mark.parametrize("start, limit, step, size", RANGES)
def test_a_range_reads_its_operands(start: float, limit: float, step: float, size: int) -> None:
    values = {"start": start, "limit": limit, "step": step}
    given = {name: np.array(value, np.float32) for name, value in values.items()}
    artifact = ramforge.compile(model("Range", given, (size,)), target="host")
    with Session(artifact) as session:
        expected = np.arange(start, limit, step, np.float32)
        assert np.array_equal(session.run(None, given)[0], expected)
        for name, wrong in (("limit", limit + 2 * step), ("step", -step), ("step", 0)):
            with pytest.raises(ShapeError, match="Range 'node'"):
                session.run(None, {**given, name: np.array(wrong, np.float32)})


QUOTIENTS = [
    (np.float32, (0, 0.3, 0.1), 4),  # 3.00000007 of them, though 0.1 * 3 is 0.3 as a float
    (np.float32, (0.1, 0.4, 0.1), 3),
    (np.int64, (LONGEST - 3, LONGEST, 2), 2),
    (np.int64, (SHORTEST + 3, SHORTEST, -2), 2),
    (np.int16, (32765, 32767, 20000), 1),
    (np.int64, (0, -1, 2), 0),
]


@pytest.mark.parametrize("kind, operands, size", QUOTIENTS)
def test_a_range_has_as_many_elements_as_the_quotient_says(
    kind: Any, operands: tuple[float, ...], size: int
) -> None:
    names = ("start", "limit", "step")
    given = {name: np.array(value, kind) for name, value in zip(names, operands, strict=True)}
    for declared in (size, size + 1):
        made = model("Range", given, (declared,))
        made.graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(
            np.dtype(kind)
        )
        with Session(ramforge.compile(made, target="host")) as session:
            if declared == size:
                found = session.run(None, given)[0]
                wanted = given["start"] + np.arange(size).astype(kind) * given["step"]
                assert np.array_equal(found, wanted.astype(kind))
            else:
                with pytest.raises(ShapeError, match="Range 'node'"):
                    session.run(None, given)


def test_declared_shapes_that_contradict_each_other_tell_nothing() -> None:
    made = model("TopK", {"x": X, "s": ints(2)}, (3, 2))
    made.graph.output[1].type.tensor_type.shape.dim[1].dim_value = 3
    with pytest.raises(UnsupportedModel, match=r"'s' decides a shape(.|\n)*--bind s=VALUES.npz"):
        ramforge.compile(made, target="host")


def test_without_a_declared_shape_the_value_has_to_be_bound() -> None:
    inputs = {"x": X, "s": ints(2, -1)}
    free = model("Reshape", inputs, ("a", "b"))
    with pytest.raises(UnsupportedModel, match=r"fix: --bind s=VALUES\.npz, or declare the shape"):
        ramforge.compile(free, target="host")
    artifact = ramforge.compile(free, target="host", values={"s": inputs["s"]})
    assert [port.name for port in artifact.inputs] == ["x"]
    with Session(artifact) as session:
        assert np.array_equal(session.run(None, {"x": X})[0], X.reshape(2, 6))


def test_a_bound_value_that_does_not_fit_the_declared_shape_is_refused() -> None:
    inputs = {"x": X, "s": ints(2, -1)}
    for values in ({"s": ints(2)}, {"s": np.array([2, 6], np.int32)}, {"z": ints(2, 6)}):
        with pytest.raises(CompileError, match=r"values do not fit(.|\n)*fix: "):
            ramforge.compile(model("Reshape", inputs, ("a", "b")), target="host", values=values)


def test_what_follows_a_declared_shape_is_known_too() -> None:
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (3, 4)),
        helper.make_tensor_value_info("s", TensorProto.INT64, (2,)),
    ]
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["r"], name="first"),
        helper.make_node("Relu", ["r"], ["e"]),
        helper.make_node("ReduceSum", ["e"], ["y"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ())],
        value_info=[helper.make_tensor_value_info("r", TensorProto.FLOAT, (6, 2))],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    with Session(ramforge.compile(made, target="host")) as session:
        assert session.run(None, {"x": X, "s": ints(6, 2)})[0] == X.sum()
        with pytest.raises(ShapeError, match="first"):
            session.run(None, {"x": X, "s": ints(2, 6)})


def test_the_program_by_itself_checks_too(tmp_path: Path) -> None:
    inputs = {"x": X, "s": ints(2, 6)}
    output = tmp_path / "p.cu"
    ramforge.compile(model("Reshape", inputs, (2, 6)), target="host", output=output)
    program = host.build_program(output, tmp_path / "p")
    for name, value in (("x", X), ("good", ints(2, 6)), ("bad", ints(6, 2))):
        (tmp_path / name).write_bytes(value.tobytes())
    common = [str(program), "--weights", str(output.with_suffix(".safetensors")), "--in"]
    for name, status in (("good", 0), ("bad", 3)):
        done = subprocess.run(
            [*common, f"x={tmp_path / 'x'}", "--in", f"s={tmp_path / name}"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stderr
    assert "Reshape 'node'" in done.stderr


def test_a_check_is_no_output_of_the_model(tmp_path: Path) -> None:
    made = model("Reshape", {"x": X, "s": ints(2, 6)}, (2, 6))
    artifact = ramforge.compile(made, target="host", output=tmp_path / "p.cu")
    assert [port.name for port in artifact.outputs] == ["y"]
    assert len(artifact.results) == 2 and len(artifact.checks) == 1
    head = artifact.text().split("#include")[0]
    assert "outputs    y float32 2x6\n// weights" in head
    onnx.save(made, tmp_path / "m.onnx")
    document = inspect.of_model(str(tmp_path / "m.onnx"), find_target("host"), "auto", print)
    assert [port["name"] for port in document["outputs"]] == ["y"]
