"""What the Graph holds: names, attributes, outputs that survive, nothing that does nothing."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from frontend_support import (
    ALL_OPERATORS,
    PLAIN,
    expect_same,
    have,
    one_node,
    parse,
    random_inputs,
    run_ort,
    to_model,
)
from onnx import helper, numpy_helper

from ramforge.compiler.frontend import _simplify, import_model
from ramforge.compiler.ir import Graph


@pytest.fixture(autouse=True)
def _all_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS)


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def test_copies_and_dead_nodes_go() -> None:
    text = """g (float[2,3] x) => (float[2,3] y) {
        a = Identity(x) b = Relu(a) c = Identity(b) d, mask = Dropout(c) dead = Abs(d)
        e = Cast<to = 1>(d) f = Identity(e) g1 = Neg(f) y = Identity(g1) }"""
    graph = expect_same(parse(text))
    assert [(node.op, node.inputs, node.outputs) for node in graph.nodes] == [
        ("Relu", ("x",), ("b",)),
        ("Neg", ("b",), ("y",)),
    ]
    assert set(graph.tensors) == {"x", "b", "y"}


def test_dropout_in_training_mode_stays() -> None:
    text = """g (float[2,3] x) => (float[2,3] y) {
        r = Constant<value_float = 0.5>() t = Constant<value = bool {1}>() y = Dropout(x, r, t) }"""
    assert operators(import_model(parse(text))) == ["Dropout"]
    assert operators(import_model(parse(text.replace("bool {1}", "bool {0}")))) == ["Identity"]


def test_dropout_whose_mask_is_read_stays() -> None:
    text = "g (float[2,3] x) => (float[2,3] y, bool[2,3] m) { y, m = Dropout(x) }"
    assert operators(import_model(parse(text))) == ["Dropout"]


def test_outputs_that_are_inputs_or_constants_survive() -> None:
    text = """g (float[2] x) => (float[2] x, float[2] c, float[2] z, float[2] k, float[2] w)
        <float[2] c = {1, 2}> { z = Identity(x) k = Add(c, c) w = Mul(k, x) }"""
    graph = import_model(parse(text))
    assert graph.outputs == ("x_output", "c", "z", "k", "w")
    made = {name for node in graph.nodes for name in node.outputs}
    assert set(graph.outputs) <= made and not made & set(graph.constants)
    x = np.array([3, 5], np.float32)
    x_out, c, z, k, w = run_ort(to_model(graph), {"x": x})
    for found, expected in ((x_out, x), (c, [1, 2]), (z, x), (k, [2, 4]), (w, 2 * x * [1, 2])):
        np.testing.assert_array_equal(found, expected)


def test_two_outputs_that_are_copies_of_one_tensor_survive() -> None:
    text = """g (float[2] x) => (float[2] a, float[2] b, float[2] c) {
        t = Relu(x) a = Identity(t) b = Identity(t) c = Identity(a) }"""
    graph = expect_same(parse(text))
    assert graph.outputs == ("a", "b", "c")


def test_an_output_that_others_read_takes_its_name_along() -> None:
    text = """g (float[2] x) => (float[2] a, float[2] y) {
        t = Relu(x) a = Identity(t) y = Neg(t) }"""
    assert operators(expect_same(parse(text))) == ["Relu", "Neg"]


def test_a_model_of_nothing_but_an_identity_survives() -> None:
    graph = expect_same(parse("g (float[2] x) => (float[2] y) { y = Identity(x) }"))
    assert operators(graph) == ["Identity"]


def test_unused_inputs_stay_in_the_signature() -> None:
    graph = import_model(parse("g (float[2] x, int64[3] q) => (float[2] y) { y = Abs(x) }"))
    assert graph.inputs == ("x", "q")
    assert graph.tensor("q").shape == (3,)


def test_optional_outputs_that_nobody_reads_go_and_variadic_ones_stay() -> None:
    pool = "g (float[1,1,4,4] x) => (float[1,1,3,3] y) { y, i = MaxPool<kernel_shape=[2,2]>(x) }"
    assert import_model(parse(pool)).nodes[0].outputs == ("y",)
    split = "g (float[4] x) => (float[2] y) { y, z = Split<axis = 0, num_outputs = 2>(x) }"
    assert import_model(parse(split)).nodes[0].outputs == ("y", "z")


def test_absent_inputs_are_empty_names() -> None:
    graph = expect_same(
        one_node("Clip", 21, inputs=("x", "", "h"), constants={"h": np.array(0.5, np.float32)})
    )
    assert graph.nodes[0].inputs == ("x", "", "h")


def test_attributes_are_plain_python_values() -> None:
    value = numpy_helper.from_array(np.array([2.5], np.float32))
    nodes = [
        helper.make_node("ConstantOfShape", ["n"], ["c"], value=value),
        helper.make_node("Conv", ["x", "w"], ["a"], auto_pad="SAME_UPPER", strides=[1, 2], group=1),
        helper.make_node("LeakyRelu", ["a"], ["b"], alpha=0.5),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    float32 = onnx.TensorProto.FLOAT
    proto = helper.make_graph(
        nodes,
        "attributes",
        [helper.make_tensor_value_info("x", float32, (1, 2, 4, 4))],
        [helper.make_tensor_value_info("y", float32, None)],
        [
            numpy_helper.from_array(np.array([1, 64, 64, 64]), "n"),
            numpy_helper.from_array(np.ones((1, 2, 3, 3), np.float32), "w"),
        ],
    )
    proto.node[3].input[1] = "b"
    proto.node[0].output[0] = "other"
    proto.output.append(helper.make_tensor_value_info("other", float32, None))
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 21)])
    fill, conv, leaky, _ = import_model(model).nodes
    assert dict(conv.attrs) == {"auto_pad": "SAME_UPPER", "strides": (1, 2), "group": 1}
    assert leaky.attrs["alpha"] == 0.5
    assert isinstance(fill.attrs["value"], np.ndarray) and fill.attrs["value"].tolist() == [2.5]


def test_a_condition_that_is_known_takes_its_branch() -> None:
    text = """g (float[2,1] x) => (float[k] y) {
        s = Shape(x) one = Constant<value_ints = [1]>() i = Constant<value_ints = [1]>()
        n = Gather(s, i) equal = Equal(n, one) c = Squeeze(equal)
        y = If(c)<
            then_branch = g1 () => (float[k] a) <int64[1] ax = {1}> { a = Squeeze(x, ax) },
            else_branch = g2 () => (float[k, m] b) { b = Identity(x) }> }"""
    assert operators(expect_same(parse(text))) == ["Squeeze"]


def test_the_simplified_proto_runs_with_its_constants_as_inputs() -> None:
    model = parse("g (float[2,3] x) => (float[2,40] y) { a = Dropout(x) y = MatMul(a, w) }", 11)
    weights = np.random.default_rng(0).standard_normal((3, 400)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    slim = _simplify(model).model
    onnx.checker.check_model(slim.proto, full_check=True)
    x = np.ones((2, 3), np.float32)
    (found,) = run_ort(slim.proto, {"x": x, "w": np.asarray(slim.constants["w"])})
    np.testing.assert_allclose(found, x @ weights, rtol=1e-5)


EXPANDED = {
    "gelu": "{ y = Gelu(x) }",
    "gelu-tanh": '{ y = Gelu<approximate = "tanh">(x) }',
    "layer-normalization": "{ y = LayerNormalization(x, s) }",
    "layer-normalization-bias": "{ y = LayerNormalization<epsilon = 0.1>(x, s, b) }",
    "mean-variance": "{ y = MeanVarianceNormalization<axes = [0, 2]>(x) }",
    "mean-variance-defaults": "{ u = Unsqueeze(x, a) m = MeanVarianceNormalization(u) "
    "y = Squeeze(m, a) }",
    "softplus": "{ y = Softplus(x) }",
    "hard-swish": "{ y = HardSwish(x) }",
    "softmax": "{ y = Softmax<axis = 1>(x) }",
    "log-softmax": "{ y = LogSoftmax(x) }",
    "clip-without-min": "{ h = Constant<value_float = 0.5>() y = Clip(x, , h) }",
    "twice": "{ p = Gelu(x) q = Gelu(p) r = LayerNormalization(q, s) y = Gelu(r) }",
    "mish": "{ y = Mish(x) }",
    "body-with-absent-inputs": "{ n = Constant<value_ints = [2, 3]>() "
    "p = CenterCropPad<axes = [0, 1]>(x, n) y = Relu(p) }",
}
BODY_OPERATORS = PLAIN | {
    "Tanh",
    "ReduceMax",
    "Unsqueeze",
    "Squeeze",
    "HardSigmoid",
    "Pad",
    "Slice",
}


@pytest.mark.parametrize("case", EXPANDED)
def test_operators_without_a_kernel_are_expanded(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(monkeypatch, BODY_OPERATORS)
    model = parse(
        "g (float[2,3,4] x) => (float[2,3,4] y) <float[4] s = {1, 2, 3, 4}, "
        "float[4] b = {0.5, 1.5, 2.5, 3.5}, int64[1] a = {3}> " + EXPANDED[case]
    )
    graph = expect_same(model)
    assert set(operators(graph)) <= BODY_OPERATORS
    named = {f"{node.op_type}_{index}" for index, node in enumerate(model.graph.node)}
    assert {node.origin[0] for node in graph.nodes} <= named


def test_operators_with_a_kernel_are_not_expanded() -> None:
    text = """g (float[2,4] x, float[4] s) => (float[2,4] y) {
        a = Gelu(x) y = LayerNormalization(a, s) }"""
    assert operators(import_model(parse(text))) == ["Gelu", "LayerNormalization"]


def test_origins_name_the_composite_node_of_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, BODY_OPERATORS)
    model = parse(
        "g (float[2,4] x, float[4] s) => (float[2,4] y) "
        "{ a = Gelu(x) b = Relu(a) c = Gelu(b) y = LayerNormalization(c, s) }"
    )
    for node, name in zip(model.graph.node, ("up", "act", "down", "norm"), strict=True):
        node.name = name
    graph = import_model(model)
    order = list(dict.fromkeys(node.origin[0] for node in graph.nodes))
    assert order == ["up", "act", "down", "norm"]
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)
    assert graph.producers()["a"].name == "up" and graph.producers()["y"].name == "norm"


def test_functions_of_the_model_are_expanded() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[2,4] x) => (float[2,4] y) { a = local.twice<factor = 3.0>(x) y = local.outer(a) }
        <domain: "local", opset_import: ["" : 17]>
        twice <factor> (v) => (w) { f = Constant<value_float: float = @factor>() w = Mul(v, f) }
        <domain: "local", opset_import: ["" : 17, "local" : 1]>
        outer (v) => (w) { u = local.twice<factor = 5.0>(v) w = Relu(u) }"""
    )
    model.graph.node[0].name, model.graph.node[1].name = "first", "second"
    graph = expect_same(model)
    assert operators(graph) == ["Mul", "Mul", "Relu"]
    assert [node.origin for node in graph.nodes] == [("first",), ("second",), ("second",)]


def resnet18() -> onnx.ModelProto:
    """The graph of ResNet-18 at opset 13 with its weights, and a flatten written by hand."""
    generator = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(*shape: int) -> str:
        array = generator.standard_normal(shape, np.float32) * np.float32(0.05)
        weights.append(numpy_helper.from_array(array, f"w{len(weights)}"))
        return weights[-1].name

    def node(operator: str, *inputs: str, **attrs: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [f"t{len(nodes)}"], **attrs))
        return str(nodes[-1].output[0])

    def conv(x: str, cin: int, cout: int, kernel: int, stride: int) -> str:
        x = node(
            "Conv",
            x,
            constant(cout, cin, kernel, kernel),
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
        )
        return node("BatchNormalization", x, *(constant(cout) for _ in range(3)), ones(cout))

    def ones(count: int) -> str:
        weights.append(numpy_helper.from_array(np.ones(count, np.float32), f"w{len(weights)}"))
        return weights[-1].name

    x = node("Relu", conv("x", 3, 64, 7, 2))
    x = node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for width, stride in [(w, s) for w in (64, 128, 256, 512) for s in (1 + (w > 64), 1)]:
        shortcut = x if stride == 1 else conv(x, channels, width, 1, stride)
        inner = node("Relu", conv(x, channels, width, 3, stride))
        x = node("Relu", node("Add", conv(inner, width, width, 3, 1), shortcut))
        channels = width
    x = node("GlobalAveragePool", x)
    zero = node("Constant", value=numpy_helper.from_array(np.array(0)))
    batch = node("Gather", node("Shape", x), zero)
    axes = node("Constant", value=numpy_helper.from_array(np.array([0])))
    rest = node("Constant", value=numpy_helper.from_array(np.array([-1])))
    shape = node("Concat", node("Unsqueeze", batch, axes), rest, axis=0)
    y = node("Gemm", node("Reshape", x, shape), constant(1000, 512), constant(1000), transB=1)
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "resnet18",
        [helper.make_tensor_value_info("x", float32, ("batch", 3, 224, 224))],
        [helper.make_tensor_value_info(y, float32, ("batch", 1000))],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def test_resnet18_imports_and_says_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    model = resnet18()
    start = time.perf_counter()
    graph = import_model(model, dims={"batch": 1})
    seconds = time.perf_counter() - start
    with capsys.disabled():
        print(f"\n  ResNet-18, {len(model.graph.node)} nodes: import {seconds:.3f} s")
    feeds = random_inputs(graph)
    np.testing.assert_allclose(
        run_ort(to_model(graph), feeds)[0], run_ort(model, feeds)[0], rtol=1e-3, atol=1e-4
    )
    assert not {"Shape", "Gather", "Concat", "Unsqueeze"} & set(operators(graph))


@pytest.mark.parametrize("expanded", [False, True])
def test_1500_nodes_import_and_say_how_long_it_took(
    expanded: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if expanded:
        have(monkeypatch, BODY_OPERATORS)
    body = "".join(
        f"s{i} = Shape(x{i}) r{i} = Reshape(x{i}, s{i}) g{i} = Gelu(r{i}) "
        f"x{i + 1} = LayerNormalization(g{i}, s) d{i} = Identity(x{i + 1}) "
        for i in range(300)
    )
    text = f"g (float[n,8] x0, float[8] s) => (float[n,8] x300) {{ {body} }}"
    model = parse(text)
    start = time.perf_counter()
    graph = import_model(model, dims={"n": 4})
    seconds = time.perf_counter() - start
    with capsys.disabled():
        print(f"\n  1500 nodes, now {len(graph.nodes)}: import {seconds:.3f} s")
    assert len(graph.nodes) >= 900
