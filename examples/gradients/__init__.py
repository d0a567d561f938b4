"""Gradients of an ONNX graph as an ONNX graph: reverse-mode differentiation without a framework.

``with_gradients(model, "loss", ["weight"])`` is the model with a further output for each name, the
derivative of the loss with respect to it. What comes out is a plain model: one compiled program
then computes loss and gradients in one launch.

A rule says for one operator how the gradients of its outputs become those of its inputs. There is a
table of them in each of ``pointwise``, ``movement``, ``products`` and ``sampling``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from examples.gradients import movement, pointwise, products, sampling
from examples.gradients.tape import NoGradient, Rule, Step, Tape, Value

__all__ = ["FLAT", "RULES", "NoGradient", "gradient_name", "with_gradients"]

RULES: Mapping[str, Rule] = {
    **{op: pointwise.as_rule(formula) for op, formula in pointwise.FORMULAS.items()},
    **movement.RULES,
    **products.RULES,
    **sampling.RULES,
}
# Steps and truth values: where they change at all, they jump.
FLAT = frozenset(
    (
        *("Floor", "Ceil", "Round", "Sign", "Shape", "Size", "ArgMax", "ArgMin", "ConstantOfShape"),
        *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Not", "Xor"),
    )
)


def gradient_name(name: str) -> str:
    return f"{name}_gradient"


def with_gradients(model: onnx.ModelProto, loss: str, wanted: Sequence[str]) -> onnx.ModelProto:
    """The model with the derivatives of ``loss``, one number, as outputs ``<name>_gradient``."""
    tape = Tape(model, loss)
    steps = _between(tape, set(wanted), loss)
    gradients: dict[str, list[Value]] = {loss: [tape.filled(1.0, tape.shape(loss))]}
    for step in reversed(steps):
        found = {name: tape.total(gradients.get(name, [])) for name in step.node.output}
        if any(found.values()):
            _step_back(tape, step, found, gradients)
    for name in wanted:
        if name not in tape.shapes:
            raise NoGradient(f"the model has no tensor {name!r}")
        # what does not move the loss has a gradient of zeros
        shape = tape.shape(name)
        slope = tape.total(gradients.get(name, [])) or tape.filled(0.0, shape)
        tape.finish(slope, gradient_name(name), shape)
    return tape.model()


def _between(tape: Tape, wanted: set[str], loss: str) -> list[Step]:
    """The steps through which the wanted tensors move the loss, in the order of the model."""
    moved = set(wanted)
    steps = []
    for node in tape.forward:
        if node.op_type not in FLAT and moved.intersection(node.input):
            moved.update(node.output)
            steps.append(Step(tape, node, frozenset(moved.intersection(node.input))))
    if loss not in moved:
        raise NoGradient(f"{loss!r} depends on none of {sorted(wanted)}")
    return steps


def _step_back(
    tape: Tape,
    step: Step,
    found: Mapping[str, Value | None],
    gradients: dict[str, list[Value]],
) -> None:
    rule = RULES.get(step.node.op_type)
    if rule is None:
        raise NoGradient(f"{step.node.op_type} {step.node.name!r} has no rule")
    slopes = [
        (slope or tape.filled(0.0, tape.shape(name))) if name else None
        for name, slope in found.items()
    ]
    for name, slope in zip(step.node.input, rule(step, *slopes), strict=False):
        if name not in step.moved:
            continue
        if slope is None:
            raise NoGradient(f"{step.node.op_type} {step.node.name!r} has no rule for {name!r}")
        gradients.setdefault(name, []).append(slope)
