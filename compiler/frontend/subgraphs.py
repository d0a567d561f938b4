"""Walks through graphs and the graphs inside of their nodes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs too."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def all_names(graph: onnx.GraphProto) -> set[str]:
    """Every name of a tensor, those of subgraphs too."""
    names = {tensor.name for tensor in graph.initializer}
    names.update(value.name for value in (*graph.input, *graph.output))
    for node in graph.node:
        names.update(node.input)
        names.update(node.output)
        for inner in subgraphs(node):
            names |= all_names(inner)
    return names


def read_names(graph: onnx.GraphProto) -> set[str]:
    """Every name that some node reads or a graph gives, those of subgraphs too."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        for inner in subgraphs(node):
            names |= read_names(inner)
    return names
