"""If, Loop and Scan become the nodes that they would run, or say why they cannot."""

from __future__ import annotations

import numpy as np
import pytest
from frontend_support import ALL_OPERATORS, expect_same, have, parse
from onnx import numpy_helper

from ramforge.compiler.errors import UnsupportedModel
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import Graph

CONTROL = frozenset(("If", "Loop", "Scan"))


@pytest.fixture(autouse=True)
def _all_but_control_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS - CONTROL)


def loop(body: str, trips: str = "5", condition: str = "1", outputs: str = "float[2] y") -> str:
    names = ", ".join(part.split()[-1] for part in outputs.split(", "))
    return f"""g (float[2] x, bool c) => ({outputs})
        <int64 n = {{{trips}}}, bool t = {{{condition}}}, float[2] outer = {{1.5, -2.0}}> {{
        {names} = Loop (n, t, x) <body = b {body}> }}"""


STEADY = """(int64 i, bool k, float[2] v) => (bool k2, float[2] w) {
    k2 = Identity (k) w = Add (v, outer) }"""
STACKING = """(int64 i, bool k, float[2] v) => (bool k, float[2] w, float[2] e) {
    f = Cast <to = 1> (i) w = Mul (v, outer) e = Add (w, f) }"""
STOPPING = """(int64 i, bool k, float[2] v) => (bool k2, float[2] w, float[2] w) {
    three = Constant <value = int64 {2}> () k2 = Less (i, three) w = Add (v, outer) }"""
GROWING = """(int64 i, bool k, float[d] v) => (bool k, float[e] w) {
    w = Concat <axis = 0> (v, outer) }"""
COUNTING = """g (float[2] x) => (float[2] y, int64 last)
    <int64 first = {1}, bool t = {1}, int64 limit = {40}, int64 two = {2}> {
    last, y = Loop (, t, first, x) <body = b (int64 i, bool k, int64 a, float[2] v)
        => (bool k2, int64 b, float[2] w) {
        b = Mul (a, two) k2 = Less (b, limit) w = Neg (v) }> }"""


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def test_a_loop_of_known_length_becomes_its_iterations() -> None:
    assert operators(expect_same(parse(loop(STEADY)))) == ["Add"] * 5


def test_scan_outputs_are_stacked_in_the_order_of_iterations() -> None:
    for trips in ("1", "5", "40"):
        text = loop(STACKING, trips, outputs=f"float[2] y, float[{trips},2] z")
        graph = expect_same(parse(text))
        assert max(len(node.inputs) for node in graph.nodes) <= 16


def test_a_condition_that_is_known_ends_a_loop() -> None:
    graph = expect_same(parse(loop(STOPPING, "9", outputs="float[2] y, float[n,2] z")))
    assert graph.tensor("z").shape == (3, 2)


def test_a_condition_follows_what_a_loop_carries() -> None:
    graph = expect_same(parse(COUNTING))
    assert operators(graph).count("Neg") == 6
    assert graph.constants[graph.nodes[-1].inputs[0]] == 64


def test_a_carried_tensor_may_grow() -> None:
    graph = expect_same(parse(loop(GROWING, outputs="float[n] y")))
    assert graph.tensor("y").shape == (12,)


def test_a_loop_that_never_runs_gives_its_inputs_and_nothing() -> None:
    for trips, condition in (("0", "1"), ("5", "0")):
        text = loop(STACKING, trips, condition, "float[2] y, float[n,2] z")
        assert expect_same(parse(text)).tensor("z").shape == (0, 2)


def test_a_condition_at_run_time_keeps_what_a_stopped_loop_had() -> None:
    body = """(int64 i, bool k, float[2] v) => (bool k2, float[2] w) {
        s = ReduceSum <keepdims = 0> (v) four = Constant <value = float {4.0}> ()
        k2 = Less (s, four) one = Constant <value = float {1.0}> () w = Add (v, one) }"""
    graph = expect_same(parse(loop(body, "7")))
    assert operators(graph).count("Where") == 7
    expect_same(parse(loop(body, "7").replace("Loop (n, t, x)", "Loop (n, c, x)")))


def test_loops_in_loops_and_branches_read_what_is_around_them() -> None:
    text = loop(
        """(int64 i, bool k, float[2] v) => (bool k, float[2] w) {
        two = Constant <value = int64 {2}> ()
        u = Loop (two, k, v) <body = inner (int64 j, bool m, float[2] a) => (bool m, float[2] b) {
            p = Add (i, j) q = Cast <to = 1> (p) s = Mul (a, outer) b = Add (s, q) }>
        odd = Equal (i, two)
        w = If (odd) <then_branch = t1 () => (float[2] yes) { yes = Neg (u) },
                      else_branch = e1 () => (float[2] no) { no = Add (u, x) }> }""",
        "3",
    )
    graph = expect_same(parse(text))
    assert operators(graph).count("Neg") == 1 and operators(graph).count("Mul") == 6


BRANCHES = """g (float[2,3] x, bool c) => (float[2,3] y, float[3] z) {
    r = Relu (x)
    y, z = If (c) <then_branch = t () => (float[2,3] a, float[3] p) {
        a = Neg (r) p = ReduceSum <keepdims = 0> (a, zero) },
    else_branch = e () => (float[2,3] b, float[3] q) {
        b = Add (r, x) q = ReduceMax <keepdims = 0> (x, zero) }> }"""


def test_an_if_at_run_time_is_a_choice_between_both_branches() -> None:
    text = BRANCHES.replace("{\n    r", "<int64[1] zero = {0}> {\n    r", 1)
    for shape in ("", "[1]", "[1,1]"):
        graph = expect_same(parse(text.replace("bool c", f"bool{shape} c")))
        assert operators(graph).count("Where") == 2


def test_branches_of_two_shapes_are_refused() -> None:
    text = """g (float[1,3] x, bool c) => (float[d,3] y) {
        y = If (c) <then_branch = t () => (float[1,3] a) { a = Neg (x) },
            else_branch = e () => (float[2,3] b) { b = Concat <axis = 0> (x, x) }> }"""
    with pytest.raises(UnsupportedModel, match=r"shapes \[1, 3\] and \[2, 3\]"):
        import_model(parse(text))


def test_names_of_the_converter_in_subgraphs_do_not_meet() -> None:
    # Squeeze and Unsqueeze get their axes as new constants, of the same names in each graph
    text = """g (float[2,3] x, bool c) => (float[2,3] y) {
        k = Unsqueeze <axes = [0]> (x) l = Squeeze <axes = [0]> (k)
        y = If (c) <then_branch = t () => (float[2,3] a) {
                s = Unsqueeze <axes = [1]> (l) a = Squeeze <axes = [1]> (s) },
            else_branch = e () => (float[2,3] b) {
                u = Unsqueeze <axes = [2]> (l) v = Squeeze <axes = [2]> (u) b = Neg (v) }> }"""
    expect_same(parse(text, 11))


SCAN = """g (float[3] start, float[2,4,3] u, float[4,3] v)
    => (float[3] last, float[{shape}] sums) {{
    last, sums = Scan <num_scan_inputs = 2, {attributes}
        body = b (float[3] a, float[2,3] e, float[3] f) => (float[3] o, float[2,3] p) {{
            s = Add (a, f)  o = Tanh (s)  p = Mul (e, o) }}> (start, u, v) }}"""


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ("4,2,3", "scan_input_axes = [1, 0],"),
        ("4,2,3", "scan_input_axes = [-2, 0], scan_input_directions = [1, 0],"),
        ("2,3,4", "scan_input_axes = [1, 0], scan_output_axes = [-1],"),
        (
            "2,4,3",
            "scan_input_axes = [1, 0], scan_output_axes = [1], scan_output_directions = [1],",
        ),
    ],
)
def test_scan_goes_along_any_axis_both_ways(shape: str, attributes: str) -> None:
    graph = expect_same(parse(SCAN.format(shape=shape, attributes=attributes)))
    assert operators(graph).count("Tanh") == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (loop(STEADY).replace("Loop (n, t", "Loop (, t"), "it never ends"),
        (loop(STEADY, "30000"), "30000 iterations of 2 nodes are too many"),
        (
            loop(STACKING, outputs="float[2] y, float[5,2] z").replace("(n, t", "(n, c"),
            "size of its scan outputs",
        ),
        (
            loop(STEADY).replace("bool c)", "bool c, int64 m)").replace("(n, t", "(m, t"),
            "its trip count is computed at run time",
        ),
        (COUNTING.replace("{2}", "{1}"), "more than 6666 iterations"),
    ],
)
def test_what_cannot_be_unrolled_says_why(text: str, reason: str) -> None:
    with pytest.raises(UnsupportedModel, match=reason) as caught:
        import_model(parse(text))
    assert "cannot be unrolled" in str(caught.value)


def test_constants_of_a_body_are_there_once() -> None:
    model = parse(loop(STEADY.replace("outer", "inner"), "20"))
    body = next(item.g for item in model.graph.node[0].attribute if item.name == "body")
    body.initializer.append(numpy_helper.from_array(np.array([2, 3], np.float32), "inner"))
    graph = expect_same(model)
    assert len(graph.constants) == 1


def test_the_origin_of_an_unrolled_node_is_the_loop() -> None:
    model = parse(loop(STEADY))
    model.graph.node[0].name = "the_loop"
    assert {node.origin for node in import_model(model).nodes} == {("the_loop",)}


def test_a_function_with_a_loop_in_its_body_is_unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS - CONTROL - {"Range"})
    text = """g (float[4] x) => (float[4] y) <float a = {1.0}, float b = {9.0}, float c = {2.0}> {
        r = Range (a, b, c) y = Mul (x, r) }"""
    graph = expect_same(parse(text))
    assert operators(graph)[-1] == "Mul"
