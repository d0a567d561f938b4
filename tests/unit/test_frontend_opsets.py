"""Models of old opsets mean the same after the conversion to the current one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from frontend_support import ALL_OPERATORS, expect_same, have, one_node, parse, run_reference
from onnx import helper

from ramforge.compiler.errors import EXIT_MODEL, InvalidModel
from ramforge.compiler.frontend import import_model

F = np.float32
SCALES = {"s": np.array([1, 1, 2, 3], F)}
FRACTIONS = {"s": np.array([1, 1, 1.5, 2.5], F)}
FOUR = tuple(np.random.default_rng(1).random(3).astype(F) + 0.5 for _ in range(4))
BATCH = dict(zip(("g", "b", "m", "v"), FOUR, strict=True))

CASES = {
    "squeeze-9": one_node("Squeeze", 9, (2, 1, 4), axes=[1]),
    "squeeze-11": one_node("Squeeze", 11, (2, 1, 4), axes=[-2]),
    "unsqueeze-9": one_node("Unsqueeze", 9, axes=[0, 2]),
    "reduce-sum-9": one_node("ReduceSum", 9, axes=[1], keepdims=0),
    "reduce-sum-11": one_node("ReduceSum", 11, axes=[-1]),
    "reduce-mean-9": one_node("ReduceMean", 9, axes=[1, 2]),
    "reduce-mean-13": one_node("ReduceMean", 13, axes=[0]),
    "reduce-max-11": one_node("ReduceMax", 11),
    "reduce-l2-11": one_node("ReduceL2", 11, axes=[1]),
    "reduce-log-sum-exp-13": one_node("ReduceLogSumExp", 13, axes=[2]),
    "clip-9": one_node("Clip", 9, min=0.0, max=1.0),
    "clip-9-max": one_node("Clip", 9, max=1.0),
    "clip-9-open": one_node("Clip", 9),
    "clip-11": one_node("Clip", 11, inputs=("x", "", "h"), constants={"h": np.array(0.5, F)}),
    "slice-9": one_node("Slice", 9, starts=[1, -3], ends=[3, 1000], axes=[1, 2]),
    "pad-9": one_node("Pad", 9, pads=[0, 1, 2, 0, 1, 0], value=1.5),
    "pad-9-reflect": one_node("Pad", 9, pads=[0, 1, 2, 0, 1, 0], mode="reflect"),
    "softmax-9": one_node("Softmax", 9),
    "softmax-9-axis-2": one_node("Softmax", 9, axis=2),
    "softmax-11-axis-0": one_node("Softmax", 11, axis=0),
    "softmax-11-negative": one_node("Softmax", 11, axis=-2),
    "softmax-13": one_node("Softmax", 13),
    "log-softmax-11": one_node("LogSoftmax", 11),
    "hardmax-9": one_node("Hardmax", 9),
    "hardmax-11-axis-2": one_node("Hardmax", 11, axis=2),
    "hardmax-13": one_node("Hardmax", 13),
    "dropout-9": one_node("Dropout", 9, ratio=0.4),
    "batch-normalization-9": one_node(
        "BatchNormalization", 9, inputs=("x", *BATCH), constants=BATCH, epsilon=0.1
    ),
    "batch-normalization-13": one_node(
        "BatchNormalization", 13, inputs=("x", *BATCH), constants=BATCH
    ),
    "upsample-9": one_node("Upsample", 9, (1, 2, 3, 4), ("x", "s"), constants=SCALES),
    "upsample-9-linear": one_node(
        "Upsample", 9, (1, 2, 3, 4), ("x", "s"), constants=SCALES, mode="linear"
    ),
    "resize-10": one_node("Resize", 10, (1, 2, 3, 4), ("x", "s"), constants=FRACTIONS),
    "resize-10-linear": one_node(
        "Resize", 10, (1, 2, 3, 4), ("x", "s"), constants=FRACTIONS, mode="linear"
    ),
    "resize-11": one_node(
        "Resize",
        11,
        (1, 2, 3, 4),
        ("x", "r", "s"),
        constants={**SCALES, "r": np.zeros(0, F)},
        mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    "split-9": one_node("Split", 9, outputs=("y", "z"), axis=1, split=[1, 2]),
    "split-9-even": one_node("Split", 9, outputs=("y", "z"), axis=2),
    "split-13": one_node("Split", 13, outputs=("y", "z"), axis=2),
    "top-k-9": one_node("TopK", 9, outputs=("y", "i"), k=2),
    "top-k-10": one_node(
        "TopK", 10, inputs=("x", "k"), outputs=("y", "i"), constants={"k": np.array([2])}
    ),
    "cast-9": one_node("Cast", 9, to=onnx.TensorProto.FLOAT),
    "prelu-9": one_node("PRelu", 9, inputs=("x", "s"), constants={"s": np.array([0.1], F)}),
    "gemm-9": one_node(
        "Gemm", 9, (2, 3), ("x", "w", "c"), constants={"w": np.ones((3, 4), F), "c": np.ones(4, F)}
    ),
    "flatten-9": one_node("Flatten", 9),
    "max-pool-9": one_node("MaxPool", 9, (1, 2, 5, 5), kernel_shape=[3, 3], strides=[2, 2]),
    "average-pool-9": one_node(
        "AveragePool", 9, (1, 2, 5, 5), kernel_shape=[3, 3], pads=[1, 1, 1, 1]
    ),
    "layer-normalization-17": one_node(
        "LayerNormalization", 17, inputs=("x", "s"), constants={"s": np.arange(4, dtype=F)}
    ),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_conversion_keeps_the_meaning(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS)
    model = CASES[case]
    graph = expect_same(model)
    assert all(node.origin == ("the_node",) or node.op == "Identity" for node in graph.nodes)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21, 23])
def test_every_opset_from_9_on_is_read(opset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS)
    text = """g (float[2,3,8,8] x, float[4,3,3,3] w) => (float[2,4,6,6] y)
        { a = Conv(x, w) b = Relu(a) c = Sigmoid(b) y = Mul(b, c) }"""
    graph = expect_same(parse(text, opset))
    assert [node.op for node in graph.nodes] == ["Conv", "Relu", "Sigmoid", "Mul"]


def test_the_newest_opset_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS)
    newest = onnx.defs.onnx_opset_version()
    expect_same(parse("g (float[2] x) => (float[2] y) { y = Relu(x) }", newest), run_reference)


@pytest.mark.parametrize(("opset", "word"), [(99, "newer than")])
def test_opsets_out_of_range_say_what_to_do(opset: int, word: str) -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.opset_import[0].version = opset
    with pytest.raises(InvalidModel, match=f"(?s)opset {opset} is {word}.*fix: ") as caught:
        import_model(model)
    assert caught.value.exit_code == EXIT_MODEL


def test_node_names_survive_the_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS)
    model = parse("g (float[2,3] x) => (float[2,3] y) { a = Relu(x) b = Abs(a) y = Neg(b) }", 9)
    model.graph.node[0].name = "first"
    model.graph.node[1].name = "first"
    graph = import_model(model)
    assert [node.name for node in graph.nodes] == ["first", "first_1", "Neg_2"]
    assert [node.origin for node in graph.nodes] == [("first",), ("first",), ("Neg_2",)]


@pytest.mark.parametrize("opset", [9, 13])
def test_initializers_that_are_inputs_are_constants(
    opset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, ALL_OPERATORS)
    constants = {"w": np.ones((4, 300), F), "c": np.ones(300, F)}
    model = one_node("Gemm", opset, (2, 4), ("x", "w", "c"), constants=constants, ir_version=3)
    for name, array in constants.items():
        info = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
        model.graph.input.append(info)
    graph = expect_same(model)
    assert graph.inputs == ("x",)
    assert set(graph.constants) == {"w", "c"}


def test_deprecated_operators_are_refused_by_name() -> None:
    constants = {"s": np.ones(2, F), "b": np.ones(2, F)}
    model = one_node(
        "GroupNormalization", 18, (1, 4, 2), ("x", "s", "b"), constants=constants, num_groups=2
    )
    with pytest.raises(InvalidModel, match=r"GroupNormalization is deprecated.*the_node"):
        import_model(model)
