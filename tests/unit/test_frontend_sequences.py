"""Sequences and optionals are followed where all about them is known, and refused elsewhere."""

from __future__ import annotations

import pytest
from frontend_support import ALL_OPERATORS, expect_same, have, parse

from ramforge.compiler.errors import UnsupportedModel
from ramforge.compiler.frontend import import_model
from ramforge.compiler.frontend.sequences import OPERATORS
from ramforge.compiler.ir import Graph


@pytest.fixture(autouse=True)
def _no_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS - OPERATORS - {"Loop", "If", "SequenceMap"})


def model(body: str, outputs: str = "float[2,3] y", constants: str = "") -> Graph:
    places = "int64 zero = {0}, int64 one = {1}, int64 back = {-1}, int64 before = {-2}"
    return expect_same(
        parse(
            f"g (float[2,3] a, float[2,3] b, float[2,3] c) => ({outputs}) "
            f"<{places}{constants}> {{ {body} }}"
        )
    )


@pytest.mark.parametrize("place", ["zero", "one", "back", "before"])
def test_a_place_counts_from_either_end(place: str) -> None:
    model(f"s = SequenceConstruct (a, b, c) t = SequenceAt (s, {place}) y = Neg (t)")
    model(f"s = SequenceConstruct (a, b, c) t = SequenceErase (s, {place}) y = SequenceAt (t, one)")
    for read in ("zero", "one", "back"):
        model(
            f"s = SequenceConstruct (a, b) t = SequenceInsert (s, c, {place}) "
            f"y = SequenceAt (t, {read})"
        )


def test_places_may_be_absent() -> None:
    model(
        "s = SequenceEmpty () t = SequenceInsert (s, a) u = SequenceInsert (t, b) "
        "v = SequenceInsert (u, c) w = SequenceErase (v) y = SequenceAt (w, back)"
    )


def test_the_length_is_a_constant() -> None:
    graph = model(
        "s = SequenceConstruct (a, b, c) n = SequenceLength (s) "
        "k = Cast <to = 1> (n) y = Mul (a, k)"
    )
    assert len(graph.nodes) == 1


@pytest.mark.parametrize(("attributes", "shape"), [("axis = 1", "2,9"), ("axis = -1", "2,9")])
def test_sequences_are_joined(attributes: str, shape: str) -> None:
    body = "s = SequenceConstruct (a, b, c) y = ConcatFromSequence <{}> (s)"
    model(body.format(attributes), f"float[{shape}] y")
    model(body.format("new_axis = 1, axis = -1"), "float[2,3,3] y")


@pytest.mark.parametrize(
    ("operands", "attributes", "joined"),
    [
        ("a", "<axis = 1>", "axis = 1"),
        ("a", "<axis = 1, keepdims = 0>", "new_axis = 1, axis = 0"),
        ("a, two", "<axis = -1>", "axis = 0"),
        ("a, parts", "<axis = 1>", "axis = 1"),
    ],
)
def test_a_tensor_is_split_into_a_sequence(operands: str, attributes: str, joined: str) -> None:
    shapes = {"axis = 1": "2,3", "new_axis = 1, axis = 0": "3,2"}
    if joined in shapes:
        model(
            f"s = SplitToSequence {attributes} ({operands}) y = ConcatFromSequence <{joined}> (s)",
            f"float[{shapes[joined]}] y",
            ", int64 two = {2}, int64[2] parts = {1, 2}",
        )
    else:
        model(
            f"s = SplitToSequence {attributes} ({operands}) y = SequenceAt (s, back)",
            "float[2,1] y",
            ", int64 two = {2}",
        )


def test_optionals_hold_something_or_nothing() -> None:
    model(
        "o = Optional (a) h = OptionalHasElement (o) e = OptionalGetElement (o) "
        "k = Cast <to = 1> (h) y = Mul (e, k)"
    )
    model(
        "s = SequenceConstruct (a, b) o = Optional (s) t = OptionalGetElement (o) "
        "y = SequenceAt (t, one)"
    )
    model("h = OptionalHasElement () k = Cast <to = 1> (h) y = Mul (a, k)")


def test_a_loop_may_carry_a_sequence() -> None:
    graph = model(
        """s = SequenceEmpty () t = Loop (three, yes, s) <body = b (int64 i, bool k,
            seq(float[2,3]) q) => (bool k2, seq(float[2,3]) r) {
            k2 = Identity (k) f = Cast <to = 1> (i) e = Add (a, f) r = SequenceInsert (q, e) }>
        y = ConcatFromSequence <axis = 0> (t)""",
        "float[6,3] y",
        ", int64 three = {3}, bool yes = {1}",
    )
    assert [node.op for node in graph.nodes] == ["Add"] * 3 + ["Concat"]


def test_a_sequence_map_becomes_its_bodies() -> None:
    graph = model(
        """s = SequenceConstruct (a, b)
        t = SequenceMap (s, c) <body = f (float[2,3] p, float[2,3] q) => (float[2,3] r) {
            r = Mul (p, q) }>
        y = ConcatFromSequence <axis = 0> (t)""",
        "float[4,3] y",
    )
    assert [node.op for node in graph.nodes] == ["Mul", "Mul", "Concat"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "g (float[2] a, int64 i) => (float[2] y) "
            "{ s = SequenceConstruct (a, a) y = SequenceAt (s, i) }",
            "SequenceAt.*is not known when the model is compiled",
        ),
        (
            "g (float[2] a) => (float[2] y) <int64 i = {2}> "
            "{ s = SequenceConstruct (a, a) y = SequenceAt (s, i) }",
            "SequenceAt",
        ),
        (
            "g (seq(float[2]) s) => (float[2] y) <int64 i = {0}> { y = SequenceAt (s, i) }",
            "input 's': its type is sequence",
        ),
        (
            "g (float[2] a) => (seq(float[2]) s) { s = SequenceConstruct (a, a) }",
            "output 's': its type is sequence",
        ),
    ],
)
def test_what_a_run_decides_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"1 problem\n.*{reason}"):
        import_model(parse(text))
