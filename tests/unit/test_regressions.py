"""What the fuzzer found, each made small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import Graph, Node
from tests.helpers import Case, Known, check, difference, expected_of, ints, model_of, numbers, one


def folded(case: Case) -> np.ndarray:
    """The value of a model that has constants only, as the front end finds it."""
    graph = import_model(model_of([case]))
    (name,) = graph.outputs
    (copy,) = graph.nodes
    assert copy.op == "Identity" and copy.outputs == (name,)
    return graph.constants[copy.inputs[0]]


def test_constants_are_folded_as_the_program_would_compute_them() -> None:
    """Not by onnx.reference, which divides by a sum that may be negative."""
    x = numbers(3, 4)
    case = one("LpNormalization", Known(x), axis=0, p=1)
    wanted = x / np.abs(x).sum(axis=0, keepdims=True)
    assert not difference(folded(case), wanted, 1e-5)


def test_folded_pooling_leaves_out_what_is_beyond_the_padding() -> None:
    x = Known(numbers(1, 2, 3, 4, 7))
    attributes = {"kernel_shape": [3, 1, 4], "strides": [2, 1, 1], "pads": [2, 0, 0, 1, 0, 1]}
    case = one("LpPool", x, ceil_mode=1, **attributes)
    assert not difference(folded(case), expected_of(case)[0], 1e-5)


def test_a_bound_that_clip_lacks_is_the_last_finite_number(tmp_path: Path) -> None:
    """As the standard says; onnx.reference lets infinities through."""
    x = np.array([-np.inf, -2, 0.5, np.inf, np.nan], np.float32)
    cases = []
    for kind in (np.float16, np.float32, np.float64):
        low, high = (np.array(bound, kind) for bound in (-1, 1))
        cases += [one("Clip", x.astype(kind), low), one("Clip", x.astype(kind), None, high)]
        cases.append(one("Clip", x.astype(kind)))
    check(cases, tmp_path)


def test_a_problem_upstream_does_not_stop_the_look_at_other_nodes() -> None:
    """Whoever asks for readers in a graph with a tensor of unknown shape."""
    node = Node("n", "Relu", ("unknown",), ("y",))
    graph = Graph("g", (), ("y",), (node,), {}, {})
    assert graph.consumers() == {"unknown": [node]}


def test_the_mean_of_integers_fits_where_their_sum_does_not(tmp_path: Path) -> None:
    x = np.array([[-988758536, -825366344, -1971503703], [2**31 - 1, 2**31 - 1, 5]], np.int32)
    big = np.array([[2**32 - 1, 2**32 - 3]], np.uint32)
    mean = np.array([-1261876194, 1431655766], np.int32)
    cases = [
        one("ReduceMean", x, ints(1), keepdims=0).giving(mean),
        one("ReduceMean", big, ints(1), keepdims=0).giving(np.array([2**32 - 2], np.uint32)),
    ]
    check(cases, tmp_path)


def padded(op: str, x: np.ndarray, pads: list[int], weight: np.ndarray) -> Case:
    """A product of ``x`` with 2 around it."""
    nodes = (
        helper.make_node("Pad", ["x", "pads", "two"], ["p"], "pad"),
        helper.make_node(op, ["p", "w"], ["y"], op.lower()),
    )
    known = {"pads": np.array(pads), "two": np.float32(2), "w": weight}
    return Case(f"Pad {op}", nodes, {"x": x}, ("y",), known)


def test_padding_that_is_not_zero_stays_in_front_of_a_product(tmp_path: Path) -> None:
    """What lies outside of a row of a product counts as zero."""
    matrix = padded("MatMul", numbers(6, 4), [1, 0, 2, 1], numbers(5, 33))
    image = padded("Conv", numbers(1, 4, 5, 5), [0, 0, 1, 1, 0, 0, 1, 1], numbers(8, 4, 3, 3))
    check([matrix, image], tmp_path)
