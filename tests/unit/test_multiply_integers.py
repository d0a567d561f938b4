"""Products of dequantised bytes become products of the bytes, and mean the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from ramforge.compiler.device import find_target
from ramforge.compiler.frontend import import_model
from ramforge.compiler.pipeline import compile_graph
from tests.helpers import Array, Case, check, model_of, numbers

CHANNELS = 5


def powers(count: int) -> Array:
    """Scales with which every float is exact."""
    return np.exp2(-4.0 - np.arange(count) % 3).astype(np.float32)


def case(
    name: str,
    op: str,
    x: Array,
    w: Array,
    *,
    scale: Array | None = None,
    axis: int = 0,
    zeros: tuple[int, int] = (3, 0),
    bias: Array | None = None,
    **options: Any,
) -> Case:
    """QuantizeLinear behind ``op`` between DequantizeLinear; weights have a scale for each column
    unless told otherwise.
    """
    scale = powers(w.shape[axis]) if scale is None else scale
    zero = np.full(scale.shape, zeros[1], w.dtype)
    constants = {
        "sx": np.array(0.125, np.float32),
        "zx": np.array(zeros[0], x.dtype),
        "w": w,
        "sw": scale,
        "zw": zero,
        "sy": np.array(8.0, np.float32),
        "zy": np.array(-4, np.int8),
        **({} if bias is None else {"b": bias}),
    }
    nodes = (
        helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["fx"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["fw"], axis=axis),
        helper.make_node(op, ["fx", "fw", *(["b"] if bias is not None else [])], ["p"], **options),
        helper.make_node("QuantizeLinear", ["p", "sy", "zy"], ["y"]),
    )
    return Case(name, nodes, {"x": x}, ("y",), constants).reference()


IMAGE, KERNEL = numbers(1, 6, 7, 5, dtype=np.int8), numbers(CHANNELS, 6, 3, 3, dtype=np.int8)
BIAS = np.round(numbers(CHANNELS) * 16) / 16
ROWS, MATRIX = numbers(7, 19, dtype=np.uint8), numbers(19, CHANNELS, dtype=np.int8)
PADS = [1, 1, 1, 1]
MULTIPLIED = (
    case("convolution", "Conv", IMAGE, KERNEL, pads=PADS, bias=BIAS),
    case("convolution, one scale", "Conv", IMAGE, KERNEL, scale=powers(1)[0], strides=[2, 1]),
    case("groups", "Conv", IMAGE, numbers(4, 3, 3, 2, dtype=np.int8), group=2, pads=PADS),
    case("weights with a zero point", "Conv", IMAGE, KERNEL // 4, zeros=(-9, 7), pads=PADS),
    case("matrices", "MatMul", ROWS, MATRIX, axis=1),
    case("matrices, a last axis", "MatMul", ROWS[None], MATRIX, axis=-1, zeros=(200, 1)),
    case("Gemm", "Gemm", ROWS, MATRIX, axis=1, bias=BIAS),
    case("Gemm, transposed", "Gemm", ROWS, MATRIX.T.copy(), axis=0, bias=BIAS, transB=1),
)


def of_weights(given: Case, x: Array) -> Case:
    """The same with floats on the left, and no rounding at the end."""
    _, weights, product, _ = given.nodes
    made = (weights, helper.make_node(
        product.op_type, ["x", *product.input[1:]], ["y"],
        **{each.name: helper.get_attribute_value(each) for each in product.attribute},
    ))  # fmt: skip
    return replace(given, name=f"{given.name}, weights alone", nodes=made, inputs={"x": x})


WIDE = numbers(140, 130, dtype=np.int8) // 2
WEIGHTS_ALONE = (
    of_weights(case("MatMul", "MatMul", ROWS, WIDE, axis=1), numbers(3, 140)),
    of_weights(case("zero point", "MatMul", ROWS, WIDE, axis=1, zeros=(0, 9)), numbers(7, 140)),
    of_weights(
        case("Gemm", "Gemm", ROWS, WIDE, axis=0, transB=1, bias=numbers(140)), numbers(7, 130)
    ),
    of_weights(
        case(
            "Conv", "Conv", IMAGE, numbers(200, 20, 3, 3, dtype=np.int8), pads=PADS,
            bias=numbers(200),
        ),
        numbers(1, 20, 5, 4),
    ),
)  # fmt: skip
LEFT_ALONE = (
    case("weights that are no bytes", "Conv", IMAGE, KERNEL, zeros=(-9, 7), pads=PADS),
    case("a scale for each row", "MatMul", ROWS, MATRIX, axis=0),
    case("a factor", "Gemm", ROWS, MATRIX, axis=1, alpha=0.5),
    case("depthwise", "Conv", IMAGE, numbers(6, 1, 3, 3, dtype=np.int8), group=6, pads=PADS),
)


def test_they_mean_the_same(tmp_path: Path) -> None:
    check([*MULTIPLIED, *WEIGHTS_ALONE, *LEFT_ALONE], tmp_path)


@pytest.mark.parametrize("given", MULTIPLIED, ids=lambda given: given.name)
def test_bytes_are_multiplied(given: Case) -> None:
    program = compile_graph(import_model(model_of([given])), find_target("h200"))
    (product,) = (op for op in program.operators if op.variant.body.family == "contract")
    assert "rf_contract_bytes<" in product.variant.body.text
    (packed,) = (program.weights[name] for name in product.variant.packed)
    assert packed.dtype == np.int8


@pytest.mark.parametrize("given", WEIGHTS_ALONE, ids=lambda given: given.name)
def test_weights_alone_stay_bytes(given: Case) -> None:
    program = compile_graph(import_model(model_of([given])), find_target("h200"))
    (product,) = (op for op in program.operators if op.variant.body.family == "contract")
    assert ", signed char>;" in product.variant.body.text
    (packed,) = (program.weights[name] for name in product.variant.packed)
    assert packed.dtype == np.int8


@pytest.mark.parametrize("given", LEFT_ALONE, ids=lambda given: given.name)
def test_what_is_no_product_of_bytes_stays_as_it_is(given: Case) -> None:
    program = compile_graph(import_model(model_of([given])), find_target("h200"))
    assert all("_bytes<" not in op.variant.body.text for op in program.operators)


def test_a_residual_is_read_as_bytes_at_the_end_of_a_product() -> None:
    """A map that nobody else reads is no tensor of its own."""
    made = case("residual", "MatMul", ROWS, MATRIX, axis=1)
    residual = numbers(7, CHANNELS, dtype=np.int8)
    nodes = (
        *made.nodes[:-1],
        helper.make_node("DequantizeLinear", ["r", "sy", "zy"], ["fr"]),
        helper.make_node("Add", ["p", "fr"], ["y"]),
    )
    given = replace(made, nodes=nodes, inputs={**made.inputs, "r": residual})
    program = compile_graph(import_model(model_of([given])), find_target("h200"))
    (product,) = program.operators
    assert product.variant.operands[-2:] == ("c0_r", "c0_y")
