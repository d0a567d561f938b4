"""Walks through graphs and the graphs inside of their nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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


def rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Change names that a node reads or makes, also where its subgraphs read them."""
    for index, name in enumerate(node.input):
        node.input[index] = names.get(name, name)
    for index, name in enumerate(node.output):
        node.output[index] = names.get(name, name)
    for graph in subgraphs(node):
        inner = {name: new for name, new in names.items() if name not in defined_names(graph)}
        for part in graph.node:
            rename(part, inner)
        for value in graph.output:
            value.name = inner.get(value.name, value.name)


def defined_names(graph: onnx.GraphProto) -> set[str]:
    """What a graph itself gives a value: its inputs, constants and the outputs of its nodes."""
    names = {value.name for value in graph.input}
    names.update(tensor.name for tensor in graph.initializer)
    names.update(sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        names.update(filter(None, node.output))
    return names
