"""A quantised output may be one step off, and nothing else may."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ramforge.runtime import verify
from ramforge.runtime.verify.steps import steps

STEP = 0.25


def made(last: str) -> onnx.ModelProto:
    """x rounded to a grid, and what it was before."""
    nodes = [
        helper.make_node("Relu", ["x"], ["plain"]),
        helper.make_node("QuantizeLinear", ["plain", "step", "zero"], ["grid"]),
        helper.make_node("DequantizeLinear", ["grid", "step", "zero"], ["back"]),
    ]
    kinds = {"plain": TensorProto.FLOAT, "grid": TensorProto.INT8, "back": TensorProto.FLOAT}
    constants = {"step": np.float32(STEP), "zero": np.int8(-3)}
    graph = helper.make_graph(
        nodes,
        "grid",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info(last, kinds[last], [4])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])


@pytest.mark.parametrize(("last", "one"), [("back", np.float32(STEP)), ("grid", np.int8(1))])
def test_an_output_of_a_quantiser_may_be_one_step_off(last: str, one: np.generic) -> None:
    allowed = steps(made(last))
    right = (np.arange(4) * one).astype(one.dtype)
    for number, fine in ((0, True), (1, True), (2, False)):
        wrong = right.copy()
        wrong[2] += one.dtype.type(number * one)
        assert verify.difference(last, wrong, right, allowed).ok is fine


def test_other_outputs_keep_their_tolerance() -> None:
    allowed = steps(made("plain"))
    assert not allowed.absolute and not allowed.relative
