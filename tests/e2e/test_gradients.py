"""The rules of examples/gradients against central differences, and the fit that uses them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from gradient_cases import GROUPS, backward, model_of, numbers, session_of
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from examples import fit
from examples.gradients import FLAT, RULES, NoGradient, with_gradients
from ramforge.runtime import verify
from ramforge.zoo import builder
from ramforge.zoo.vision_pipeline import augmentation
from tests.helpers import Array, Case, check, many, run_both
from tests.host_builds import quick_host_builds


@pytest.mark.parametrize("group", GROUPS)
def test_rules_agree_with_central_differences(
    group: Callable[[], list[Case]], tmp_path: Path
) -> None:
    check(group(), tmp_path)


def test_every_rule_has_a_case() -> None:
    tested = {node.op_type for group in GROUPS for made in group() for node in made.nodes}
    assert not set(RULES) - tested
    assert not set(RULES) & FLAT


def test_the_whole_augmentation_of_the_zoo_has_gradients(tmp_path: Path) -> None:
    graph = augmentation(1, 6, 5, 4, radius=1).graph
    constants = {
        tensor.name: doubled(numpy_helper.to_array(tensor)) for tensor in graph.initializer
    }
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    inputs = {name: numbers(*shape, low=-1.5, high=1.5) for name, shape in shapes.items()}
    made = Case("", tuple(graph.node), inputs, ("augmented",), constants, opset=builder.OPSET)
    check(backward(made), tmp_path)


def doubled(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def test_the_fit_finds_the_true_parameters() -> None:
    with quick_host_builds("-O1"):
        assert fit.fit().is_close


def test_the_gradients_of_the_fit_are_right_in_the_emulator(tmp_path: Path) -> None:
    model = with_gradients(fit.forward(9), "loss", fit.PARAMETERS)
    feeds = {"photograph": fit.photograph(9), "wanted": fit.photograph(9, seed=1)}
    feeds.update(fit.inputs_of(fit.joined(fit.TRUE)))
    names = [value.name for value in model.graph.output]
    session = session_of(model)
    found = run_both(model, feeds, tmp_path, ["emulator"])["emulator"]
    verify.require(verify.differences(names, found, session.run(names, feeds)))


def small(text: str) -> onnx.ModelProto:
    made = many("", text, {"x": numbers(2, 3, 4), "z": numbers(2)}, ["loss"])
    return model_of(made.nodes, made.inputs, made.constants, ["loss"])


def test_what_does_not_move_the_loss_has_a_gradient_of_zeros() -> None:
    model = with_gradients(small("loss = ReduceSum <keepdims=0> (x)"), "loss", ["x", "z"])
    inputs = {"x": numbers(2, 3, 4), "z": numbers(2)}
    _, by_x, by_z = ReferenceEvaluator(model).run(None, inputs)
    assert np.array_equal(by_x, np.ones((2, 3, 4))) and np.array_equal(by_z, np.zeros(2))


@pytest.mark.parametrize(
    ("text", "loss", "wanted", "message"),
    [
        ("t = Asinh (x)\nloss = ReduceSum <keepdims=0> (t)", "loss", "x", "Asinh '' has no rule"),
        ("loss = Neg (x)", "loss", "x", "'loss' is not one number"),
        ("loss = Neg (x)", "lost", "x", "'lost' is not one number"),
        ("loss = ReduceSum <keepdims=0> (x)", "loss", "w", "depends on none of"),
        ("t = Pow (z, z)\nloss = ReduceSum <keepdims=0> (t)", "loss", "z", "no rule for 'z'"),
    ],
)
def test_what_cannot_be_differentiated_is_refused(
    text: str, loss: str, wanted: str, message: str
) -> None:
    with pytest.raises(NoGradient, match=message):
        with_gradients(small(text), loss, [wanted])
