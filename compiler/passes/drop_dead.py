"""Drop nodes whose outputs nobody reads."""

from __future__ import annotations

from ramforge.compiler.ir import Graph, Node


def drop_dead(graph: Graph) -> Graph:
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    if len(kept) == len(graph.nodes):
        return graph
    return graph.rebuilt(reversed(kept))
