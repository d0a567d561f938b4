"""Expands operators that have no kernel but are defined by others: ONNX gives them a function body.

Input: a SlimModel with inferred types, output: one with those nodes replaced by their bodies (once;
the caller repeats, as bodies may hold such operators too). What the registry has stays whole.

onnx's inliner does it, on a model of one node each: on whole models its time grows with the square
of their size (the import of 600 calls took 51 s, and now takes 5), and it fails as a whole where
one input has no type.
"""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import helper, inliner

from ramforge.compiler import registry
from ramforge.compiler.frontend.slim import (
    SlimModel,
    copy_with_nodes,
    lift_constant_nodes,
    unique_name,
)
from ramforge.compiler.frontend.subgraphs import all_names, rename

# Removed or kept by the front end itself.
_PLAIN = ("Constant", "Identity", "Dropout")


def is_expandable(operator: str, domain: str, opset: int) -> bool:
    """Whether an operator has no kernel and ONNX defines it by others."""
    if not domain and (operator in _PLAIN or registry.find(operator)):
        return False
    if not onnx.defs.has(operator, opset, domain):
        return False
    schema = onnx.defs.get_schema(operator, opset, domain)
    return bool(
        schema.has_function  # type: ignore[attr-defined]
        or schema.has_context_dependent_function  # type: ignore[attr-defined]
    )


def expand(slim: SlimModel) -> SlimModel:
    """Expand one level; the same object when nothing could be expanded."""
    graph = slim.proto.graph
    versions = {entry.domain: entry.version for entry in slim.proto.opset_import}
    expandable = {
        (domain, operator)
        for domain, operator in {(node.domain, node.op_type) for node in graph.node}
        if is_expandable(operator, domain, versions.get(domain, 0))
    }
    if not expandable:
        return slim
    types = {value.name: value for value in (*graph.input, *graph.output, *graph.value_info)}
    values = {tensor.name: tensor for tensor in graph.initializer}
    tensors, names = all_names(graph), {node.name for node in graph.node}
    origins = dict(slim.origins)
    nodes: list[onnx.NodeProto] = []
    expanded = False
    for node in graph.node:
        body = None
        if (node.domain, node.op_type) in expandable:
            body = _body(node, slim.proto, types, values)
        if body is None:
            nodes.append(node)
            continue
        expanded = True
        _name(body, node, tensors, names)
        origins.update({part.name: slim.origins[node.name] for part in body})
        nodes.extend(body)
    if not expanded:
        return slim
    return lift_constant_nodes(
        replace(slim, proto=copy_with_nodes(slim.proto, nodes), origins=origins)
    )


def _body(
    node: onnx.NodeProto,
    proto: onnx.ModelProto,
    types: dict[str, onnx.ValueInfoProto],
    values: dict[str, onnx.TensorProto],
) -> list[onnx.NodeProto] | None:
    """The nodes that stand for one, None if there are none that we could use."""
    inputs = [name for name in dict.fromkeys(node.input) if name]
    if any(name not in values and not _is_typed(types.get(name)) for name in inputs):
        return None
    model = onnx.ModelProto(ir_version=proto.ir_version)
    model.opset_import.extend(proto.opset_import)
    graph = model.graph
    graph.name = "one_node"
    graph.node.append(node)
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    _write_defaults(graph.node[0], versions[node.domain])
    for name in inputs:
        if name in values:
            tensor = values[name]
            graph.initializer.append(tensor)
            info = helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
            graph.value_info.append(info)
        else:
            graph.input.append(types[name])
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
    # The inliner looks up the types of absent inputs as well.
    graph.value_info.append(onnx.ValueInfoProto(name=""))
    try:
        result = inliner.inline_selected_functions(
            model, [(node.domain, node.op_type)], inline_schema_functions=True
        )
    except Exception:  # C++ errors without a common base; then the operator is reported
        return None
    body = list(result.graph.node)
    unchanged = len(body) == 1 and body[0].op_type == node.op_type
    return None if unchanged else body


def _is_typed(value: onnx.ValueInfoProto | None) -> bool:
    if value is None:
        return False
    kind = value.type.WhichOneof("value")
    return bool(value.type.tensor_type.elem_type) if kind == "tensor_type" else kind is not None


def _write_defaults(node: onnx.NodeProto, version: int) -> None:
    """Write out the attributes that have their default.

    A body that refers to an attribute the node does not have loses it (seen with
    MeanVarianceNormalization and onnx 1.23).
    """
    present = {attribute.name for attribute in node.attribute}
    for name, attribute in onnx.defs.get_schema(
        node.op_type, version, node.domain
    ).attributes.items():
        if name not in present and attribute.default_value.type:
            node.attribute.append(attribute.default_value)


def _name(
    body: list[onnx.NodeProto], node: onnx.NodeProto, tensors: set[str], names: set[str]
) -> None:
    """Name a body's nodes and tensors after the node it stands for, without collisions."""
    renamed: dict[str, str] = {name: name for name in ("", *node.input, *node.output)}
    named = False
    for part in body:
        for name in part.output:
            if name not in renamed:
                renamed[name] = unique_name(f"{node.name}_{name.removesuffix('__1')}", tensors)
        rename(part, renamed)
        if not named and node.output[0] in part.output:
            part.name, named = node.name, True
        else:
            part.name = unique_name(f"{node.name}_{part.op_type}", names)
