"""Types that are only stored, on their way in and out: files of models, .npz files, made-up inputs,
CUDA text.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import ramforge
from ramforge.codegen.artifact import Port
from ramforge.codegen.build import nvrtc, toolchain
from ramforge.compiler.frontend.load import load
from ramforge.compiler.ir import DType
from ramforge.runtime import arrays
from tests.helpers import Known, check, model_of, numbers, one

STORED = tuple(dtype for dtype in DType if dtype.is_stored_only)


def onnx_type(dtype: DType) -> int:
    return helper.np_dtype_to_tensor_dtype(dtype.numpy)


def all_of(dtype: DType, count: int = 5) -> np.ndarray:
    """Some numbers of a type, an odd number of them, and all different where there are enough."""
    values = np.arange(1 if dtype is DType.FLOAT8E8M0 else 0, 99)
    return (np.exp2(values % 3) if dtype is DType.FLOAT8E8M0 else values)[:count].astype(
        dtype.numpy
    )


def stored_model(inner: bool) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model with a constant of every stored type, as initializers or Constant nodes."""
    constants = {f"k{number}": all_of(dtype) for number, dtype in enumerate(STORED)}
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    nodes = []
    if inner:
        nodes = [
            helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in tensors
        ]
    nodes += [
        helper.make_node("Cast", [name], [f"y{name}"], to=onnx.TensorProto.FLOAT)
        for name in constants
    ]
    outputs = [
        helper.make_tensor_value_info(f"y{name}", onnx.TensorProto.FLOAT, [5]) for name in constants
    ]
    graph = helper.make_graph(nodes, "g", [], outputs, [] if inner else tensors)
    imports = [helper.make_opsetid("", 25)]
    return helper.make_model(graph, opset_imports=imports, ir_version=13), constants


@pytest.mark.parametrize("inner", [False, True])
def test_constants_of_every_type_are_read_from_data_files(inner: bool, tmp_path: Path) -> None:
    model, constants = stored_model(inner)
    path = tmp_path / "model.onnx"
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        location="model.data",
        size_threshold=0,
        convert_attribute=inner,
    )
    assert b"model.data" in path.read_bytes()
    slim = load(path)
    for name, value in constants.items():
        assert slim.constants[name].dtype == value.dtype
        assert slim.constants[name].tobytes() == value.tobytes(), name


def test_constants_reach_the_program(tmp_path: Path) -> None:
    cases = []
    for dtype in STORED:
        held, wide = Known(all_of(dtype)), all_of(dtype).astype(np.float32)
        if dtype.itemsize == 2:
            case = one("Gather", held, np.array([3, 0, 2])).giving(held.value[[3, 0, 2]])
        elif dtype is DType.FLOAT8E8M0:
            options = {"axis": 0, "output_dtype": onnx.TensorProto.FLOAT}
            case = one("DequantizeLinear", np.ones(5, np.int8), held, **options).giving(wide)
        else:
            case = one("DequantizeLinear", held, np.float32(2)).giving(2 * wide)
        cases.append(replace(case, opset=25))
    check(cases, tmp_path)


def test_inputs_and_outputs_survive_npz_files(tmp_path: Path) -> None:
    ports = [Port(dtype.label, dtype.label, (5,)) for dtype in STORED]
    given = {port.name: all_of(DType.named(port.dtype)) for port in ports}
    path = tmp_path / "x.npz"
    arrays.save(path, given)
    read = arrays.completed(ports, arrays.load(path), seed=0)
    for port in ports:
        assert read[port.name].dtype == port.numpy
        assert read[port.name].tobytes() == given[port.name].tobytes()
    np.savez(path, float16=np.zeros(5, np.int16))  # of the right size, and yet another type
    assert arrays.completed(ports, arrays.load(path), 0)["float16"].dtype == np.int16


def test_made_up_inputs_are_numbers_of_many_sizes() -> None:
    for dtype in DType:
        made = arrays.made_up([Port("x", dtype.label, (200,))], seed=1)["x"]
        assert made.dtype == dtype.numpy
        wide = made.astype(np.float64)
        assert np.isfinite(wide).all(), dtype
        assert len(np.unique(wide)) >= 2, dtype
        if not dtype.is_float:
            assert wide.min() == 0, dtype


def test_softmax_rounds_as_its_function_does(tmp_path: Path) -> None:
    x = (numbers(3, 40) * 4).astype(np.float16)
    cases = [replace(one("Softmax", x).reference(), tolerance=0)]
    cases.append(replace(one("Softmax", x, axis=0).reference(), tolerance=2e-3))
    long = np.ones((2, 70_000), np.float16)  # their number is no float16
    cases.append(one("Softmax", long).giving(np.full_like(long, 1 / 70_000)))
    check(cases, tmp_path)


@pytest.mark.skipif(toolchain.find_nvrtc() is None, reason="NVRTC is not installed")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_nvrtc_takes_every_stored_type(arch: str, tmp_path: Path) -> None:
    whole = np.array([1, 2, 7], np.int8)
    cases = []
    for dtype in STORED:
        cases.append(one("Cast", np.ones(3, np.float32), to=onnx_type(dtype)))
        cases.append(one("Cast", all_of(dtype), to=onnx.TensorProto.DOUBLE))
        cases.append(one("Cast", np.ones(3), to=onnx_type(dtype), saturate=0))
    for op in ("Mod", "BitShift"):
        options = {"direction": "LEFT"} if op == "BitShift" else {}
        cases.append(one(op, whole.astype(np.uint8), whole.astype(np.uint8), **options))
    for kind in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16):
        cases.append(one("Mod", np.ones(3, kind), np.ones(3, kind), fmod=0))
        cases.append(one("Mod", np.ones(3, kind), np.ones(3, kind), fmod=1))
    cases.append(one("BitCast", np.ones(3, np.float32), to=onnx.TensorProto.INT32))
    cases.append(one("MatMulInteger", np.ones((3, 4), np.int8), np.ones((4, 5), np.uint8)))
    cases = [replace(case, opset=28) for case in cases]
    artifact = ramforge.compile(model_of(cases), target="h200", output=tmp_path / "t.cu")
    built = nvrtc.compile_cubin(artifact.source.read_text(encoding="utf-8"), arch)
    assert built.data[:4] == b"\x7fELF"
    assert "warning" not in built.log
