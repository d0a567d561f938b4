"""Puts the nodes of a subgraph into the graph around it, once or many times.

All names of the copies are new, so that no two iterations and no two branches meet; what is outside
of the subgraph keeps its names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ramforge.compiler.frontend.slim import (
    SlimModel,
    copy_with_nodes,
    lift_constant_nodes,
    unique_name,
)
from ramforge.compiler.frontend.subgraphs import all_names, rename
from ramforge.compiler.ir import Array

# One Concat of very many tensors would look through all of them for each element.
MOST_PARTS = 16


class Inliner:
    """The nodes of a model while some of them are replaced."""

    def __init__(self, slim: SlimModel) -> None:
        self._slim = slim
        self._taken = {*all_names(slim.proto.graph), *slim.constants, *slim.foreign}
        self._node_names = {node.name for node in slim.proto.graph.node}
        self._origins = dict(slim.origins)
        self._owner = ""
        self._nodes: list[onnx.NodeProto] = []

    def keep(self, node: onnx.NodeProto) -> None:
        self._nodes.append(node)

    def replace(self, node: onnx.NodeProto) -> None:
        """What is added from now on stands for this node."""
        self._owner = node.name

    def add(self, op: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """A node of one output; it gets a new name if none is given."""
        output = output or self.fresh(op)
        self.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: Array | int | bool) -> str:
        array = np.asarray(value)
        name = self.fresh("constant")
        tensor = numpy_helper.from_array(array, name)
        self.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def fresh(self, label: str) -> str:
        return unique_name(f"{self._owner}_{label}", self._taken)

    def initializers(self, graph: onnx.GraphProto) -> dict[str, str]:
        """The constants of a subgraph, for all its copies; by their names in it."""
        names = {}
        for tensor in graph.initializer:
            names[tensor.name] = self.fresh(tensor.name)
            self.append(helper.make_node("Constant", [], [names[tensor.name]], value=tensor))
        for sparse in graph.sparse_initializer:
            inner = sparse.values.name
            names[inner] = self.fresh(inner)
            self.append(helper.make_node("Constant", [], [names[inner]], sparse_value=sparse))
        return names

    def body(
        self, graph: onnx.GraphProto, bound: Mapping[str, str], number: int | None = None
    ) -> list[str]:
        """A copy of a subgraph's nodes; ``bound`` names what its inputs and constants are. Gives
        the names of its outputs.
        """
        label = "" if number is None else f"{number}_"
        names = {**bound, "": ""}
        for part in graph.node:
            for output in filter(None, part.output):
                names[output] = self.fresh(f"{label}{output}")
        for part in graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(part)
            rename(copy, names)
            copy.name = f"{label}{part.name or part.op_type}"
            self.append(copy)
        return [names.get(value.name, value.name) for value in graph.output]

    def stacked(self, parts: Sequence[str], axis: int, output: str) -> None:
        """Concat along an axis, a few at a time."""
        while len(parts) > MOST_PARTS:
            groups = [parts[i : i + MOST_PARTS] for i in range(0, len(parts), MOST_PARTS)]
            parts = [self.add("Concat", group, axis=axis) for group in groups]
        self.add("Concat", parts, output, axis=axis)

    def append(self, node: onnx.NodeProto) -> None:
        """A node, under a new name."""
        label = node.name or node.op_type
        node.name = unique_name(f"{self._owner}_{label}", self._node_names)
        self._origins[node.name] = self._slim.origins[self._owner]
        self._nodes.append(node)

    def result(self) -> SlimModel:
        proto = copy_with_nodes(self._slim.proto, self._nodes)
        return lift_constant_nodes(replace(self._slim, proto=proto, origins=self._origins))


def names_of(values: Iterable[onnx.ValueInfoProto]) -> list[str]:
    return [value.name for value in values]
