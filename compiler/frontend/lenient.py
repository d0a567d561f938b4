"""Takes what the standard forbids, and models do all the same: ONNX's own functions among them.

Input: a SlimModel, output: one that onnx's shape inference accepts. A list of one number stands for
the number where only a number may be.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from ramforge.compiler.frontend.slim import (
    SlimModel,
    copy_with_nodes,
    tensor_names,
    unique_name,
    with_constants,
)
from ramforge.compiler.ir import Array

# Operands that have to be scalars.
_SCALARS: Mapping[str, tuple[int, ...]] = {"Range": (0, 1, 2)}


def scalars(slim: SlimModel) -> SlimModel:
    """Constants of one element without axes where there may be none; the same object otherwise."""
    found: dict[tuple[int, int], str] = {}
    made: dict[str, Array] = {}
    names: set[str] = set()
    for place, node in enumerate(slim.proto.graph.node):
        for slot in () if node.domain else _SCALARS.get(node.op_type, ()):
            array = slim.constants.get(node.input[slot]) if slot < len(node.input) else None
            if array is not None and array.size == 1 and array.ndim:
                names = names or tensor_names(slim.proto)
                name = unique_name(f"{node.input[slot]}_scalar", names)
                found[place, slot], made[name] = name, array.reshape(())
    if not found:
        return slim
    nodes = list(slim.proto.graph.node)
    for (place, slot), name in found.items():
        copy = onnx.NodeProto()
        copy.CopyFrom(nodes[place])
        copy.input[slot] = name
        nodes[place] = copy
    return with_constants(slim.with_proto(copy_with_nodes(slim.proto, nodes)), made)
