"""Fold a BatchNormalization with known statistics into the weights of the convolution before it.

It runs on ONNX nodes, while weights and statistics are still plain constants.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ramforge.compiler.ir import Array, Graph, Node


def fold_batch_norm(graph: Graph) -> Graph:
    producers, consumers = graph.producers(), graph.consumers()
    folded: dict[str, Node] = {}
    gone: set[str] = set()
    constants: dict[str, Array] = {}
    for norm in graph.nodes:
        if norm.op != "BatchNormalization":
            continue
        conv = producers.get(norm.inputs[0])
        if conv is None or not _can_fold(graph, conv, norm, consumers):
            continue
        folded[conv.name] = _merged(graph, conv, norm, constants)
        gone.add(norm.name)
    if not folded:
        return graph
    nodes = [folded.get(node.name, node) for node in graph.nodes if node.name not in gone]
    return graph.rebuilt(nodes, constants=constants)


def _can_fold(graph: Graph, conv: Node, norm: Node, consumers: dict[str, list[Node]]) -> bool:
    output = conv.outputs[0]
    weights = [name for name in (*conv.inputs[1:], *norm.inputs[1:5]) if name]
    return (
        conv.op == "Conv"
        and not norm.attr("training_mode", 0)
        and len(consumers[output]) == 1
        and output not in graph.outputs
        and all(name in graph.constants for name in weights)
        and not any(name in graph.outputs or consumers.get(name) for name in norm.outputs[1:])
    )


def _merged(graph: Graph, conv: Node, norm: Node, constants: dict[str, Array]) -> Node:
    weight = graph.constants[conv.inputs[1]]
    scale, shift, mean, variance = (
        graph.constants[name].astype(np.float64) for name in norm.inputs[1:5]
    )
    factor = scale / np.sqrt(variance + norm.attr("epsilon", 1e-5))
    has_bias = len(conv.inputs) > 2 and bool(conv.inputs[2])
    bias = graph.constants[conv.inputs[2]].astype(np.float64) if has_bias else 0.0
    new_weight = f"{conv.inputs[1]}*{norm.name}"
    new_bias = f"{conv.name}.bias*{norm.name}"
    per_channel = factor.reshape((-1,) + (1,) * (weight.ndim - 1))
    constants[new_weight] = (weight * per_channel).astype(weight.dtype)
    constants[new_bias] = ((bias - mean) * factor + shift).astype(weight.dtype)
    return replace(
        conv,
        inputs=(conv.inputs[0], new_weight, new_bias),
        outputs=norm.outputs[:1],
        origin=(*conv.origin, *norm.origin),
    )
