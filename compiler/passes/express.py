"""Replace every ONNX node by nodes that carry a computation. After this pass no operator is
special.
"""

from __future__ import annotations

from ramforge.compiler import registry
from ramforge.compiler.ir import Graph, Node


def express(graph: Graph) -> Graph:
    nodes: list[Node] = []
    for node in graph.nodes:
        operator = registry.find(node.op)
        assert operator is not None, f"the front end let {node.op} through"
        nodes.extend(operator.express(node, graph))
    return graph.rebuilt(nodes)
