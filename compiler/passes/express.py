"""Replace every ONNX node by nodes that carry a computation. After this pass no operator is
special.

A tensor without elements needs no computation: it becomes a constant, so that no later pass and no
kernel meets a loop over nothing.
"""

from __future__ import annotations

import numpy as np

from ramforge.compiler import registry
from ramforge.compiler.ir import Array, Graph, Node


def express(graph: Graph) -> Graph:
    nodes: list[Node] = []
    empty: dict[str, Array] = {}
    for node in graph.nodes:
        tensors = [graph.tensor(name) for name in node.outputs if name]
        if all(tensor.size == 0 for tensor in tensors):
            empty.update({t.name: np.zeros(t.shape, t.dtype.numpy) for t in tensors})
            continue
        operator = registry.find(node.op)
        assert operator is not None, f"the front end let {node.op} through"
        nodes.extend(operator.express(node, graph))
    return graph.rebuilt(nodes, constants=empty)
