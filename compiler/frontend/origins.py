"""Knows which node of the user's model a node comes from, while onnx's passes rewrite it.

Those passes drop or invent node names, but keep the names of the tensors that the old nodes made.
So a new node belongs to the old node whose output it helps to compute, and no rule about names is
needed.
"""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import numpy_helper

from ramforge.compiler.frontend.slim import Origin, SlimModel, unique_name


def adopt(before: SlimModel, after: onnx.ModelProto) -> SlimModel:
    """Take over a rewritten proto: its inputs and outputs, names and origins of its nodes."""
    # onnx's converter turns every input and output into a tensor type.
    _replace(after.graph.input, before.proto.graph.input)
    _replace(after.graph.output, before.proto.graph.output)
    owners = _owners(before, after)
    taken = {node.name for node in before.proto.graph.node}
    by_owner_output = {
        output: node.name for node in before.proto.graph.node for output in node.output if output
    }
    kept = {node.name for node in after.graph.node if node.name in taken}
    used: set[str] = set()
    origins = {}
    for node, owner in zip(after.graph.node, owners, strict=True):
        if not node.name or node.name != owner or node.name in used:
            makes_output = any(by_owner_output.get(output) == owner for output in node.output)
            if owner and makes_output and owner not in kept:
                node.name = owner
                kept.add(owner)
            else:
                node.name = unique_name(f"{owner}_{node.op_type}" if owner else node.op_type, taken)
        used.add(node.name)
        origins[node.name] = before.origins.get(owner, Origin(node.name, node.op_type))
    # Some adapters of the converter add initializers of their own.
    added = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in after.graph.initializer
        if tensor.name not in before.constants
    }
    return replace(before, proto=after, constants={**before.constants, **added}, origins=origins)


def _owners(before: SlimModel, after: onnx.ModelProto) -> list[str]:
    """The name of the old node behind each new one; empty for nodes that nothing needs."""
    owner_of_tensor = {
        output: node.name for node in before.proto.graph.node for output in node.output if output
    }
    outside = {value.name for value in before.proto.graph.input}
    outside.update(tensor.name for tensor in before.proto.graph.initializer)
    wanted: dict[str, str] = {}
    owners: list[str] = []
    for node in reversed(after.graph.node):
        named = [owner_of_tensor[output] for output in node.output if output in owner_of_tensor]
        asked = [wanted[output] for output in node.output if output in wanted]
        owner = next(iter((*named, *asked)), "")
        owners.append(owner)
        for name in node.input:
            if name and name not in outside and name not in owner_of_tensor:
                wanted[name] = owner
    owners.reverse()
    return owners


def _replace(target: object, source: object) -> None:
    values = list(source)  # type: ignore[call-overload]
    del target[:]  # type: ignore[attr-defined]
    target.extend(values)  # type: ignore[attr-defined]
