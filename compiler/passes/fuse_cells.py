"""The cells of recurrent networks: a product, and the maps that make states of its gates, as one.

An LSTM's step is a product with four gates in its columns, and two maps, each of which reads all
four: the cell state and the hidden state. They become one node with both states, one behind the
other, in its output; so a step is one dependency level. It is found by what the maps read: sums
that stand as far apart in the product's columns as the maps are wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ramforge.compiler import registry
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import (
    Cell,
    Computation,
    Roles,
    computation_of,
    computed,
    factors_of,
)
from ramforge.compiler.expressions.index import Index, Var
from ramforge.compiler.expressions.placed import place
from ramforge.compiler.expressions.terms import Expr, Load
from ramforge.compiler.ir import DType, Graph, Node, Tensor

_MOST_STATES = 3


@dataclass(frozen=True, slots=True)
class _Fused:
    """A cell, its output, and the tensors that are now parts of that."""

    node: Node
    tensor: Tensor
    states: tuple[str, ...]


def fuse_cells(graph: Graph) -> Graph:
    """Of two products that a state is made of one becomes the cell, and the other one can go ahead.
    That is the one with the input of the step, or the one that is there first: whichever makes
    fewer levels in the end.
    """
    readers = graph.consumers()
    orders = (_recurrent_first(graph, readers), _latest_first(graph))
    return min((_with_cells(graph, order, readers) for order in orders), key=_depth)


def _depth(graph: Graph) -> int:
    return max(graph.levels().values(), default=0)


def _latest_first(graph: Graph) -> list[Node]:
    levels = graph.levels()
    return sorted(graph.nodes, key=lambda node: -levels[node.outputs[0]])


def _recurrent_first(graph: Graph, readers: Mapping[str, Sequence[Node]]) -> list[Node]:
    """Those with the state before in front."""
    makers = graph.producers()

    def is_other(node: Node) -> bool:
        used = {name for reader in readers[node.outputs[0]] for name in reader.inputs}
        before = {name for name in node.inputs if name in makers}
        states = before.union(*(makers[name].inputs for name in before))
        return not used & states & makers.keys()

    return sorted(_latest_first(graph), key=is_other)


def _with_cells(
    graph: Graph, nodes: Sequence[Node], readers: Mapping[str, Sequence[Node]]
) -> Graph:
    order = {node.outputs[0]: number for number, node in enumerate(graph.nodes)}
    found: dict[str, _Fused] = {}
    gone: set[str] = set()
    for node in nodes:
        maps = readers[node.outputs[0]]
        if node.outputs[0] in graph.outputs or not 0 < len(maps) <= _MOST_STATES:
            continue
        if any(reader.outputs[0] in gone for reader in maps):
            continue
        fused = _fused(node, maps, graph, order)
        if fused is not None and registry.can_do(place(fused.node, graph, fused.tensor)):
            found[fused.states[0]] = fused
            gone.update((node.outputs[0], *fused.states))
    if not found:
        return graph
    made = _replaced(graph, found, gone)
    states = {
        name: (fused.tensor, number)
        for fused in found.values()
        for number, name in enumerate(fused.states)
    }
    tensors = [fused.tensor for fused in found.values()]
    return graph.rebuilt([_reading(node, states) for node in made], tensors)


def _replaced(graph: Graph, found: Mapping[str, _Fused], gone: set[str]) -> Sequence[Node]:
    """A cell stands where its first state was made."""
    nodes = []
    for node in graph.nodes:
        name = node.outputs[0]
        if name in found:
            nodes.append(found[name].node)
        elif name not in gone:
            nodes.append(node)
    return nodes


def _reading(node: Node, states: Mapping[str, tuple[Tensor, int]]) -> Node:
    """The node with parts of cells where it reads states."""
    if not any(name in states for name in node.inputs):
        return node
    inputs = [states[name][0].name if name in states else name for name in node.inputs]

    def change(load: Load) -> Expr:
        name = node.inputs[load.slot]
        if name not in states:
            return load
        tensor, number = states[name]
        at = (ix.constant(number), *load.indices)
        return terms.load(load.slot, at, tensor.shape, tensor.dtype, load.fill)

    changed = comp.rewritten(computation_of(node), change)
    return computed(replace(node, inputs=tuple(inputs)), changed)


def _fused(
    node: Node, maps: Sequence[Node], graph: Graph, order: Mapping[str, int]
) -> _Fused | None:
    made = computation_of(node)
    roles = made.roles
    if factors_of(made) is None or roles is None or roles.batch or roles.groups != 1:
        return None
    if len(roles.columns) != 1 or any(reader.outputs[0] in graph.outputs for reader in maps):
        return None
    maps = sorted(maps, key=lambda reader: order[reader.outputs[0]])
    shape = computation_of(maps[0]).shape
    if any(not _is_state(reader, shape) for reader in maps):
        return None
    gates = _Gates(node, made, roles, computation_of(maps[0]).axes)
    inputs = [*node.inputs]
    results: list[Expr] = []
    for reader in maps:
        before = {other.outputs[0]: result for other, result in zip(maps, results, strict=False)}
        result = gates.result_of(reader, inputs, before)
        if result is None:
            return None
        results.append(result)
    first = order[maps[0].outputs[0]]
    if any(order.get(name, -1) >= first for name in inputs):
        return None  # something would be read before it is made
    tensor = Tensor(f"{node.outputs[0]}#states", (len(maps), *shape), DType.FLOAT32)
    origin = tuple(dict.fromkeys(name for part in (node, *maps) for name in part.origin))
    cell = replace(node, inputs=tuple(inputs), outputs=(tensor.name,), origin=origin)
    states = tuple(reader.outputs[0] for reader in maps)
    return _Fused(computed(cell, gates.computation(tuple(results))), tensor, states)


def _is_state(reader: Node, shape: tuple[int, ...]) -> bool:
    computation = computation_of(reader)
    is_map = computation.is_map and computation.dtype is DType.FLOAT32
    return is_map and computation.shape == shape and bool(shape)


class _Gates:
    """A product whose columns are gates of as many sums as a state has columns."""

    def __init__(self, node: Node, made: Computation, roles: Roles, axes: tuple[Var, ...]) -> None:
        self._node, self._made, self._axes = node, made, axes
        self._columns = roles.columns[0]
        self._width = axes[-1].size
        self._part = Var("part", max(1, self._columns.size // self._width))
        self._place: tuple[Index, ...] | None = None

    def result_of(self, reader: Node, inputs: list[str], before: Mapping[str, Expr]) -> Expr | None:
        """What a map makes of the gates, and of the states before it; None if it reads anything of
        them in another way.
        """
        used = computation_of(reader)
        here = dict(zip(used.axes, comp.positions(self._axes), strict=True))
        moved = terms.rewrite(used.value, here)
        places: dict[Load, Expr] = {}
        for load in terms.loads_of(moved):
            name = reader.inputs[load.slot]
            if name == self._node.outputs[0]:
                value = self._gate(load, inputs)
            elif name in before:
                value = before[name] if load.indices == comp.positions(self._axes) else None
            else:
                value = comp.adopted(load, reader, inputs)
            if value is None:
                return None
            places[load] = value
        return terms.rewrite(moved, loads=lambda load: places[load])

    def _gate(self, load: Load, inputs: list[str]) -> Expr | None:
        """The end of one of the sums, if it is the one of the same row and column."""
        axis = self._made.axes.index(self._columns)
        column = load.indices[axis] - ix.of(self._axes[-1])
        if not column.is_const or column.const % self._width or load.loose_axes():
            return None
        rows = (*load.indices[:axis], *load.indices[axis + 1 :])
        if self._place not in (None, rows) or not self._are_rows(rows):
            return None
        self._place = rows
        at = dict(zip(self._made.axes, load.indices, strict=True))
        number = column.const // self._width
        result = terms.rewrite(self._made.result, at, filled=Cell.sum(number))
        return terms.rewrite(result, loads=lambda end: comp.adopted(end, self._node, inputs))

    def _are_rows(self, rows: tuple[Index, ...]) -> bool:
        """Whether every row of the product is one of the states, in order."""
        long = [ix.of(axis) for axis in self._axes[:-1] if axis.size > 1]
        return [row for row in rows if not row.is_const] == long and all(
            row.const == 0 for row in rows
        )

    def computation(self, results: tuple[Expr, ...]) -> Computation:
        assert self._place is not None
        column = ix.of(self._part) * self._width + ix.of(self._axes[-1])
        others = [axis for axis in self._made.axes if axis != self._columns]
        at = {**dict(zip(others, self._place, strict=True)), self._columns: column}
        rows = tuple(axis for axis in self._axes[:-1] if axis.size > 1)
        return Computation(
            (Var("state", len(results)), *self._axes),
            terms.rewrite(self._made.value, at),
            comp.CELL,
            self._made.reduction,
            roles=Roles((), rows, (self._axes[-1],)),
            cell=Cell(self._part, results),
        )
