"""The factors of matrix products in 16 bits: what ``--precision fp16`` and ``bf16`` mean.

A tensor that some product multiplies is stored in the narrow type; whoever else reads it makes it a
float32 first. Everything is computed and summed in float32, and what no product multiplies (the
residuals of a transformer, the scores of a softmax, statistics) is stored in float32 too. Weights
that the model itself stores in 16 bits stay so; in the other type of 16 bits, if that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import (
    Computation,
    computation_of,
    computed,
    multiplied,
)
from ramforge.compiler.expressions.terms import Expr, Load
from ramforge.compiler.ir import Array, DType, Graph, Node


def store_factors(graph: Graph, dtype: DType) -> Graph:
    factors = _factors(graph, dtype)
    made = {name for node in graph.nodes for name in node.outputs}
    inside = {name for name in factors if name in made and name not in graph.outputs}
    copies = {name: f"{name}#{dtype.label}" for name in factors if name not in inside}
    changes = _Changes(graph, dtype, frozenset(inside), copies)
    constants = {
        copy: _stored(graph.constants[name], dtype)
        for name, copy in copies.items()
        if name in graph.constants
    }
    tensors = [replace(graph.tensors[name], dtype=dtype) for name in factors if name in inside]
    tensors += [replace(graph.tensors[name], name=copies[name], dtype=dtype) for name in copies]
    return graph.rebuilt(list(changes.nodes()), tensors, constants)


def _factors(graph: Graph, dtype: DType) -> list[str]:
    """The tensors that products multiply and that are to be stored in another way, in the order of
    first use.
    """
    found: dict[str, None] = {}
    states = {node.outputs[0] for node in graph.nodes if computation_of(node).kind == comp.CELL}
    for node in graph.nodes:
        factors = multiplied(computation_of(node))
        is_wide = any(load.dtype is DType.FLOAT32 for load in factors)
        for load in factors:
            name = node.inputs[load.slot]
            is_weight = name in graph.constants and load.dtype is not dtype
            if name in states:  # what goes from step to step keeps all its bits
                continue
            if load.dtype is DType.FLOAT32 or (is_wide and is_weight):
                found[name] = None
    return list(found)


def _stored(values: Array, dtype: DType) -> Array:
    """A number that is too large becomes the largest that there is; infinity stays."""
    most = float(ml_dtypes.finfo(dtype.numpy).max)  # type: ignore[no-untyped-call]
    values = values.astype(np.float32, copy=False)
    return np.where(np.isfinite(values), np.clip(values, -most, most), values).astype(dtype.numpy)


@dataclass(frozen=True, slots=True)
class _Changes:
    """What becomes of each node. Tensors ``inside`` change their type, ``copies`` are made of those
    that cannot: inputs, outputs and constants.
    """

    graph: Graph
    dtype: DType
    inside: frozenset[str]
    copies: Mapping[str, str]

    def nodes(self) -> Iterator[Node]:
        yield from (self._copied(name) for name in self.copies if name in self.graph.inputs)
        for node in self.graph.nodes:
            yield self._changed(node)
            yield from (self._copied(name) for name in node.outputs if name in self.copies)

    def _copied(self, name: str) -> Node:
        tensor = self.graph.tensor(name)
        axes = comp.output_axes(tensor.shape)
        value = terms.load(0, comp.positions(axes), tensor.shape, tensor.dtype)
        copy = self.copies[name]
        node = Node(copy, "Cast", (name,), (copy,))
        return computed(node, Computation(axes, terms.cast_to(value, self.dtype)))

    def _changed(self, node: Node) -> Node:
        computation = computation_of(node)
        factors = {load.slot for load in multiplied(computation)}
        copied = {slot for slot in factors if node.inputs[slot] in self.copies}
        inputs = [
            self.copies[name] if slot in copied else name for slot, name in enumerate(node.inputs)
        ]
        narrow = copied | {slot for slot, name in enumerate(inputs) if name in self.inside}

        def stored(load: Load) -> Load:
            if load.slot not in narrow:
                return load
            return terms.load(load.slot, load.indices, load.shape, self.dtype, load.fill)

        def change(load: Load) -> Expr:
            return terms.cast_to(stored(load), load.dtype)

        computation = comp.rewritten(_multiplying(computation, stored), change)
        if node.outputs[0] in self.inside:
            computation = computation.then(terms.cast_to(terms.hole(computation.dtype), self.dtype))
        return computed(replace(node, inputs=tuple(inputs)), computation)


def _multiplying(computation: Computation, stored: Callable[[Load], Load]) -> Computation:
    """The computation with its factors as they are stored now; however that is, they are multiplied
    as float32.
    """
    factors = [terms.cast_to(stored(load), DType.FLOAT32) for load in multiplied(computation)]
    if not factors:
        return computation
    product = terms.apply("mul", *factors[:2])
    if computation.scores is None:
        return replace(computation, value=product)
    scores = replace(computation.scores, value=product)
    return replace(computation, scores=scores, value=factors[2])
