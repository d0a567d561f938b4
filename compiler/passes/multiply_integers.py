"""Multiply integers where a model multiplies what it made of them by DequantizeLinear.

A Conv, MatMul or Gemm of dequantised bytes becomes a product of the bytes and one factor for each
column: every sum is exact then, which that of floats need not be. It runs on ONNX nodes, for their
pairs are known by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ramforge.compiler.ir import Array, DType, Graph, Node, Tensor

_BYTES = (DType.INT8, DType.UINT8)
_FLOAT = 1  # as ONNX numbers its types


def multiply_integers(graph: Graph) -> Graph:
    producers = graph.producers()
    changes = _Changes(graph)
    nodes: list[Node] = []
    for node in graph.nodes:
        pair = _pair(node, graph, producers)
        nodes += [node] if pair is None else changes.of(node, *pair)
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


def _pair(
    node: Node, graph: Graph, producers: Mapping[str, Node]
) -> tuple[_Stored, _Stored] | None:
    """Both factors of a node that can be made a product of bytes."""
    if node.op not in ("Conv", "MatMul", "Gemm"):
        return None
    a, b = (_stored(producers.get(name), graph) for name in node.inputs[:2])
    if a is None or b is None or a.scale.size != 1 or b.name not in graph.constants:
        return None
    weight, source = graph.tensor(b.name), graph.tensor(a.name)
    if node.op == "Conv":
        is_plain = weight.shape[1] > 1 or node.attr("group", 1) == 1
        is_plain &= _fits_without_zero(b, graph)
    elif node.op == "Gemm":
        is_plain = not node.attr("transA", 0)
        is_plain &= node.attr("alpha", 1.0) == 1.0 and node.attr("beta", 1.0) == 1.0
    else:
        is_plain = len(weight.shape) == 2 and len(source.shape) >= 2
    along = producers[node.inputs[1]].attr("axis", 1) % len(weight.shape)
    fits = b.scale.size == 1 or along == _column_axis(node)
    return (a, b) if is_plain and fits else None


def _fits_without_zero(weight: _Stored, graph: Graph) -> bool:
    """Whether weights of a convolution less their zero points are bytes."""
    values = graph.constants[weight.name].astype(np.int32)
    zeros = graph.constants[weight.zero].astype(np.int32) if weight.zero else np.zeros(1, np.int32)
    moved = values - zeros.reshape(-1, *[1] * (values.ndim - 1))
    limits = np.iinfo(np.int8)
    fits = (moved >= limits.min) & (moved <= limits.max)
    return not np.any(zeros) or bool(fits.all())


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

    def of(self, node: Node, a: _Stored, b: _Stored) -> list[Node]:
        shape = self.graph.tensor(node.outputs[0]).shape
        node = replace(node, origin=tuple(dict.fromkeys((*a.origin, *b.origin, *node.origin))))
        steps = [self._product(node, a, b)]
        self._follow(steps, node, "Cast", DType.FLOAT32, to=_FLOAT)
        spread = (1,) * (len(shape) - 2) if node.op == "Conv" else ()
        scales = (a.scale.reshape(-1) * b.scale.reshape(-1)).astype(np.float32)
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
