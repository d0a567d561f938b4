"""Drops what does nothing: Identity, Dropout, unused optional outputs, dead nodes.

Input: a SlimModel, output: its nodes as plain Nodes that name live tensors. Every graph output is
then made by a node; where it was an input or a constant, an Identity makes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ramforge.compiler.frontend.slim import Origin, SlimModel, element_types, unique_name
from ramforge.compiler.ir import Array, Node


@dataclass(frozen=True, slots=True)
class Tidied:
    """``domains`` is that of each node; ``copies`` maps new tensors to those they are like."""

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    domains: Mapping[str, str]
    origins: Mapping[str, Origin]
    copies: Mapping[str, str]


def tidy(slim: SlimModel) -> Tidied:
    """All clean-ups, in the order in which they help each other."""
    outputs = tuple(value.name for value in slim.proto.graph.output)
    nodes = [_plain(node, slim) for node in slim.proto.graph.node]
    domains = {
        node.name: _domain(proto) for node, proto in zip(nodes, slim.proto.graph.node, strict=True)
    }
    nodes = _without_copies(nodes, outputs, domains, slim)
    nodes = _alive(nodes, outputs)
    nodes, outputs, copies = _output_identities(nodes, outputs, slim)
    nodes = _without_unused_outputs(nodes, outputs, domains, slim.opset)
    origins = dict(slim.origins)
    origins.update(
        {node.name: Origin(node.name, "Identity") for node in nodes if node.name not in origins}
    )
    return Tidied(tuple(nodes), outputs, domains, origins, copies)


def _domain(node: onnx.NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def _plain(node: onnx.NodeProto, slim: SlimModel) -> Node:
    origin = slim.origins[node.name].node
    attrs = {attribute.name: _value(attribute) for attribute in node.attribute}
    inputs, outputs = list(node.input), list(node.output)
    for names in (inputs, outputs):
        while names and not names[-1]:
            names.pop()
    return Node(node.name, node.op_type, tuple(inputs), tuple(outputs), attrs, (origin,))


def _value(attribute: onnx.AttributeProto) -> object:
    """An attribute as a plain Python value; graphs and types stay protos."""
    value = helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.STRING:
        return _text(value)
    if attribute.type == onnx.AttributeProto.STRINGS:
        return tuple(_text(item) for item in value)
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _array(value)
    if attribute.type == onnx.AttributeProto.TENSORS:
        return tuple(_array(item) for item in value)
    if attribute.type in (onnx.AttributeProto.FLOATS, onnx.AttributeProto.INTS):
        return tuple(value)
    return value


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _array(tensor: onnx.TensorProto) -> Array | onnx.TensorProto:
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError):
        return tensor


def _copied(node: Node, slim: SlimModel, types: Mapping[str, int]) -> bool:
    """Whether a node's first output is its first input, and nothing else of it is used."""
    if node.op == "Identity":
        return True
    if node.op == "Cast":
        # Expanded functions cast to the type of their input, which mostly is there already.
        return bool(types.get(node.inputs[0], 0) == node.attr("to"))
    if node.op != "Dropout" or len(node.outputs) > 1:
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else ""
    if not training:
        return True
    value = slim.constants.get(training)
    return value is not None and not np.any(value)


def _without_copies(
    nodes: Sequence[Node], outputs: Collection[str], domains: Mapping[str, str], slim: SlimModel
) -> list[Node]:
    """Drop copies; where a graph output is one, the node behind it takes over its name."""
    used = {name for node in nodes for name in node.inputs} | set(outputs)
    made = {name for node in nodes for name in node.outputs if name}
    # A subgraph may read any name of the graph around it.
    if any(isinstance(value, onnx.GraphProto) for node in nodes for value in node.attrs.values()):
        return list(nodes)
    types = element_types(slim.proto)
    source: dict[str, str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for node in nodes:
        node = replace(node, outputs=_used_outputs(node, used)) if node.op == "Dropout" else node
        node = replace(node, inputs=tuple(source.get(name, name) for name in node.inputs))
        if domains[node.name] or not node.outputs or not _copied(node, slim, types):
            kept.append(node)
            continue
        origin, output = node.inputs[0], node.outputs[0]
        if output not in outputs:
            source[output] = origin
        elif origin in made and origin not in outputs and origin not in renamed:
            renamed[origin] = output
        else:
            kept.append(replace(node, op="Identity", inputs=(origin,), attrs={}))
    return [_renamed(node, renamed) for node in kept]


def _used_outputs(node: Node, used: Collection[str]) -> tuple[str, ...]:
    """The outputs up to the last one that is used."""
    outputs = list(node.outputs)
    while len(outputs) > 1 and outputs[-1] not in used:
        outputs.pop()
    return tuple(outputs)


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    if not any(name in names for name in (*node.inputs, *node.outputs)):
        return node
    return replace(
        node,
        inputs=tuple(names.get(name, name) for name in node.inputs),
        outputs=tuple(names.get(name, name) for name in node.outputs),
    )


def _alive(nodes: Sequence[Node], outputs: Collection[str]) -> list[Node]:
    """The nodes that some graph output needs."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if any(name in needed for name in node.outputs if name):
            kept.append(node)
            needed.update(node.inputs)
            needed.update(_captured(node))
    kept.reverse()
    return kept


def _captured(node: Node) -> set[str]:
    """The names that the subgraphs of a node read."""
    names: set[str] = set()
    pending = [value for value in node.attrs.values() if isinstance(value, onnx.GraphProto)]
    while pending:
        graph = pending.pop()
        names.update(value.name for value in graph.output)
        for inner in graph.node:
            names.update(inner.input)
            pending.extend(attribute.g for attribute in inner.attribute if attribute.HasField("g"))
    return names


def _output_identities(
    nodes: list[Node], outputs: tuple[str, ...], slim: SlimModel
) -> tuple[list[Node], tuple[str, ...], dict[str, str]]:
    """Make a node for each graph output that none makes.

    A constant moves to a new name, so that the output keeps its own. An input cannot: there the
    output's name changes.
    """
    made = {name for node in nodes for name in node.outputs}
    taken = made | {value.name for value in slim.proto.graph.input} | set(slim.constants)
    node_names = {node.name for node in nodes}
    copies: dict[str, str] = {}
    names: dict[str, str] = {}
    added = []
    for output in outputs:
        if output in made:
            continue
        if slim.is_fed(output):
            source, target = output, unique_name(f"{output}_output", taken)
            names[output] = target
            copies[target] = output
        else:
            source, target = unique_name(f"{output}_value", taken), output
            copies[source] = output
            nodes = [_renamed(node, {output: source}) for node in nodes]
        name = unique_name(f"Identity_{output}", node_names)
        added.append(Node(name, "Identity", (source,), (target,)))
    return [*nodes, *added], tuple(names.get(name, name) for name in outputs), copies


def _without_unused_outputs(
    nodes: Sequence[Node], outputs: Collection[str], domains: Mapping[str, str], opset: int
) -> list[Node]:
    """Drop trailing optional outputs, such as the indices of MaxPool, where nothing reads them."""
    used = {name for node in nodes for name in node.inputs} | set(outputs)
    for node in nodes:
        used |= _captured(node)
    result = []
    for node in nodes:
        wanted = _used_outputs(node, used)
        if len(wanted) < len(node.outputs) and not domains.get(node.name):
            schema = onnx.defs.get_schema(node.op, opset, "")
            optional = onnx.defs.OpSchema.FormalParameterOption.Optional
            formal = schema.outputs[len(wanted) : len(node.outputs)]
            if len(schema.outputs) >= len(node.outputs) and all(
                parameter.option == optional for parameter in formal
            ):
                node = replace(node, outputs=wanted)
        result.append(node)
    return result
