"""Products of the same few rows with several weights of one shape become one product.

An exporter that unrolls an LSTM writes four products for the gates of a step, each with weights of
its own. Side by side they are the columns of one product, whose ends are then a cell
(``fuse_cells``). With many rows there is nothing to gain: their tiles run side by side anyway.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import (
    Computation,
    computation_of,
    computed,
    factors_of,
)
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.expressions.terms import Load
from ramforge.compiler.ir import Array, DType, Graph, Node, Tensor

MOST_ROWS = 4
_STEPS_TO_A_STATE = 8


def merge_gates(graph: Graph) -> Graph:
    groups: dict[Hashable, list[Node]] = {}
    for node in graph.nodes:
        kind = _kind(node, graph)
        if kind is not None:
            groups.setdefault(kind, []).append(node)
    readers = graph.consumers()
    shared = [
        nodes
        for group in groups.values()
        for nodes in (_that_meet(group, readers) if len(group) > 1 else ())
        if len(nodes) > 1
    ]
    if not shared:
        return graph
    merging = _Merging(graph)
    first = {nodes[0].outputs[0]: merging.product(nodes) for nodes in shared}
    gone = {node.outputs[0] for nodes in shared for node in nodes}
    merged = []
    for node in graph.nodes:
        name = node.outputs[0]
        merged += first.get(name, [] if name in gone else [node])
    return graph.rebuilt(merged, merging.tensors, merging.constants)


def _that_meet(group: Sequence[Node], readers: Mapping[str, Sequence[Node]]) -> list[list[Node]]:
    """The products of a group in parts: those of one part meet in some state. A hidden state goes
    into the gates of its own layer and into those of the next one, which are different cells.
    """
    parts: list[tuple[list[Node], set[str]]] = []
    for node in group:
        reached = _maps_behind(node, readers)
        meeting = [part for part in parts if part[1] & reached]
        others = [part for part in parts if not part[1] & reached]
        nodes = [other for part in meeting for other in part[0]]
        parts = [*others, ([*nodes, node], reached.union(*(part[1] for part in meeting)))]
    places = {node.outputs[0]: place for place, node in enumerate(group)}
    return [sorted(nodes, key=lambda node: places[node.outputs[0]]) for nodes, _ in parts]


def _maps_behind(node: Node, readers: Mapping[str, Sequence[Node]]) -> set[str]:
    """What maps make of a product, in as many steps as from a gate to a hidden state."""
    found: set[str] = set()
    edge = {node.outputs[0]}
    for _ in range(_STEPS_TO_A_STATE):
        made = {
            reader.outputs[0]
            for name in edge
            for reader in readers[name]
            if computation_of(reader).is_map
        }
        edge = made - found
        found |= edge
    return found


def _kind(node: Node, graph: Graph) -> Hashable | None:
    """What products have in common that can be columns of one; None if this can be in none."""
    made = computation_of(node)
    factors, roles = factors_of(made), made.roles
    if factors is None or roles is None or roles.batch or roles.groups != 1 or made.finish:
        return None
    if not roles.columns:
        return None
    rows, weights = factors
    is_gate = roles.columns == made.axes[-1:] and weights.dtype is DType.FLOAT32
    few = all(axis in roles.rows for axis in made.axes[:-1]) and _count(roles.rows) <= MOST_ROWS
    name = node.inputs[weights.slot]
    if not is_gate or not few or name not in graph.constants or rows.slot == weights.slot:
        return None
    if _along(weights, made.axes[-1]) is None:
        return None
    return (
        node.inputs[rows.slot],
        rows.indices,
        rows.shape,
        rows.fill,
        weights.indices,
        weights.shape,
        *made.axes,
    )


def _count(axes: Sequence[Var]) -> int:
    return int(np.prod([axis.size for axis in axes]))


def _along(weights: Load, column: Var) -> int | None:
    """The axis of the weights that is the column and nothing else."""
    found = [axis for axis, at in enumerate(weights.indices) if column in ix.variables(at)]
    alone = len(found) == 1 and weights.indices[found[0]] == ix.of(column)
    return found[0] if alone and weights.shape[found[0]] == column.size else None


@dataclass(slots=True)
class _Merging:
    """What comes new into the graph. Equal weights are joined once, however many steps use them."""

    graph: Graph
    constants: dict[str, Array] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)

    def product(self, nodes: Sequence[Node]) -> list[Node]:
        """One product for all of these, and behind it for each of them a view of its columns."""
        made = computation_of(nodes[0])
        factors = factors_of(made)
        assert factors is not None and made.roles is not None
        rows, weights = factors
        column = made.axes[-1]
        along = _along(weights, column)
        assert along is not None
        wide = Var(column.name, column.size * len(nodes))
        shape, places = list(weights.shape), list(weights.indices)
        shape[along], places[along] = wide.size, ix.of(wide)
        value = terms.apply(
            "mul",
            terms.load(0, rows.indices, rows.shape, rows.dtype, rows.fill),
            terms.load(1, tuple(places), tuple(shape), weights.dtype),
        )
        axes = (*made.axes[:-1], wide)
        tensor = Tensor(
            f"{nodes[0].outputs[0]}#gates", tuple(axis.size for axis in axes), made.dtype
        )
        self.tensors.append(tensor)
        name = self._joined([node.inputs[weights.slot] for node in nodes], along)
        node = replace(
            nodes[0],
            name=f"{nodes[0].name}#gates",
            inputs=(nodes[0].inputs[rows.slot], name),
            outputs=(tensor.name,),
            origin=tuple(dict.fromkeys(name for node in nodes for name in node.origin)),
        )
        roles = replace(made.roles, columns=(wide,))
        merged = computed(node, replace(made, axes=axes, value=value, roles=roles))
        return [merged, *(_view(gate, number, tensor) for number, gate in enumerate(nodes))]

    def _joined(self, names: Sequence[str], along: int) -> str:
        name = f"{'#'.join(names)}#{along}"
        if name not in self.constants:
            parts = [self.graph.constants[part] for part in names]
            self.constants[name] = np.concatenate(parts, axis=along)
        return name


def _view(gate: Node, number: int, merged: Tensor) -> Node:
    axes = computation_of(gate).axes
    column = ix.of(axes[-1]) + number * axes[-1].size
    at = (*comp.positions(axes[:-1]), column)
    value = terms.load(0, at, merged.shape, merged.dtype)
    return computed(replace(gate, inputs=(merged.name,)), Computation(axes, value))
