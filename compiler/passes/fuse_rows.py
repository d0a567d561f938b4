"""Rows out of their parts: normalisation, softmax and their like as they are spelled in primitives.

Input: a graph of computations in which reductions and maps stand by themselves. Two moves, whatever
operators these came from. A map, or a row, that reads what was folded over just the row it stands
in folds for itself. A row that reads another one along the same rows takes over its folds. The
statistics of a row are then no tensors any more, and no dependency level of their own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import rows, terms
from ramforge.compiler.expressions.computation import Computation, Fold, computation_of
from ramforge.compiler.expressions.index import Index, Var
from ramforge.compiler.expressions.terms import Expr, Load
from ramforge.compiler.ir import Graph, Node

# A block goes through a row by itself: a longer one is better off with many, and a level more.
LONGEST_ROW = 1 << 14
MOST_INPUTS = 24


def fuse_rows(graph: Graph) -> Graph:
    live = _Live(graph)
    for node in graph.nodes:
        live.grow(node.outputs[0])
    return live.graph()


class _Live:
    """The nodes as they have become, and how many read each tensor."""

    def __init__(self, graph: Graph) -> None:
        self._before = graph
        self._nodes = {node.outputs[0]: node for node in graph.nodes}
        self._readers = Counter(name for node in graph.nodes for name in node.inputs)
        self._readers.update(graph.outputs)

    def grow(self, output: str) -> None:
        """Let a node take in what it can, until there is no more."""
        while merged := self._merged(self._nodes.get(output)):
            old, self._nodes[output] = self._nodes[output], merged
            self._readers.update(merged.inputs)
            self._leave(old)

    def graph(self) -> Graph:
        nodes = tuple(self._nodes[n.outputs[0]] for n in self._before.nodes if self._is_read(n))
        same = len(nodes) == len(self._before.nodes) and all(
            new is old for new, old in zip(nodes, self._before.nodes, strict=True)
        )
        return self._before if same else self._before.rebuilt(nodes)

    def _is_read(self, node: Node) -> bool:
        return node.outputs[0] in self._nodes

    def _leave(self, node: Node) -> None:
        for name in node.inputs:
            self._readers[name] -= 1
            if self._readers[name] == 0 and name in self._nodes:
                self._leave(self._nodes.pop(name))

    def _merged(self, node: Node | None) -> Node | None:
        if node is None or not (computation_of(node).is_map or computation_of(node).is_row):
            return None
        for name in node.inputs:
            producer = self._nodes.get(name)
            if producer is None:
                continue
            merged = _merged(node, producer, self._readers[name] == 1, self._last(node))
            if merged is not None and len(merged.inputs) <= MOST_INPUTS:
                return merged
        return None

    def _last(self, node: Node) -> Var | None:
        """The axis along which neighbours of the output are neighbours in memory."""
        axes = computation_of(node).axes
        layout = self._before.tensor(node.outputs[0]).layout
        return next((axes[axis] for axis in reversed(layout) if axes[axis].size > 1), None)


def _merged(reader: Node, producer: Node, only_reader: bool, last: Var | None) -> Node | None:
    """The reader with what the producer knows of its rows; None if there is no such row.

    Rows are neighbours in memory: where they are not, folding many side by side is the better way.
    """
    made, used = computation_of(producer), computation_of(reader)
    used = rows.as_row(used) if used.is_row else used
    inputs = list(reader.inputs)
    slot = inputs.index(producer.outputs[0])
    places = {old: comp.slot_for(name, inputs) for old, name in enumerate(producer.inputs)}
    read = _Read.of(used, slot)
    if read is None or last not in read.along:
        return None
    if made.kind in comp.COMBINERS and made.roles is None:
        merged = _with_fold(used, read, comp.renumber(made, places), only_reader)
    elif made.is_row and used.is_row and only_reader:
        merged = _with_row(used, read, comp.renumber(rows.as_row(made), places))
    else:
        return None
    if merged is None:
        return None
    origin = tuple(dict.fromkeys((*producer.origin, *reader.origin)))
    node = replace(reader, inputs=tuple(inputs), origin=origin)
    return comp.computed(node, rows.as_softmax(merged))


@dataclass(frozen=True, slots=True)
class _Read:
    """How a computation reads an input: always at ``indices``, and ``along`` which axes its own
    rows run if that input is the same for a whole row.
    """

    slot: int
    indices: tuple[Index, ...]
    outer: tuple[Var, ...]
    along: tuple[Var, ...]

    @classmethod
    def of(cls, used: Computation, slot: int) -> _Read | None:
        loads = [load for load in used.loads() if load.slot == slot]
        if any(load.loose_axes() or load.indices != loads[0].indices for load in loads):
            return None
        indices = loads[0].indices
        found = {var for index in indices for var in ix.variables(index)}
        along = used.reduction if used.is_row else [var for var in used.axes if var not in found]
        outer = tuple(var for var in used.axes if var not in along)
        return cls(slot, indices, outer, tuple(along))

    @property
    def variables(self) -> set[Var]:
        return {var for index in self.indices for var in ix.variables(index)}

    def along_as(self, axes: Sequence[Var]) -> dict[Var, Index]:
        """These axes, which are as many elements, as positions in the row."""
        flat = ix.flatten(comp.positions(self.along), _steps(self.along))
        steps = _steps(axes)
        return {axis: flat // step % axis.size for axis, step in zip(axes, steps, strict=True)}


def _with_fold(
    used: Computation, read: _Read, made: Computation, only_reader: bool
) -> Computation | None:
    """``used`` with the fold ``made``, of which it read one element for each of its rows."""
    size = _size(read.along)
    if (
        read.variables & set(read.along)
        or size != made.reduction_size
        or not 1 < size <= LONGEST_ROW
    ):
        return None
    if _size(read.outer) > _size(made.axes):
        return None
    places = {**dict(zip(made.axes, read.indices, strict=True)), **read.along_as(made.reduction)}
    value = terms.rewrite(made.value, places)
    if not only_reader and not set(terms.loads_of(value)) <= set(used.loads()):
        return None
    fold = Fold("s0", made.kind, value)
    result = terms.rewrite(made.result, places, filled=fold.known)
    return _knowing(used, read, result, (fold,))


def _with_row(used: Computation, read: _Read, made: Computation) -> Computation | None:
    """``used`` with the folds of a row that it read element by element."""
    places = dict(zip(made.axes, read.indices, strict=True))
    outer = [places[var] for var in made.axes if var not in made.reduction]
    if any(ix.variables(index) & set(read.along) for index in outer):
        return None
    size = _size(made.reduction)
    if size != _size(read.along) or _size(read.outer) * size > _size(made.axes):
        return None
    if {var: places[var] for var in made.reduction} != read.along_as(made.reduction):
        return None
    moved = made.mapped(lambda expr: terms.rewrite(expr, places))
    return _knowing(used, read, moved.value, moved.folds)


def _knowing(used: Computation, read: _Read, result: Expr, folds: tuple[Fold, ...]) -> Computation:
    """``used`` with these folds before its own, and ``result`` in the place of what it read."""
    names = {
        fold.known: terms.named(f"s{number}", fold.value.dtype)
        for number, fold in enumerate(used.folds, start=len(folds))
    }

    def change(expr: Expr) -> Expr:
        def swap(load: Load) -> Expr:
            return result if load.slot == read.slot else load

        return terms.rewrite(expr, loads=swap, parts=names)

    moved = used.mapped(change)
    renamed = (
        replace(fold, name=f"s{number}")
        for number, fold in enumerate(moved.folds, start=len(folds))
    )
    return _without_repeats(
        replace(moved, kind=comp.ROW, reduction=read.along, folds=(*folds, *renamed))
    )


def _without_repeats(row: Computation) -> Computation:
    """What is folded twice is folded once."""
    kept: dict[tuple[str, Expr], Expr] = {}
    places: dict[Expr, Expr] = {}
    folds: list[Fold] = []
    for fold in row.folds:
        value = terms.rewrite(fold.value, parts=places)
        if (fold.kind, value) not in kept:
            kept[fold.kind, value] = terms.named(f"s{len(kept)}", value.dtype)
            folds.append(Fold(f"s{len(folds)}", fold.kind, value))
        places[fold.known] = kept[fold.kind, value]
    return replace(row, folds=tuple(folds), value=terms.rewrite(row.value, parts=places))


def _size(axes: Sequence[Var]) -> int:
    return math.prod(axis.size for axis in axes)


def _steps(axes: Sequence[Var]) -> tuple[int, ...]:
    return tuple(_size(axes[number + 1 :]) for number in range(len(axes)))
