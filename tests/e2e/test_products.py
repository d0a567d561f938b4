"""Matrix products of every kind of factors in every tile, on the host and thread by thread: sizes
that are multiples of nothing, each tile as a product of its own in one program.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from emulated_runs import ORDERS, emitted, staged
from onnx import TensorProto, helper, numpy_helper

import ramforge
from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import nvrtc, toolchain
from ramforge.compiler.device import find_target
from ramforge.compiler.ir import Array
from ramforge.compiler.pipeline import Program
from ramforge.kernels.tiles import TILES
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.session import Session

pytestmark = pytest.mark.usefixtures("quick_host")
ALL = len(TILES) + 2  # with those for a few rows


@dataclass(frozen=True)
class Product:
    """A node that multiplies, how often, and what comes out."""

    node: Callable[[int], list[onnx.NodeProto]]
    inputs: Mapping[str, Array]
    weights: Mapping[str, Array]
    expected: Array
    tolerance: float = 0.0  # of the largest element
    times: int = ALL

    def model(self) -> onnx.ModelProto:
        kinds = {
            name: helper.np_dtype_to_tensor_dtype(array.dtype)
            for name, array in (*self.inputs.items(), ("y", self.expected))
        }
        graph = helper.make_graph(
            [node for number in range(self.times) for node in self.node(number)],
            "products",
            [
                helper.make_tensor_value_info(name, kinds[name], array.shape)
                for name, array in self.inputs.items()
            ],
            [
                helper.make_tensor_value_info(f"y{number}", kinds["y"], self.expected.shape)
                for number in range(self.times)
            ],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

    def complaints(self, found: list[Array]) -> list[int]:
        """Which of the products are wrong."""
        limit = self.tolerance * np.abs(self.expected).max()
        wanted = self.expected.astype(np.float64)
        return [
            number
            for number, array in enumerate(found)
            if not np.abs(array.astype(np.float64) - wanted).max() <= limit
        ]


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def whole(dtype: Any, *shape: int, seed: int = 0) -> Array:
    """Every byte, the largest ones too."""
    limits = np.iinfo(dtype)
    random = np.random.default_rng([seed, *shape])
    return random.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def widened(x: Array, w: Array, *, transposed: bool = False) -> Product:
    """Floats times weights that are stored in 16 bits."""

    def node(number: int) -> list[onnx.NodeProto]:
        names = ["w", f"v{number}", f"t{number}"]
        cast = helper.make_node("Cast", names[:1], names[1:2], to=TensorProto.FLOAT)
        turn = helper.make_node("Transpose", names[1:2], names[2:], perm=[1, 0])
        last = names[2 if transposed else 1]
        product = helper.make_node("MatMul", ["x", last], [f"y{number}"])
        return [cast, turn, product] if transposed else [cast, product]

    wide = w.astype(np.float64)
    expected = (x.astype(np.float64) @ (wide.T if transposed else wide)).astype(np.float32)
    return Product(node, {"x": x}, {"w": w}, expected, 1e-5)


def widened_values(x: Array, w: Array) -> Product:
    """Weights in 16 bits times floats."""

    def node(number: int) -> list[onnx.NodeProto]:
        cast = helper.make_node("Cast", ["w"], [f"v{number}"], to=TensorProto.FLOAT)
        return [cast, helper.make_node("MatMul", [f"v{number}", "x"], [f"y{number}"])]

    expected = (w.astype(np.float64) @ x.astype(np.float64)).astype(np.float32)
    return Product(node, {"x": x}, {"w": w}, expected, 1e-5)


def widened_convolution(x: Array, w: Array) -> Product:
    def node(number: int) -> list[onnx.NodeProto]:
        cast = helper.make_node("Cast", ["w"], [f"v{number}"], to=TensorProto.FLOAT)
        names = ["x", f"v{number}"]
        return [cast, helper.make_node("Conv", names, [f"y{number}"], pads=[1, 1, 1, 1])]

    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], axis=(2, 3))
    expected = np.einsum("bcyxij,ocij->boyx", windows, w.astype(np.float64))
    return Product(node, {"x": x}, {"w": w}, expected.astype(np.float32), 1e-5)


def halves(x: Array, w: Array, *, known: bool = True) -> Product:
    """Both in 16 bits, and the result too; the second lies column by column."""

    def node(number: int) -> list[onnx.NodeProto]:
        turn = helper.make_node("Transpose", ["w"], [f"t{number}"], perm=[1, 0])
        return [turn, helper.make_node("MatMul", ["x", f"t{number}"], [f"y{number}"])]

    expected = (x.astype(np.float64) @ w.astype(np.float64).T).astype(x.dtype)
    inputs, weights = ({"x": x}, {"w": w}) if known else ({"x": x, "w": w}, {})
    return Product(node, inputs, weights, expected, 1e-2 if x.dtype == BRAIN else 1e-3)


def integers(x: Array, w: Array, zeros: tuple[int, int], *, known: bool = True) -> Product:
    """MatMulInteger; each operand has a zero point of its own type."""

    def node(number: int) -> list[onnx.NodeProto]:
        return [helper.make_node("MatMulInteger", ["x", "w", "zx", "zw"], [f"y{number}"])]

    expected = (x.astype(np.int64) - zeros[0]) @ (w.astype(np.int64) - zeros[1])
    points = {"zx": np.array(zeros[0], x.dtype), "zw": np.array(zeros[1], w.dtype)}
    inputs, weights = ({"x": x}, {"w": w, **points}) if known else ({"x": x, "w": w, **points}, {})
    return Product(node, inputs, weights, expected.astype(np.int32))


def integer_convolution(x: Array, w: Array, zero: int, **options: Any) -> Product:
    """ConvInteger with padding, which counts as the zero point."""

    def node(number: int) -> list[onnx.NodeProto]:
        names = ["x", "w", "zero"]
        return [
            helper.make_node("ConvInteger", names, [f"y{number}"], pads=[1, 1, 1, 1], **options)
        ]

    padded = np.pad(x.astype(np.int64) - zero, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], axis=(2, 3))
    groups = options.get("group", 1)
    parts = [
        np.einsum("bcyxij,ocij->boyx", part, some)
        for part, some in zip(
            np.split(windows, groups, axis=1), np.split(w.astype(np.int64), groups), strict=True
        )
    ]
    expected = np.concatenate(parts, axis=1).astype(np.int32)
    return Product(node, {"x": x}, {"w": w, "zero": np.array(zero, x.dtype)}, expected)


HALF, BRAIN = np.float16, ml_dtypes.bfloat16
FLOATS = {
    "weights in float16": widened(numbers(65, 263), numbers(263, 63).astype(HALF)),
    "weights in bfloat16, transposed": widened(
        numbers(7, 264), numbers(129, 264).astype(BRAIN), transposed=True
    ),
    "weights in float16, one row": widened(numbers(1, 1000), numbers(1000, 65).astype(HALF)),
    "weights in bfloat16, three rows": widened(numbers(3, 264), numbers(264, 63).astype(BRAIN)),
    "weights in float16, on the left": widened_values(
        numbers(263, 70), numbers(65, 263).astype(HALF)
    ),
    "weights in int8": widened(numbers(65, 272), whole(np.int8, 272, 65)),
    "weights in uint8, one row": widened(numbers(1, 1040), whole(np.uint8, 1040, 65)),
    "weights in int8, three rows, transposed": widened(
        numbers(3, 272), whole(np.int8, 63, 272), transposed=True
    ),
    "weights in float16, a convolution": widened_convolution(
        numbers(1, 20, 9, 8), numbers(100, 20, 3, 3).astype(HALF)
    ),
    "halves, four at a time": halves(numbers(65, 60).astype(HALF), numbers(63, 60).astype(HALF)),
    "halves, two at a time": halves(numbers(33, 62).astype(HALF), numbers(65, 62).astype(HALF)),
    "halves, two at a time, both made at run time": halves(
        numbers(65, 62).astype(BRAIN), numbers(63, 62).astype(BRAIN), known=False
    ),
    "halves, one at a time, both made at run time": halves(
        numbers(63, 63).astype(HALF), numbers(65, 63).astype(HALF), known=False
    ),
}
BYTES = {
    "u8 x s8": integers(whole(np.uint8, 65, 263), whole(np.int8, 263, 63), (131, 0)),
    "s8 x s8, whole chunks": integers(whole(np.int8, 33, 272), whole(np.int8, 272, 65), (-5, 0)),
    "u8 x u8, weights that fit": integers(
        whole(np.uint8, 7, 256), whole(np.uint8, 256, 129), (3, 128)
    ),
    "s8 x u8, one row": integers(whole(np.int8, 1, 1040), whole(np.uint8, 1040, 65), (-128, 2)),
    "u8 x s8, three rows": integers(whole(np.uint8, 3, 272), whole(np.int8, 272, 63), (255, 0)),
    "s8 x u8, both made at run time": integers(
        whole(np.int8, 65, 62), whole(np.uint8, 62, 65), (9, 200), known=False
    ),
    "u8 x u8, one column, both made at run time": integers(
        whole(np.uint8, 63, 1), whole(np.uint8, 1, 1), (1, 2), known=False
    ),
    "s8 x s8, a convolution": integer_convolution(
        whole(np.int8, 1, 20, 9, 8), whole(np.int8, 70, 20, 3, 3), -7
    ),
    "u8 x s8, a convolution of three channels": integer_convolution(
        whole(np.uint8, 1, 3, 9, 8), whole(np.int8, 33, 3, 3, 3), 128
    ),
    "u8 x s8, groups": integer_convolution(
        whole(np.uint8, 2, 32, 6, 5), whole(np.int8, 66, 16, 3, 3), 77, group=2
    ),
}
PRODUCTS = {**FLOATS, **BYTES}


def compiled(product: Product, folder: Path) -> tuple[Program, Artifact]:
    program = staged(product.model(), "per-op", sms=2, blocks=(1,), pick=None)
    return program, emitted(program, folder)


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_tile_is_right_everywhere(name: str, tmp_path: Path) -> None:
    product = PRODUCTS[name]
    program, artifact = compiled(product, tmp_path)
    families = [operator.variant.body.family for operator in program.operators]
    assert families.count("contract") == ALL
    assert not product.complaints(emulated(artifact, product, ORDERS[2]))
    with Session(artifact, "host:2") as session:
        assert not product.complaints(session.run(None, dict(product.inputs)))


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_host_program_is_right(name: str) -> None:
    """Its weights are packed as a core wants them."""
    product = replace(PRODUCTS[name], times=1)
    with Session(ramforge.compile(product.model(), target="host:2")) as session:
        assert not product.complaints(session.run(None, dict(product.inputs)))


def emulated(
    artifact: Artifact, product: Product, settings: Settings, race: bool = False
) -> list[Array]:
    driver = EmulatedDriver(artifact, race=race, quick=True)
    driver.settings = settings
    found = driver.run([product.inputs[port.name] for port in artifact.inputs])
    assert driver.report.races == 0
    return found


@pytest.mark.parametrize("name", ["weights in float16", "s8 x s8, a convolution"])
def test_no_two_accesses_race(name: str, tmp_path: Path) -> None:
    product = replace(PRODUCTS[name], times=3)
    _, artifact = compiled(product, tmp_path)
    assert not product.complaints(emulated(artifact, product, ORDERS[2], race=True))


@pytest.mark.skipif(toolchain.find_nvrtc() is None, reason="NVRTC is not installed")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize(
    "name",
    [
        "weights in float16",
        "weights in bfloat16, three rows",
        "weights in int8",
        "s8 x s8, a convolution",
        "u8 x s8, three rows",
    ],
)
def test_nvrtc_spills_nothing(name: str, arch: str, tmp_path: Path) -> None:
    _, artifact = compiled(replace(PRODUCTS[name], times=3), tmp_path)
    log = nvrtc.compile_cubin(artifact.text(), arch).log
    assert "warning" not in log
    assert set(re.findall(r"(\d+) bytes spill", log)) == {"0"}


@pytest.mark.parametrize("rows", [3, 65])
def test_tf32_widens_weights_where_its_instructions_multiply(rows: int, tmp_path: Path) -> None:
    product = replace(
        widened(numbers(rows, 264), numbers(264, 70).astype(HALF)), tolerance=2e-3, times=3
    )
    target = replace(find_target("h200"), sms=4).with_precision("tf32")
    path = tmp_path / "out.cu"
    artifact = ramforge.compile(product.model(), target=target, precision="tf32", output=path)
    assert ("rf_matrix<RF_TF32>" in artifact.text()) is (rows == 65)
    assert ("rf_packed<rf_half, 264, 8>" in artifact.text()) is (rows == 3)
    assert not product.complaints(emulated(artifact, product, ORDERS[2]))


@pytest.mark.parametrize(
    ("dtype", "precision", "stored"),
    [(HALF, "bf16", BRAIN), (HALF, "fp16", HALF), (np.int8, "fp16", HALF)],
)
def test_weights_are_stored_as_the_precision_asks(dtype: Any, precision: str, stored: Any) -> None:
    weights = whole(np.int8, 264, 70).astype(dtype)
    product = replace(widened(numbers(7, 264), weights), tolerance=1e-2, times=1)
    artifact = ramforge.compile(product.model(), target="host:2", precision=precision)
    names = {HALF: "rf_half", BRAIN: "rf_bfloat16"}
    assert f"rf_problem<{names[stored]}, 7, 70, 1, 264, 1, 8>" in artifact.text()
    with Session(artifact) as session:
        assert not product.complaints(session.run(None, dict(product.inputs)))


def test_weights_stay_as_the_model_stores_them(tmp_path: Path) -> None:
    product = PRODUCTS["weights in float16"]
    program, _ = compiled(product, tmp_path)
    assert {array.dtype for array in program.weights.values()} == {np.dtype(np.float16)}
    assert all("rf_half" in operator.variant.body.text for operator in program.operators)
    assert program.memory.workspace_bytes == 0
