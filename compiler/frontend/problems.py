"""The wording of every problem that the front end can find in a model, in one place.

Input: names and figures, output: errors.Problem. No decision is made here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import onnx

from ramforge.compiler.errors import Problem
from ramforge.compiler.frontend.slim import Origin

_FIXED_SHAPES = (
    "export the model with fixed shapes, or simplify it first (onnxsim model.onnx out.onnx)"
)
_INFERENCE_ERROR = re.compile(
    r"\(op_type:(?P<op>\w+)(?:, node name: (?P<node>[^)]*))?\):? (?:\[\w+\] )?(?P<reason>[^\n]+)"
)


def unresolved_dimension(
    name: str, rank: int, axis: int, symbol: str, shape: Sequence[str]
) -> Problem:
    """A dimension of an input that has no value."""
    if symbol:
        reason = f"axis {axis} is the dimension {symbol!r}, which has no value"
        fix = f"--dim {shlex.quote(f'{symbol}=1')}"
    else:
        example = "x".join(text if text.isdigit() else "1" for text in shape)
        reason = f"axis {axis} of {rank} has neither a size nor a name"
        fix = f"--shapes {shlex.quote(f'{name}:{example}')}"
    return Problem(f"input {name!r}", "", reason, fix)


def unknown_rank(name: str) -> Problem:
    """An input without any shape."""
    fix = f"--shapes {shlex.quote(f'{name}:1x3x224x224')}"
    return Problem(f"input {name!r}", "", "it has no shape", fix)


def not_a_tensor(name: str, kind: str) -> Problem:
    """An input of sequence, optional, map or sparse type."""
    reason = f"its type is {kind}, and only dense tensors are supported"
    return Problem(f"input {name!r}", "", reason, "export the model with tensors as inputs")


def output_type(name: str, kind: str) -> Problem:
    """An output of the graph that is a sequence, optional or map."""
    reason = f"its type is {kind}, and only dense tensors are supported"
    return Problem(f"output {name!r}", "", reason, "export the model with tensors as outputs")


def element_type(what: str, name: str, label: str) -> Problem:
    """A tensor that no kernel can hold."""
    fix = "export the model in float32"
    if label not in ("float16", "bfloat16"):
        fix = f"export the model without {label} tensors, in float32"
    return Problem(f"{what} {name!r}", "", f"element type {label} is not supported", fix)


def too_large(name: str, shape: Sequence[int], most: int, most_bytes: int) -> Problem:
    """A tensor that no kernel can count through, or that no place in memory can hold."""
    reason = (
        f"its shape is {'x'.join(map(str, shape))}, and the most is {most} along an axis and "
        f"{most_bytes >> 30} GiB in all"
    )
    return Problem(f"tensor {name!r}", "", reason, "give smaller shapes, or split the model")


def produced_type(origin: Origin, operator: str, tensor: str, label: str) -> Problem:
    """A node that makes a tensor of an unsupported type out of supported ones."""
    reason = f"its output {tensor!r} has the unsupported type {label}"
    return Problem(origin.node, operator, reason, "export the model in float32")


def unsupported_operator(origin: Origin, operator: str) -> Problem:
    """An operator of the default domain without an entry."""
    reason = "the operator has no kernel"
    if origin.operator != operator:
        reason = f"{operator}, which {origin.operator} is made of, has no kernel"
    return Problem(
        origin.node,
        operator,
        reason,
        "export the model without it, or add the operator (one entry in kernels/)",
    )


def unknown_operator(origin: Origin, operator: str, opset: int) -> Problem:
    """An operator that the model's opset does not have."""
    if onnx.defs.has(operator, ""):
        reason = f"opset {opset} has no operator {operator}"
        return Problem(origin.node, operator, reason, "export the model with a newer opset")
    reason, fix = f"ONNX has no operator {operator}", "export the model without it"
    return Problem(origin.node, operator, reason, fix)


def foreign_domain(origin: Origin, operator: str, domain: str) -> Problem:
    """An operator that is not one of ONNX."""
    reason = f"operators of the domain {domain} are not supported"
    return Problem(
        origin.node, operator, reason, "export the model with operators of ONNX alone (ai.onnx)"
    )


def control_flow(origin: Origin, operator: str, obstacle: str) -> Problem:
    """A node with subgraphs that could not be replaced by what it would run."""
    reason = f"{obstacle or 'its subgraph is not supported'}: it cannot be unrolled"
    if origin.operator != operator:
        reason = f"{operator}, which {origin.operator} is made of: {reason}"
    fix = "make what it depends on a constant (--bind), or export the model without it"
    return Problem(origin.node, operator, reason, fix)


def open_sequence(origin: Origin, operator: str) -> Problem:
    """An operator of sequences or optionals about which a run decides."""
    reason = "what the sequence or optional holds is not known when the model is compiled"
    if origin.operator != operator:
        reason = f"{operator}, which {origin.operator} is made of: {reason}"
    fix = "export the model with tensors instead, or make its positions constants (--bind)"
    return Problem(origin.node, operator, reason, fix)


def axis_outside(origin: Origin, operator: str, axis: int, rank: int) -> Problem:
    """An axis that the tensor does not have."""
    reason = f"axis is {axis}, and its first input has {rank} axes"
    return Problem(origin.node, operator, reason, "correct the axis, or the input's shape")


def unlike_branches(origin: Origin, yes: Sequence[int], no: Sequence[int]) -> Problem:
    """A choice at run time between tensors of two shapes."""
    reason = f"a run chooses between the shapes {list(yes)} and {list(no)}, expected one shape"
    fix = "make its condition a constant (--bind), or pad both to one shape"
    return Problem(origin.node, origin.operator, reason, fix)


def unknown_shape(
    origin: Origin, operator: str, tensor: str, found: str, inputs: Sequence[str]
) -> Problem:
    """A tensor whose shape inference could not find; ``inputs`` of the model decide it."""
    reason = f"the shape of its output {tensor!r} depends on run-time values (found {found})"
    declare = f"declare the shape of {tensor!r} in the model"
    fix = f"{_bind(inputs)}, or {declare}" if inputs else f"{declare}, or {_FIXED_SHAPES}"
    return Problem(origin.node, operator, reason, fix)


def unknown_operand(origin: Origin, operator: str, tensor: str, inputs: Sequence[str]) -> Problem:
    """An operand that has to be known, and that no declared shape tells."""
    reason = f"input {tensor!r} decides a shape and is computed at run time"
    fix = "give it as a constant, or let a constant-folding exporter fold it"
    return Problem(origin.node, operator, reason, _bind(inputs) if inputs else fix)


def _bind(inputs: Sequence[str]) -> str:
    return " ".join(f"--bind {shlex.quote(f'{name}=VALUES.npz')}" for name in inputs)


def failed_conversion(opset: int, target: int, detail: str) -> Problem:
    """The version converter gave up."""
    reason = f"opset {opset} cannot be converted to {target}: {detail}"
    return Problem("model", "", reason, f"export the model with opset {target} or newer")


def old_form(origin: Origin, operator: str, opset: int, reason: str) -> Problem:
    """A node of an old opset without a faithful newer form."""
    reason = f"its form of opset {opset} has no newer one: {reason}"
    return Problem(origin.node, operator, reason, "export the model with a newer opset")


def inference_errors(message: str, origin_of: dict[str, Origin]) -> tuple[Problem, ...]:
    """What onnx's shape inference complains about, a row for each node."""
    fix = "check the model and the shapes given for its inputs, then export it again"
    found: dict[str, Problem] = {}
    for match in _INFERENCE_ERROR.finditer(message):
        origin = origin_of.get(match["node"] or "", Origin(match["node"] or "model", match["op"]))
        reason = re.sub(r"^\s*\[\w+\]\s*", "", match["reason"]).strip()
        found.setdefault(origin.node, Problem(origin.node, match["op"], reason, fix))
    if not found:
        lines = [line.strip() for line in message.splitlines() if line.strip()]
        return (Problem("model", "", lines[0] if lines else "shape inference failed", fix),)
    return tuple(found.values())
