"""Takes the shapes that a model declares for true where nothing else tells them.

Some outputs have a shape that only run-time values decide. If the model says what it is, that holds
(``settle``); an operand of which it follows what its value has to be becomes that constant, and is
compared with it at run time (``solve``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from onnx import helper

from ramforge.compiler import registry
from ramforge.compiler.frontend.slim import SlimModel, element_types, static_shape
from ramforge.compiler.ir import Array, DType, Graph, Node, Tensor


def settle(slim: SlimModel) -> SlimModel:
    """Declared shapes of what the first nodes with unknown output shapes make; the same object if
    there are none.
    """
    graph = slim.proto.graph
    values = (*graph.value_info, *graph.output, *graph.input)
    known = {value.name for value in values if static_shape(value.type) is not None}
    known.update(slim.constants)
    types = element_types(slim.proto)
    settled = dict(slim.settled)
    for node in graph.node:
        if not all(name in known for name in node.input if name):
            continue
        for name in filter(None, node.output):
            shape, kind = slim.declared.get(name), types.get(name)
            if name in known or name in settled or shape is None or not kind:
                continue
            settled[name] = helper.make_tensor_value_info(name, kind, shape)
    return slim if len(settled) == len(slim.settled) else replace(slim, settled=settled)


def solve(graph: Graph, settled: Sequence[str]) -> Graph:
    """The operands of nodes with settled outputs, as constants where these say what they are."""
    nodes: list[Node] = []
    constants: dict[str, Array] = {}
    checks = dict(graph.checks)
    tensors: list[Tensor] = []
    for node in graph.nodes:
        found = _solution(node, graph) if set(node.outputs) & set(settled) else None
        if found is None:
            nodes.append(node)
            continue
        slot, accepted = found
        operand = graph.tensor(node.inputs[slot])
        value = [choice[0] for choice in accepted]
        name = f"{node.name}.{slot}"
        constants[name] = np.array(value, operand.dtype.numpy).reshape(operand.shape)
        check = Tensor(f"{name}.check", (), DType.INT32)
        tensors.append(check)
        checks[check.name] = _message(node, graph, operand)
        inputs = (*node.inputs[:slot], name, *node.inputs[slot + 1 :])
        nodes.append(
            Node(
                check.name,
                registry.CHECK_OPERAND,
                (operand.name,),
                (check.name,),
                {registry.ACCEPTED: accepted},
                node.origin,
            )
        )
        nodes.append(replace(node, inputs=inputs))
    return graph.rebuilt(nodes, tensors, constants, checks) if constants else graph


def _solution(node: Node, graph: Graph) -> tuple[int, registry.Accepted] | None:
    solver = registry.find_solver(node.op)
    if solver is None:
        return None
    slot, how = solver
    name = node.inputs[slot] if slot < len(node.inputs) else ""
    whole = all(t in graph.tensors for t in (*node.inputs, *node.outputs) if t)
    if not name or name in graph.constants or not whole:
        return None
    accepted = how(node, graph, slot)
    if accepted is None or len(accepted) != graph.tensor(name).size:
        return None
    return slot, accepted


def _message(node: Node, graph: Graph, operand: Tensor) -> str:
    output = graph.tensor(node.outputs[0])
    shape = "x".join(map(str, output.shape)) or "scalar"
    return (
        f"{node.op} {node.origin[0]!r}: {operand.name!r} asks for another shape than the {shape} "
        f"that the model declares for {output.name!r}\n"
        f"    fix: give it the value that this shape needs, or compile for another one (--bind)"
    )
