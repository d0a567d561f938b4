"""Brings every model to one opset, so that the rest knows one form of each operator.

Input: a checked SlimModel, output: one whose default domain is at opset TARGET_OPSET or newer.
Models that are newer already stay as they are: what changed since then added attributes and types,
no other form. 21 is also what the oldest onnx that we allow knows, so the result does not depend on
the installed one.

onnx's converter does the work, once ``old_forms`` has rewritten what it lacks or gets wrong. Resize
and Upsample before 11 (asymmetric, rounding down) are put right after it.
"""

from __future__ import annotations

import re

import onnx
from onnx import checker, helper, inliner, version_converter

from ramforge.compiler.errors import InvalidModel, UnsupportedModel
from ramforge.compiler.frontend import problems
from ramforge.compiler.frontend.old_forms import rewrite_old_forms
from ramforge.compiler.frontend.origins import adopt
from ramforge.compiler.frontend.slim import (
    SlimModel,
    copy_with_nodes,
    first_line,
    lift_constant_nodes,
)
from ramforge.compiler.frontend.subgraphs import all_nodes

TARGET_OPSET = 21
UNKNOWN_DOMAIN = "ramforge.unknown"
# From what is not of this form onnx's shape inference does not come back (seen with onnx 1.23).
_FORMS = {
    ("Einsum", "equation"): re.compile(
        rb"[A-Za-z]*(\.{3})?[A-Za-z]*(,[A-Za-z]*(\.{3})?[A-Za-z]*)*(->[A-Za-z]*(\.{3})?[A-Za-z]*)?"
    )
}


def check(slim: SlimModel) -> SlimModel:
    """Refuse what is not a valid model; operators unknown to ONNX are set aside."""
    newest = onnx.defs.onnx_opset_version()
    if not slim.opset and all(node.domain for node in slim.proto.graph.node):
        # Only operators of other domains: each becomes a problem of its own.
        slim.proto.opset_import.append(helper.make_opsetid("", TARGET_OPSET))
    if not slim.opset:
        _invalid(
            slim,
            "the opset of the default domain (ai.onnx) is not imported",
            "export the model again with onnx.helper.make_model",
        )
    if slim.opset > newest:
        _invalid(
            slim,
            f"opset {slim.opset} is newer than {newest}, the last that onnx "
            f"{onnx.__version__} knows",
            f"pip install --upgrade onnx, or export the model with opset {TARGET_OPSET}",
        )
    _check_forms(slim)
    slim = _set_aside_unknown(slim)
    checked = copy_with_nodes(slim.proto, slim.proto.graph.node)
    for value in checked.graph.output:
        if not value.type.WhichOneof("value"):
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for value in (*checked.graph.input, *checked.graph.output):
        if value.type.HasField("tensor_type"):
            # The checker wants a shape; a missing one is reported later, with the other problems.
            value.type.tensor_type.shape.SetInParent()
    try:
        checker.check_model(checked)
    except (checker.ValidationError, ValueError, RuntimeError) as error:
        _invalid(slim, _checker_message(error), "export the model again; onnx.checker refuses it")
    return slim


def convert(slim: SlimModel) -> SlimModel:
    """Expand the model's own functions and convert the rest to the current opset."""
    slim = _inline_local_functions(slim)
    opset = slim.opset
    if opset >= TARGET_OPSET:
        return slim
    slim = rewrite_old_forms(slim)
    resized = {
        node.output[0]
        for node in all_nodes(slim.proto.graph)
        if node.op_type in ("Upsample", "Resize")
    }
    try:
        converted = version_converter.convert_version(slim.proto, TARGET_OPSET)
    except Exception as error:  # the converter raises errors of many kinds, none with a common base
        problem = problems.failed_conversion(opset, TARGET_OPSET, first_line(error))
        raise UnsupportedModel(slim.name, (problem,)) from error
    if opset < 11:
        _keep_old_resize(converted, resized)
    return lift_constant_nodes(adopt(slim, converted))


def _check_forms(slim: SlimModel) -> None:
    inner = (node for function in slim.proto.functions for node in function.node)
    for node in (*all_nodes(slim.proto.graph), *inner):
        for attribute in node.attribute:
            form = _FORMS.get((node.op_type, attribute.name))
            text = attribute.s.replace(b" ", b"")
            if form is not None and not form.fullmatch(text):
                _invalid(
                    slim,
                    f"{node.op_type} {node.name!r}: {attribute.name} {attribute.s!r} is malformed",
                    "export the model again",
                )


def _invalid(slim: SlimModel, reason: str, fix: str) -> None:
    raise InvalidModel(f"{slim.name}: {reason}\n    fix: {fix}")


def _checker_message(error: BaseException) -> str:
    """The checker's complaint on one line: some span several before their context."""
    lines = []
    for line in str(error).splitlines():
        if line.startswith("==>"):
            break
        if line.strip():
            lines.append(line.strip())
    context = [
        line.split("==> Context:")[1].strip()
        for line in str(error).splitlines()
        if "==> Context:" in line
    ]
    return " ".join([*lines, *(f"({text})" for text in context[:1])])[:500]


def _set_aside_unknown(slim: SlimModel) -> SlimModel:
    """Move operators without a schema to a domain that checker and converter leave alone."""
    local = {(function.domain, function.name) for function in slim.proto.functions}
    unknown = {
        node.name
        for node in slim.proto.graph.node
        if node.domain in ("", "ai.onnx")
        and (node.domain, node.op_type) not in local
        and not onnx.defs.has(node.op_type, slim.opset, "")
    }
    imported = {entry.domain for entry in slim.proto.opset_import}
    domains = {node.domain for node in slim.proto.graph.node if node.domain not in ("", "ai.onnx")}
    missing = domains - imported
    if not unknown and not missing:
        return slim
    proto = copy_with_nodes(slim.proto, slim.proto.graph.node)
    for node in proto.graph.node:
        if node.name in unknown:
            node.domain = UNKNOWN_DOMAIN
    for domain in sorted({*missing, UNKNOWN_DOMAIN}):
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    return slim.with_proto(proto)


def _inline_local_functions(slim: SlimModel) -> SlimModel:
    if not slim.proto.functions:
        return slim
    try:
        inlined = inliner.inline_local_functions(slim.proto, convert_version=True)
    except Exception as error:  # as above: the C++ code has no common base for its errors
        _invalid(
            slim,
            f"its functions cannot be expanded: {first_line(error)}",
            "export the model without functions (torch: inline the exported program)",
        )
    return lift_constant_nodes(adopt(slim, inlined))


def _keep_old_resize(proto: onnx.ModelProto, outputs: set[str]) -> None:
    for node in all_nodes(proto.graph):
        if node.op_type == "Resize" and node.output[0] in outputs:
            node.attribute.extend(
                [
                    helper.make_attribute("coordinate_transformation_mode", "asymmetric"),
                    helper.make_attribute("nearest_mode", "floor"),
                ]
            )
