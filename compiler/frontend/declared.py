"""Takes the shapes that a model declares for true where nothing else tells them.

Some outputs have a shape that only run-time values decide. If the model says what it is, that holds
(``settle``). An operand of which the shapes then tell what its value can be becomes that constant,
and is compared with it at run time (``solve``); if several values are possible, all of them are
computed, and a run chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from ramforge.compiler import registry
from ramforge.compiler.frontend.slim import SlimModel, element_types, static_shape
from ramforge.compiler.ir import Array, DType, Graph, Node, Tensor
from ramforge.compiler.registry import Told

# How many values are tried, and how many of them a program may compute to choose from at run time.
MOST_TRIED, MOST_MEANINGS = 1024, 8


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


def solve(graph: Graph, opset: int) -> Graph:
    """The operands that have to be known and are not, as constants where the shapes tell them."""
    made = _Solved(graph, opset)
    pending = list(reversed(graph.nodes))
    while pending:
        node = pending.pop()
        found = next(_solutions(node, made), None)
        if found is None:
            made.nodes.append(node)
        else:
            pending.extend(reversed(made.replace(node, *found)))
    return made.graph()


class _Solved:
    """What became of a graph so far."""

    def __init__(self, graph: Graph, opset: int) -> None:
        self.nodes: list[Node] = []
        self._old, self._opset = graph, opset
        self._tensors = dict(graph.tensors)
        self._constants = dict(graph.constants)
        self._checks = dict(graph.checks)

    def graph(self) -> Graph:
        """The same graph if nothing was solved."""
        if len(self._constants) == len(self._old.constants):
            return self._old
        tensors = self._tensors.values()
        return self._old.rebuilt(self.nodes, tensors, self._constants, self._checks)

    def alone(self, node: Node) -> Graph | None:
        """Only this node; None if something about it is not known."""
        names = [name for name in (*node.inputs, *node.outputs) if name]
        if not all(name in self._tensors for name in names):
            return None
        tensors = {name: self._tensors[name] for name in names}
        known = {name: self._constants[name] for name in node.inputs if name in self._constants}
        return Graph(self._old.name, (), (), (node,), tensors, known)

    def fits(self, node: Node, slot: int, value: Array) -> bool:
        """Whether onnx infers for this value of the operand the shapes that the outputs have."""
        known = {name: self._constants[name] for name in node.inputs if name in self._constants}
        known[node.inputs[slot]] = value
        try:
            found = shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op, self._opset),
                helper.make_node(node.op, node.inputs, node.outputs, **_attributes(node)),
                {name: self._type(name) for name in node.inputs if name},
                {name: numpy_helper.from_array(array) for name, array in known.items()},
                opset_imports=[helper.make_opsetid("", self._opset)],
            )
        except shape_inference.InferenceError:
            return False
        return all(
            _agree(found[name].tensor_type, self._tensors[name].shape)
            for name in node.outputs
            if name in found
        )

    def _type(self, name: str) -> onnx.TypeProto:
        tensor = self._tensors[name]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype.numpy))
        return helper.make_tensor_type_proto(kind, tensor.shape)

    def replace(self, node: Node, slot: int, meanings: Sequence[Sequence[Told]]) -> list[Node]:
        """Nodes with the operand known, one for each meaning, and what compares and chooses."""
        operand = self._tensors[node.inputs[slot]]
        name = f"{node.name}.{slot}"
        if not operand.size:
            self._add(name, np.zeros(operand.shape, operand.dtype.numpy))
            return [_with_input(node, slot, name)]
        ways = {registry.WAYS: tuple(map(tuple, meanings))}
        check = Tensor(f"{name}.check", (), DType.INT32)
        self._tensors[check.name] = check
        self._checks[check.name] = self._message(node, operand)
        compare = Node(
            check.name, registry.COMPARE, (operand.name,), (check.name,), ways, node.origin
        )
        if len(meanings) == 1:
            self._add(name, _array(meanings[0][0], operand))
            return [compare, _with_input(node, slot, name)]
        copies = []
        for number, meaning in enumerate(meanings):
            self._add(f"{name}.{number}", _array(meaning[0], operand))
            copy = _with_input(node, slot, f"{name}.{number}")
            outputs = tuple(old and f"{old}.{slot}.{number}" for old in copy.outputs)
            copies.append(replace(copy, name=f"{name}.node{number}", outputs=outputs))
            for new, old in zip(outputs, node.outputs, strict=True):
                if old:
                    self._tensors[new] = replace(self._tensors[old], name=new)
        chosen = [
            Node(
                f"{name}.choose{place}",
                registry.CHOOSE,
                (operand.name, *(copy.outputs[place] for copy in copies)),
                (output,),
                ways,
                node.origin,
            )
            for place, output in enumerate(node.outputs)
            if output
        ]
        return [compare, *copies, *chosen]

    def _add(self, name: str, array: Array) -> None:
        self._constants[name] = array
        self._tensors[name] = Tensor(name, array.shape, DType.of(array))

    def _message(self, node: Node, operand: Tensor) -> str:
        output = self._tensors[node.outputs[0]]
        shape = "x".join(map(str, output.shape)) or "scalar"
        return (
            f"{node.op} {node.origin[0]!r}: the value of {operand.name!r} does not make the "
            f"{shape} that the model declares for {output.name!r}\n"
            f"    fix: give it a value that does, or compile for another one (--bind)"
        )


def _attributes(node: Node) -> dict[str, Any]:
    return {
        name: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in node.attrs.items()
        if value is not None and not (isinstance(value, tuple) and not value)
    }


def _agree(found: onnx.TypeProto.Tensor, shape: tuple[int, ...]) -> bool:
    if not found.HasField("shape"):
        return True
    dims = found.shape.dim
    return len(dims) == len(shape) and all(
        not dim.HasField("dim_value") or dim.dim_value == size
        for dim, size in zip(dims, shape, strict=True)
    )


def _with_input(node: Node, slot: int, name: str) -> Node:
    return replace(node, inputs=(*node.inputs[:slot], name, *node.inputs[slot + 1 :]))


def _array(told: Told, operand: Tensor) -> Array:
    return np.array(told.value, operand.dtype.numpy).reshape(operand.shape)


def _solutions(node: Node, made: _Solved) -> Iterator[tuple[int, Sequence[Sequence[Told]]]]:
    """The operands of a node that can be solved, with the values of each meaning."""
    operator = registry.find(node.op)
    graph = made.alone(node) if operator is not None and operator.needs else None
    if operator is None or graph is None:
        return
    for slot, solver in operator.needs.items():
        name = node.inputs[slot] if slot < len(node.inputs) else ""
        if not name or name in graph.constants:
            continue
        operand = graph.tensor(name)
        if not operand.size:
            yield slot, ()
            continue
        told = [way for way in solver(node, graph, slot) if len(way.value) == operand.size]
        if len(told) > MOST_TRIED:
            continue
        meanings: dict[object, list[Told]] = {}
        for way in told:
            if made.fits(node, slot, _array(way, operand)):
                meanings.setdefault(way.meaning, []).append(way)
        if 0 < len(meanings) <= MOST_MEANINGS:
            yield slot, tuple(meanings.values())
