"""Multiply integers where a model multiplies what it made of them by DequantizeLinear.

A Conv, MatMul or Gemm of dequantised bytes becomes a product of the bytes and one factor for each
column: every sum is exact then, which that of floats need not be. Where only the weights are bytes
they are made floats as they are read, which is a Cast here, and the factor is behind the sum too.
It runs on ONNX nodes, for their pairs are known by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ramforge.compiler.ir import Array, DType, Graph, Node, Tensor
from ramforge.compiler.passes.fold_constants import SMALL_WEIGHT_BYTES

_BYTES = (DType.INT8, DType.UINT8)
_FLOAT = 1  # as ONNX numbers its types


def multiply_integers(graph: Graph) -> Graph:
    producers = graph.producers()
    changes = _Changes(graph)
    nodes: list[Node] = []
    for node in graph.nodes:
        weight = _weight(node, graph, producers)
        if weight is None:
            nodes.append(node)
            continue
        source = _stored(producers.get(node.inputs[0]), graph)
        is_byte = _without_zero(weight, _column_axis(node), graph) is not None
        if source is not None and source.scale.size == 1 and (is_byte or node.op != "Conv"):
            nodes += changes.of(node, source, weight)
        elif is_byte and _is_widened(node, weight, graph):
            nodes += changes.of(node, None, weight)
        else:
            nodes.append(node)
    if not changes.constants:
        return graph
    return graph.rebuilt(nodes, changes.tensors, changes.constants)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor of bytes with its scale, which is known, and its zero point, which may be absent."""

    name: str
    scale: Array
    zero: str
    origin: tuple[str, ...]


def _weight(node: Node, graph: Graph, producers: Mapping[str, Node]) -> _Stored | None:
    """The weights of a plain product, if they are known bytes with a scale for each column."""
    if node.op not in ("Conv", "MatMul", "Gemm"):
        return None
    made = producers.get(node.inputs[1])
    found = _stored(made, graph)
    if made is None or found is None or found.name not in graph.constants:
        return None
    weight, source = graph.tensor(found.name), graph.tensor(node.inputs[0])
    if node.op == "Conv":
        is_plain = weight.shape[1] > 1 or node.attr("group", 1) == 1
    elif node.op == "Gemm":
        is_plain = not node.attr("transA", 0)
        is_plain &= node.attr("alpha", 1.0) == 1.0 and node.attr("beta", 1.0) == 1.0
    else:
        is_plain = len(weight.shape) == 2 and len(source.shape) >= 2
    along = made.attr("axis", 1) % len(weight.shape)
    fits = found.scale.size == 1 or along == _column_axis(node)
    return found if is_plain and fits else None


def _is_widened(node: Node, weight: _Stored, graph: Graph) -> bool:
    """Whether weights alone are bytes, and too many to be made floats when they are compiled."""
    large = 4 * graph.tensor(weight.name).size > SMALL_WEIGHT_BYTES
    return large and graph.tensor(node.inputs[0]).dtype is DType.FLOAT32


def _without_zero(weight: _Stored, axis: int, graph: Graph) -> Array | None:
    """Weights less their zero points, None if that is no byte."""
    values = graph.constants[weight.name]
    if not weight.zero or not np.any(graph.constants[weight.zero]):
        return values
    along = [1] * values.ndim
    along[axis] = -1
    moved = values.astype(np.int32) - graph.constants[weight.zero].astype(np.int32).reshape(along)
    limits = np.iinfo(np.int8)
    if np.any(moved < limits.min) or np.any(moved > limits.max):
        return None
    return moved.astype(np.int8)


def _stored(node: Node | None, graph: Graph) -> _Stored | None:
    """What DequantizeLinear reads."""
    if node is None or node.op != "DequantizeLinear" or node.attr("block_size", 0):
        return None
    name, scale, zero = (*node.inputs, "")[:3]
    known = graph.constants.get(scale)
    if graph.tensor(name).dtype not in _BYTES or known is None or known.dtype != np.float32:
        return None
    if zero and (zero not in graph.constants or graph.constants[zero].size not in (1, known.size)):
        return None
    return _Stored(name, known, zero, node.origin)


def _column_axis(node: Node) -> int:
    """The axis of the weights that belongs to the columns of the product."""
    if node.op == "Conv":
        return 0
    return 0 if node.op == "Gemm" and node.attr("transB", 0) else 1


@dataclass(frozen=True, slots=True)
class _Changes:
    """What takes the place of products, with the tensors and constants in between."""

    graph: Graph
    tensors: list[Tensor] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def of(self, node: Node, a: _Stored | None, b: _Stored) -> list[Node]:
        shape = self.graph.tensor(node.outputs[0]).shape
        origin = (*(a.origin if a else ()), *b.origin, *node.origin)
        node = replace(node, origin=tuple(dict.fromkeys(origin)))
        scales = b.scale.reshape(-1)
        if a is None:
            steps = self._widened(node, b)
        else:
            steps = [self._product(node, a, b)]
            self._follow(steps, node, "Cast", DType.FLOAT32, to=_FLOAT)
            scales = (a.scale.reshape(-1) * scales).astype(np.float32)
        spread = (1,) * (len(shape) - 2) if node.op == "Conv" else ()
        factor = self._constant(f"{node.name}.scale", scales.reshape(-1, *spread))
        self._follow(steps, node, "Mul", DType.FLOAT32, factor)
        bias = node.inputs[2] if len(node.inputs) > 2 else ""
        if bias:
            self._follow(steps, node, "Add", DType.FLOAT32, self._spread(steps, node, bias, spread))
        steps[-1] = replace(steps[-1], outputs=node.outputs)
        return steps

    def _product(self, node: Node, a: _Stored, b: _Stored) -> Node:
        weight = b.name
        if node.op == "Gemm" and node.attr("transB", 0):
            values = np.ascontiguousarray(self.graph.constants[weight].T)
            weight = self._constant(f"{node.name}.weight", values)
        inputs = (a.name, weight, self._plain(a.zero), self._plain(b.zero))
        op = "ConvInteger" if node.op == "Conv" else "MatMulInteger"
        made = self._tensor(node, "integers", DType.INT32)
        attrs = dict(node.attrs) if node.op == "Conv" else {}
        return Node(f"{node.name}.integers", op, inputs, (made,), attrs, node.origin)

    def _widened(self, node: Node, b: _Stored) -> list[Node]:
        """The product of floats, its weights made floats as they are."""
        values = _without_zero(b, _column_axis(node), self.graph)
        assert values is not None
        weight = self._constant(f"{node.name}.weight", values)
        wide = self._tensor(node, "weight", DType.FLOAT32, values.shape)
        cast = Node(f"{node.name}.weight", "Cast", (weight,), (wide,), {"to": _FLOAT}, node.origin)
        made = self._tensor(node, "floats", DType.FLOAT32)
        name = f"{node.name}.floats"
        return [cast, replace(node, name=name, inputs=(node.inputs[0], wide), outputs=(made,))]

    def _plain(self, zero: str) -> str:
        """A zero point of one element without axes, as products of integers want it."""
        if not zero or self.graph.constants[zero].size != 1:
            return zero
        return self._constant(f"{zero}.plain", self.graph.constants[zero].reshape(()))

    def _spread(self, steps: list[Node], node: Node, bias: str, spread: tuple[int, ...]) -> str:
        """The bias along the columns of the output."""
        if not spread:
            return bias
        tensor = self.graph.tensor(bias)
        shape = (*tensor.shape, *spread)
        made = self._tensor(node, "bias", tensor.dtype, shape)
        wanted = self._constant(f"{node.name}.bias.shape", np.array(shape, np.int64))
        name = f"{node.name}.bias"
        steps.insert(0, Node(name, "Reshape", (bias, wanted), (made,), {}, node.origin))
        return made

    def _follow(
        self, steps: list[Node], node: Node, op: str, dtype: DType, *others: str, **attrs: int
    ) -> None:
        made = self._tensor(node, op, dtype)
        inputs = (steps[-1].outputs[0], *others)
        steps.append(Node(f"{node.name}.{op}", op, inputs, (made,), attrs, node.origin))

    def _tensor(
        self, node: Node, what: str, dtype: DType, shape: tuple[int, ...] | None = None
    ) -> str:
        output = self.graph.tensor(node.outputs[0])
        tensor = Tensor(f"{output.name}.{what}", shape or output.shape, dtype)
        self.tensors.append(tensor)
        return tensor.name

    def _constant(self, name: str, values: Array) -> str:
        self.constants[name] = values
        return name
