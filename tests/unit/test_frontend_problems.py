"""Everything that stops a model is told at once, a row for each node, and nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from frontend_support import ALL_OPERATORS, have, parse
from onnx import helper, numpy_helper

from ramforge.compiler.errors import EXIT_MODEL, InvalidModel, Problem, UnsupportedModel
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import Graph, Node

FEW = frozenset(("Relu", "Add", "MatMul", "Reshape", "Identity", "Cast"))


@pytest.fixture(autouse=True)
def _few_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, FEW)


def problems_of(model: onnx.ModelProto, dims: dict[str, int] | None = None) -> tuple[Problem, ...]:
    with pytest.raises(UnsupportedModel) as caught:
        import_model(model, dims=dims or {})
    assert caught.value.exit_code == EXIT_MODEL
    for problem in caught.value.problems:
        assert problem.reason and problem.fix and str(problem) in str(caught.value)
    return caught.value.problems


def rows(model: onnx.ModelProto, dims: dict[str, int] | None = None) -> list[tuple[str, str]]:
    return [(problem.operator, problem.node) for problem in problems_of(model, dims)]


def test_all_problems_come_at_once() -> None:
    model = parse(
        """g (float[n,4] x, complex64[2] h) => (float[n,4] y) {
        a = my.domain.Fused(x) b = Sin(x) c = NoSuchOperator(x) d = Relu(x)
        e = Cos(d) f = Add(a, b) k = Add(c, e) l = Add(f, k) y = Sin(l) }"""
    )
    assert rows(model) == [
        ("", "input 'x'"),
        ("", "input 'h'"),
        ("my.domain.Fused", "Fused_0"),
        ("Sin", "Sin_1"),
        ("NoSuchOperator", "NoSuchOperator_2"),
        ("Cos", "Cos_4"),
        ("Sin", "Sin_8"),
    ]


def test_each_reason_says_what_is_wrong() -> None:
    model = parse(
        "g (float[2] x) => (float[2] y) "
        "{ a = my.domain.F(x) b = Nothing(a) c = Sin(x) y = Add(b, c) }"
    )
    reasons = [problem.reason for problem in problems_of(model)]
    assert reasons == [
        "operators of the domain my.domain are not supported",
        "ONNX has no operator Nothing",
        "the operator has no kernel",
    ]


def test_a_domain_that_is_not_imported_is_a_problem_too() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = com.microsoft.Gelu(x) }")
    assert rows(model) == [("com.microsoft.Gelu", "Gelu_0")]


def test_a_model_of_another_domain_alone_lists_its_operators() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = my.domain.F(x) }")
    del model.opset_import[0]
    assert rows(model) == [("my.domain.F", "F_0")]


def test_unsupported_operators_of_old_opsets_are_problems() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = my.domain.F(x) b = Gelu(a) y = Sin(b) }", 9)
    found = problems_of(model)
    assert [(problem.operator, problem.node) for problem in found] == [
        ("my.domain.F", "F_0"),
        ("Gelu", "Gelu_1"),
        ("Sin", "Sin_2"),
    ]
    assert "opset 9 has no operator Gelu" in found[1].reason
    assert "newer opset" in found[1].fix


def test_a_dead_node_is_no_problem() -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Sin(x) y = Relu(x) }")
    assert [node.op for node in import_model(model).nodes] == ["Relu"]


def test_what_follows_from_a_problem_is_not_listed() -> None:
    model = parse(
        "g (float[2] x) => (float[2] y) { a = Sin(x) b = Relu(a) c = Relu(b) y = Gelu(c) }"
    )
    model.graph.node[0].domain = "my.domain"
    assert rows(model) == [("my.domain.Sin", "Sin_0")]


def test_a_part_of_a_composite_is_reported_under_its_node() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Gelu(x) }")
    model.graph.node[0].name = "activation"
    found = problems_of(model)
    assert {problem.node for problem in found} == {"activation"}
    assert "Erf, which Gelu is made of, has no kernel" in [problem.reason for problem in found]


def test_refusals_of_the_registry_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(node: Node, graph: Graph) -> tuple[str, str] | None:
        width = graph.tensor(node.inputs[0]).shape[-1]
        return (f"width {width} is too large", "use 4") if width > 4 else None

    have(monkeypatch, FEW, Relu=refuse)
    model = parse(
        "g (float[2,n] x, float[2,4] z) => (float[2,4] y, float[2,n] w) { y = Relu(z) w = Relu(x) }"
    )
    model.graph.node[1].name = "wide"
    (problem,) = problems_of(model, {"n": 8})
    assert problem == Problem("wide", "Relu", "width 8 is too large", "use 4")
    assert len(import_model(model, dims={"n": 4}).nodes) == 2


@pytest.mark.parametrize("label", ["complex64", "complex128", "string"])
def test_inputs_of_other_types_are_problems(label: str) -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Identity(x) y = Relu(a) }", 25)
    code = onnx.TensorProto.DataType.Value(label.upper())
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = code
    (problem,) = problems_of(model)
    assert problem.node == "input 'x'" and label in problem.reason
    assert "float32" in problem.fix


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("label", ["complex64", "complex128", "string"])
def test_constants_of_other_types_are_one_problem_each(label: str, large: bool) -> None:
    size = 4096 if large else 4
    code = onnx.TensorProto.DataType.Value(label.upper())
    values = [b"a"] * size if label == "string" else np.ones(size, np.float32)
    model = parse(f"g (float[{size}] x) => (float[{size}] y) {{ y = Relu(x) }}", 25)
    model.graph.initializer.append(helper.make_tensor("w", code, [size], values))
    constant = helper.make_node("Constant", [], ["k"], value=model.graph.initializer[0])
    model.graph.node.extend([constant])
    assert len(import_model(model).nodes) == 1, "unused tensors do not matter"
    for name in ("w", "k"):
        model.graph.node.append(helper.make_node("Identity", [name], [f"{name}_out"]))
        model.graph.output.append(helper.make_tensor_value_info(f"{name}_out", code, None))
    assert rows(model) == [("", "tensor 'w'"), ("", "tensor 'k'")]


def test_a_cast_to_text_names_the_node_and_not_its_readers() -> None:
    model = parse(
        "g (float[2] x) => (string[2] y) { a = Cast<to = 8>(x) b = Identity(a) y = Identity(b) }"
    )
    (problem,) = problems_of(model)
    assert (problem.operator, problem.node) == ("Cast", "Cast_0")
    assert "string" in problem.reason


def test_sequences_and_optionals_are_problems() -> None:
    model = parse(
        "g (float[2] x, int64 i) => (float[2] y) "
        "{ s = SequenceConstruct(x, x) y = SequenceAt(s, i) }",
        11,
    )
    assert rows(model) == [("SequenceAt", "SequenceAt_1")]
    model = parse("g (seq(float[2]) s, float[2] x) => (float[2] y) { y = Relu(x) }")
    (problem,) = problems_of(model)
    assert problem.node == "input 's'" and "sequence" in problem.reason


@pytest.mark.parametrize("opset", [11, 21])
def test_control_flow_that_only_a_run_decides_is_a_problem(opset: int) -> None:
    text = """g (int64 n, bool c, float[2] x) => (float[2] y) { z = Relu(x) y = Loop(n, c, z)<
        body = b (int64 i, bool k, float[2] v) => (bool o, float[2] w) {
            o = Identity(k) w = Relu(v) }> }"""
    (problem,) = problems_of(parse(text, opset))
    assert (problem.operator, problem.node) == ("Loop", "Loop_1")


def test_shapes_that_depend_on_values_name_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS)
    text = """g (float[2,3] x, int64[2] s) => (float[a,b] y) {
        r = Reshape(x, s) e = Exp(r) y = Relu(e) }"""
    (problem,) = problems_of(parse(text))
    assert (problem.operator, problem.node) == ("Reshape", "Reshape_0")
    assert "'r' depends on run-time values" in problem.reason
    text = "g (float[2,3] x) => (int64[2,n] y) { i = NonZero(x) y = Neg(i) }"
    assert rows(parse(text)) == [("NonZero", "NonZero_0")]


def test_several_contradictions_are_listed_together() -> None:
    model = parse(
        "g (float[2,3] x) => (float[2,3] y) { a = MatMul(x, x) b = MatMul(x, x) c = Add(a, b) "
        "d = Sin(x) y = Add(c, d) }"
    )
    listed = rows(model)
    assert ("MatMul", "MatMul_0") in listed and ("Sin", "Sin_3") in listed


def test_what_the_converter_cannot_do_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("No Adapter From Version $12 for Sin\nmore")

    monkeypatch.setattr("onnx.version_converter.convert_version", fail)
    (problem,) = problems_of(parse("g (float[2] x) => (float[2] y) { y = Sin(x) }", 12))
    assert "opset 12 cannot be converted to 21: No Adapter" in problem.reason
    assert "opset 21 or newer" in problem.fix


@pytest.mark.parametrize("equation", ["i.j->", "ij->..", "1", "ij->ij->ij"])
def test_an_equation_that_onnx_would_not_come_back_from_is_refused(equation: str) -> None:
    text = 'g (float[2,3] x) => (float[2,3] y) { y = Einsum <equation = "%s"> (x) }'
    with pytest.raises(InvalidModel, match=r"equation .* is malformed"):
        import_model(parse(text % equation))


def test_an_axis_that_a_tensor_lacks_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS)
    text = """g (float[2,3] x, float[3] s) => (float[2,3] y) {
        y = LayerNormalization <axis = 7> (x, s) }"""
    (problem,) = problems_of(parse(text))
    assert problem.reason == "axis is 7, and its first input has 2 axes"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("num_scan_inputs = 1", "num_scan_inputs = 2"), "Scan 'Scan_0'"),
        (("directions = [0]", "directions = [0, 0]"), "2 entries, expected 1"),
        (("=> (float[2] o)", "=> (float[2] o, float[2] o)"), "2 outputs"),
    ],
)
def test_a_body_that_does_not_go_with_its_node_is_a_problem(
    change: tuple[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, ALL_OPERATORS - {"Scan"})
    text = """g (float[2] a, float[4,2] x) => (float[2] y) {
        y = Scan <num_scan_inputs = 1, scan_input_directions = [0],
            body = b (float[2] v, float[2] e) => (float[2] o) { o = Add (v, e) }> (a, x) }"""
    assert [node.op for node in import_model(parse(text)).nodes].count("Add") == 4
    with pytest.raises(UnsupportedModel, match=reason):
        import_model(parse(text.replace(*change)))


def test_sparse_constants_are_problems() -> None:
    model = parse("g (float[4] x) => (float[4] y) { y = Add(x, s) }")
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), "s"),
        numpy_helper.from_array(np.array([2]), "i"),
        [4],
    )
    model.graph.sparse_initializer.append(sparse)
    assert rows(model) == [("", "tensor 's'")]


def test_errors_of_other_libraries_never_come_through() -> None:
    """Many small damages to a valid model: each import works or raises an error of ours."""
    from ramforge.compiler.errors import RamforgeError

    text = """g (float[2,3] x) => (float[2,3] y) <float[3] w = {1, 2, 3}, int64[2] s = {3, 2}> {
        a = Reshape(x, s) b = Reshape(a, s) c = Cast<to = 1>(b) y = Relu(c) }"""
    data = bytearray(parse(text, 13).SerializeToString())
    generator = np.random.default_rng(0)
    imported = 0
    for _ in range(400):
        damaged = bytearray(data)
        damaged[int(generator.integers(len(data)))] = int(generator.integers(256))
        try:
            model = onnx.ModelProto.FromString(bytes(damaged))
        except Exception:
            continue
        try:
            import_model(model)
            imported += 1
        except RamforgeError as error:
            assert "fix: " in str(error)
    assert imported > 10
