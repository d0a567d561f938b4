"""Symbolic dimensions: bound by name or by whole shapes, and reported where they stay open."""

from __future__ import annotations

import pytest
from frontend_support import ALL_OPERATORS, expect_same, have, parse

from ramforge.compiler.errors import EXIT_MODEL, CompileError, UnsupportedModel
from ramforge.compiler.frontend import import_model

TWO = """g (float[batch, 3, size] x, float[batch, 3, 1] s) => (float[batch, 3, size] y)
    { y = Mul(x, s) }"""


@pytest.fixture(autouse=True)
def _all_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS)


def test_names_bind_all_inputs() -> None:
    graph = import_model(parse(TWO), dims={"batch": 5, "size": 7})
    assert graph.tensor("x").shape == (5, 3, 7)
    assert graph.tensor("s").shape == (5, 3, 1)
    assert graph.tensor("y").shape == (5, 3, 7)


def test_a_whole_shape_binds_the_names_it_meets() -> None:
    graph = import_model(parse(TWO), shapes={"x": (5, 3, 7)})
    assert graph.tensor("s").shape == (5, 3, 1)


def test_stale_sizes_of_outputs_and_between_do_not_matter() -> None:
    model = parse("g (float[n, 4] x) => (float[1, 4] y) { a = Relu(x) y = Abs(a) }")
    model.graph.value_info.extend(parse("g (float[1, 4] a) => (float[1] y) {}").graph.input)
    assert import_model(model, dims={"n": 3}).tensor("y").shape == (3, 4)


def test_an_input_without_a_shape_can_be_given_one() -> None:
    model = parse("g (float[1] x) => (float[1] y) { y = Relu(x) }")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert import_model(model, shapes={"x": (2, 3)}).tensor("y").shape == (2, 3)
    with pytest.raises(UnsupportedModel, match=r"(?s)input 'x': it has no shape.*--shapes x:1x3"):
        import_model(model)


def test_open_dimensions_are_listed_with_the_flag_that_binds_each() -> None:
    with pytest.raises(UnsupportedModel) as caught:
        import_model(parse(TWO), dims={"size": 7})
    assert caught.value.exit_code == EXIT_MODEL
    assert [problem.node for problem in caught.value.problems] == ["input 'x'", "input 's'"]
    assert "axis 0 is the dimension 'batch'" in str(caught.value)
    assert "fix: --dim batch=1" in str(caught.value)


@pytest.mark.parametrize("size", [None, -1])
def test_a_dimension_without_a_name_asks_for_the_shape(size: int | None) -> None:
    model = parse("g (float[1, 3, 224, 224] x) => (float[1] y) { y = Relu(x) }")
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    dim.Clear()
    if size is not None:
        dim.dim_value = size
    with pytest.raises(UnsupportedModel, match=r"(?s)axis 0 of 4.*--shapes x:1x3x224x224"):
        import_model(model)
    assert import_model(model, shapes={"x": (2, 3, 224, 224)}).tensor("y").shape[0] == 2


WRONG = {
    "rank": ({"x": (5, 3)}, {}, ["'x': expected 3 axes (batchx3xsize), found 2 (5x3)"]),
    "fixed-axis": ({"x": (5, 4, 7)}, {}, ["'x', axis 1: expected 3, found 4"]),
    "two-inputs": (
        {"x": (5, 3, 7), "s": (6, 3, 1)},
        {},
        ["'s', axis 0 (batch): expected 5 (from --shapes x), found 6"],
    ),
    "dims-and-shapes": ({"x": (5, 3, 7)}, {"size": 8}, ["expected 8 (from --dim size=8), found 7"]),
    "unknown-input": ({"q": (1,)}, {}, ["no input 'q'; it has: 's', 'x'"]),
    "unknown-dimension": ({}, {"b": 1}, ["no dimension 'b'; it has: 'batch', 'size'"]),
    "no-size": (
        {},
        {"batch": -1},
        ["'batch': expected a whole number from 0 to 2147483647, found -1"],
    ),
    "no-size-in-shape": ({"x": (-1, 3, 7)}, {}, ["axis 0: expected a whole number from 0 to"]),
    "all-at-once": ({"q": (1,), "x": (1, 2, 3)}, {"b": 1}, ["'q'", "axis 1: expected 3", "'b'"]),
}


def test_an_axis_may_be_empty() -> None:
    graph = import_model(parse(TWO), dims={"batch": 0, "size": 7})
    assert graph.tensor("x").shape == (0, 3, 7)


@pytest.mark.parametrize("case", WRONG)
def test_shapes_that_do_not_fit_say_axis_expected_and_found(case: str) -> None:
    shapes, dims, words = WRONG[case]
    with pytest.raises(CompileError) as caught:
        import_model(parse(TWO), shapes=shapes, dims=dims)  # type: ignore[arg-type]
    assert caught.value.exit_code == EXIT_MODEL
    for word in words:
        assert word in str(caught.value)


def test_a_contradiction_inside_the_model_names_the_node() -> None:
    model = parse("g (float[n, 4] x, float[3, 4] w) => (float[n, 4] y) { y = Add(x, w) }")
    model.graph.node[0].name = "residual"
    with pytest.raises(UnsupportedModel, match="Add 'residual': Incompatible dimensions"):
        import_model(model, dims={"n": 2})
    assert import_model(model, dims={"n": 3}).tensor("y").shape == (3, 4)


FLATTEN_BY_HAND = """g (float[batch, 3, 4, 5] x) => (float[batch, m] y) {
    shape = Shape(x) zero = Constant<value = int64 {0}>() size = Gather(shape, zero)
    axes = Constant<value = int64[1] {0}>() one = Unsqueeze(size, axes)
    rest = Constant<value = int64[1] {-1}>() both = Concat<axis = 0>(one, rest)
    y = Reshape(x, both) }"""

HEADS = """g (float[batch, length, 12] x) => (float[batch, length, 12] y) {
    s = Shape(x) i0 = Constant<value = int64 {0}>() i1 = Constant<value = int64 {1}>()
    b = Gather(s, i0) n = Gather(s, i1) four = Constant<value_int = 4>()
    w = Constant<value_int = 12>() d = Div(w, four)
    a0 = Constant<value_ints = [0]>() bu = Unsqueeze(b, a0) nu = Unsqueeze(n, a0)
    hu = Unsqueeze(four, a0) du = Unsqueeze(d, a0) split = Concat<axis = 0>(bu, nu, hu, du)
    heads = Reshape(x, split) t = Transpose<perm = [0, 2, 1, 3]>(heads)
    e = Exp(t) back = Transpose<perm = [0, 2, 1, 3]>(e)
    s2 = Shape<end = 2>(back) wu = Unsqueeze(w, a0) merged = Concat<axis = 0>(s2, wu)
    y = Reshape(back, merged) }"""


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        (FLATTEN_BY_HAND, ["Reshape"]),
        (HEADS, ["Reshape", "Transpose", "Exp", "Transpose", "Reshape"]),
    ],
)
def test_shape_chains_disappear(text: str, operators: list[str]) -> None:
    dims = {"batch": 2, "length": 6} if "length" in text else {"batch": 2}
    graph = expect_same(parse(text), dims=dims)
    assert [node.op for node in graph.nodes] == operators
    for node in graph.nodes:
        assert node.op != "Reshape" or node.inputs[1] in graph.constants


def test_a_long_chain_of_data_dependent_shapes_is_folded() -> None:
    body = "".join(
        f"s{i} = Shape(x{i}) n{i} = Size(x{i}) d{i} = Div(n{i}, two) "
        f"r{i} = Range(zero, d{i}, one) m{i} = ReduceMax<keepdims = 0>(r{i}) p{i} = Add(m{i}, one) "
        f"q{i} = Div(n{i}, p{i}) u{i} = Unsqueeze(p{i}, a0) v{i} = Unsqueeze(q{i}, a0) "
        f"c{i} = Concat<axis = 0>(v{i}, u{i}) z{i} = Reshape(x{i}, c{i}) x{i + 1} = Relu(z{i}) "
        for i in range(6)
    )
    text = f"""g (float[n, 6] x0) => (float[2, k] x6) {{
        two = Constant<value_int = 2>() zero = Constant<value_int = 0>()
        one = Constant<value_int = 1>() a0 = Constant<value_ints = [0]>() {body} }}"""
    graph = expect_same(parse(text), dims={"n": 4})
    assert {node.op for node in graph.nodes} == {"Reshape", "Relu"}


def test_large_results_are_not_folded() -> None:
    text = """g (float[4] x) => (float[k] y) {
        n = Constant<value_ints = [1000000, 4]>()
        ones = ConstantOfShape<value = float[1] {1}>(n) y = Mul(ones, x) }"""
    graph = import_model(parse(text))
    assert [node.op for node in graph.nodes] == ["ConstantOfShape", "Mul"]


def test_random_and_quantising_operators_are_not_folded() -> None:
    text = """g (float[4] x) => (float[4] y) {
        r = RandomNormal<shape = [4]>() s = Constant<value_float = 0.5>()
        c = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>() q = QuantizeLinear(c, s)
        d = DequantizeLinear(q, s) a = Add(r, d) y = Add(a, x) }"""
    operators = [node.op for node in import_model(parse(text)).nodes]
    assert operators == ["RandomNormal", "QuantizeLinear", "DequantizeLinear", "Add", "Add"]
