"""Which body a node gets, and what it reads: facts of the emitted text and of its cost."""

from __future__ import annotations

import onnx
import pytest

from ramforge.compiler.device import find_target
from ramforge.compiler.frontend import import_model
from ramforge.compiler.pipeline import Program, compile_graph
from ramforge.compiler.rprogram import ROperator
from ramforge.runtime.gpu_cases import model_of


def program(model: onnx.ModelProto, target: str = "host:2", precision: str = "fp32") -> Program:
    chosen = find_target(target).with_precision(precision)
    return compile_graph(import_model(model), chosen, "per-op")


def operator(found: Program, op: str) -> ROperator:
    (one,) = (each for each in found.operators if each.op == op)
    return one


DEPTHWISE = model_of(
    "g (float[1, 24, 9, 9] x) => (float[1, 24, 9, 9] y)"
    "{ r = Conv(x, v) d = Conv<pads=[1, 1, 1, 1], group=24>(r, w) y = Conv(d, v) }",
    w=(24, 1, 3, 3),
    v=(24, 24, 1, 1),
)


def test_a_depthwise_convolution_has_its_channels_side_by_side() -> None:
    found = program(DEPTHWISE)
    middle = next(each for each in found.operators if each.variant.body.family == "reduce")
    text = middle.variant.body.text
    # neighbouring columns are neighbouring channels, of the image and of the weights
    assert "x0[column + " in text and "x1[column + " in text
    (weight,) = middle.variant.packed
    assert weight.startswith("w#order.") and found.weights[weight].shape == (1, 3, 3, 24)


def test_padding_is_asked_for_once_and_not_for_every_channel() -> None:
    found = program(DEPTHWISE)
    middle = next(each for each in found.operators if each.variant.body.family == "reduce")
    present, value = middle.variant.body.text.split("RF_LAMBDA(int row, int column, int r)")
    assert "&&" in present and "&&" not in value and "?" not in value


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
def test_pooling_skips_its_padding(pool: str) -> None:
    model = model_of(
        f"g (float[1, 3, 9, 9] x) => (float[1, 16, 9, 9] y)"
        f"{{ r = Conv(x, v) p = {pool}<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(r)"
        "  y = Conv(p, w) }",
        v=(16, 3, 1, 1),
        w=(16, 16, 1, 1),
    )
    text = operator(program(model), pool).variant.body.text
    present = text.split("RF_LAMBDA")[1]
    assert "return true;" not in present


def test_a_convolution_of_one_channel_with_padding_is_a_product() -> None:
    model = model_of(
        "g (float[1, 1, 12, 12] x) => (float[1, 32, 12, 12] y)"
        "{ y = Conv<pads=[1, 1, 1, 1]>(x, w) }",
        w=(32, 1, 3, 3),
    )
    assert operator(program(model), "Conv").variant.body.family == "contract"


def test_a_row_of_an_embedding_costs_what_a_row_has() -> None:
    """And not all of the table, which is where the row may lie."""
    model = model_of(
        "g (int64[1] x, float[4] a) => (float[1, 4] y) {y = Gather(t, x)}", t=(9999, 4)
    )
    assert operator(program(model, "h200"), "Gather").variant.cost.read_bytes < 100


@pytest.mark.parametrize("rows", [1, 4, 5])
def test_a_few_rows_have_a_body_that_streams_the_weights(rows: int) -> None:
    model = model_of(
        f"g (float[{rows}, 64] x) => (float[{rows}, 96] y) {{ y = MatMul(x, w) }}", w=(64, 96)
    )
    text = operator(program(model, "h200"), "MatMul").variant.body.text
    assert ("rf_contract_few<" in text) is (rows <= 4)
    assert "rf_contract_few<" not in operator(program(model), "MatMul").variant.body.text


@pytest.mark.parametrize(("columns", "together"), [(64, 4), (62, 2), (63, 1)])
def test_runs_of_whole_chunks_are_copied_chunk_by_chunk(columns: int, together: int) -> None:
    model = model_of(
        f"g (float[64, {columns}] x) => (float[64, 96] y) {{ y = MatMul(x, w) }}", w=(columns, 96)
    )
    text = operator(program(model, "h200"), "MatMul").variant.body.text
    assert f"rf_problem<float, 64, 96, 1, {columns}, 1, {together}>" in text
    assert f"rf_packed<float, {columns}, 4>" in text


def test_a_model_in_float16_has_its_channels_last_too() -> None:
    """Its products widen what they read, which is no other layout."""
    model = model_of(
        "g (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] y) {"
        "  h = Cast<to=10>(x) v = Cast<to=10>(w) a = Conv<pads=[1, 1, 1, 1]>(h, v)"
        "  b = Conv<pads=[1, 1, 1, 1]>(a, v) y = Cast<to=1>(b) }",
        w=(16, 16, 3, 3),
    )
    bodies = [each.variant.body for each in program(model, "h200").operators]
    products = [body.text for body in bodies if body.family == "contract"]
    assert len(products) == 2
    assert all("rf_problem<rf_half, 64, 16, 9, 16, 1, 8>" in text for text in products)
