"""Build the nodes that stand for one operator, a tensor a step.

    steps = Steps(node, graph)
    x = steps.given(0)
    peak = steps.fold(MAXIMUM, (rows,), (columns,), lambda r, c: x[r, c])
    steps.map(x.shape, lambda r, c: x[r, c] - peak[r], to=0)
    return steps.nodes()

A formula gets an ``Index`` for each axis, the folded ones last, and gives the element there. What
it reads it finds by indexing: with an ``Index``, an ``int``, or an ``Expr`` whose value is known
only at run time (then, as in NumPy, negative counts from the end; and nothing leaves the tensor).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, Fold, Roles
from ramforge.compiler.expressions.index import Data, Index, Var
from ramforge.compiler.expressions.terms import Expr, Scalar
from ramforge.compiler.ir import Array, DType, Graph, Node

# attributes of a step: one that is known and computes nothing, and one that computes how much is
# wrong, with what to say if that is not 0
CONSTANT, CHECK = "constant", "check"

Place = Index | Expr | int
Formula = Callable[..., Expr]


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that a formula may read; ``known`` is its content if it is a constant."""

    slot: int
    name: str
    shape: tuple[int, ...]
    dtype: DType
    known: Array | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __getitem__(self, places: Place | tuple[Place, ...]) -> Expr:
        return self.at(places if isinstance(places, tuple) else (places,))

    def at(self, places: Sequence[Place], fill: Scalar | None = None) -> Expr:
        """The element there, ``fill`` where an index (not an expression) leaves the tensor."""
        assert len(places) == self.rank, (self.name, self.shape, places)
        index = tuple(_index(place, size) for place, size in zip(places, self.shape, strict=True))
        if self.known is not None and self.size == 1 and fill is None:
            return terms.const(self.known.reshape(()).item(), self.dtype)
        return terms.load(self.slot, index, self.shape, self.dtype, fill)

    def spread(self, places: Sequence[Place]) -> Expr:
        """The element that NumPy's broadcasting puts there; ``places`` may have more axes."""
        aligned = places[len(places) - self.rank :] if self.rank else ()
        return self.at(
            [0 if size == 1 else place for size, place in zip(self.shape, aligned, strict=True)]
        )


def _index(place: Place, size: int) -> Index:
    if isinstance(place, Index):
        return place
    if isinstance(place, int | np.integer):
        return ix.constant(int(place))
    if isinstance(place, terms.IndexValue):
        low, high = ix.bounds(place.indices[0])
        if low >= 0 and high < size:
            return place.indices[0]
    if isinstance(place, terms.Const):
        return ix.constant(ix.wrapped(int(place.value), size))
    return ix.of(Data(place, size))


class Steps:
    """The steps of one node. Node names stay unique: they are those of the node, numbered."""

    def __init__(self, node: Node, graph: Graph) -> None:
        self.node = node
        self.graph = graph
        self._nodes: list[Node] = []
        self._values: list[Value] = []
        for name in node.inputs:
            tensor = graph.tensor(name) if name else None
            self._values.append(
                Value(
                    len(self._values), name, tensor.shape, tensor.dtype, graph.constants.get(name)
                )
                if tensor
                else Value(len(self._values), "", (), DType.BOOL)
            )

    def given(self, slot: int) -> Value:
        """An input that is there."""
        value = self.optional(slot)
        assert value is not None, f"{self.node.op} lacks input {slot}"
        return value

    def optional(self, slot: int) -> Value | None:
        """An input, None if it is absent."""
        if slot >= len(self.node.inputs) or not self.node.inputs[slot]:
            return None
        return self._values[slot]

    def wants(self, number: int) -> bool:
        """Whether the node has this output."""
        return number < len(self.node.outputs) and bool(self.node.outputs[number])

    def shape(self, number: int = 0) -> tuple[int, ...]:
        """The shape of an output."""
        return self.graph.tensor(self.node.outputs[number]).shape

    def dtype(self, number: int = 0) -> DType:
        """The element type of an output."""
        return self.graph.tensor(self.node.outputs[number]).dtype

    def constant(self, array: Any) -> Value:
        """A tensor that is known now."""
        known = np.asarray(array)
        node = replace(self._next(None), inputs=(), attrs={CONSTANT: known})
        return self._made(node, known.shape, DType.of(known), known)

    def map(self, shape: Sequence[int], formula: Formula, to: int | None = None) -> Value:
        """Each element by itself. ``to`` is the output of the node that this is."""
        axes = comp.output_axes(tuple(shape))
        value = formula(*comp.positions(axes))
        return self._add(Computation(axes, self._typed(value, to)), to)

    def fold(
        self,
        kind: str,
        shape: Sequence[int],
        over: Sequence[int],
        formula: Formula,
        finish: Callable[..., Expr] | None = None,
        to: int | None = None,
        roles: Roles | None = None,
    ) -> Value:
        """Combine (``comp.SUM``, ...) over further axes of these sizes. ``finish`` gets the
        combined value and the indices of the output. ``roles``, over ``comp.output_axes(shape)``,
        says that this sum of products is a matrix product.
        """
        axes = comp.output_axes(tuple(shape))
        folded = tuple(Var(f"k{axis}", size) for axis, size in enumerate(over))
        value = formula(*comp.positions(axes), *comp.positions(folded))
        return self._folded(Computation(axes, value, kind, folded, roles=roles), finish, to)

    def product(
        self,
        batch: Sequence[int],
        rows: int,
        columns: int,
        depth: int,
        left: Formula,
        right: Formula,
        finish: Callable[..., Expr] | None = None,
        to: int | None = None,
    ) -> Value:
        """``sum over k of left(*batch, row, k) * right(*batch, k, column)``, as a matrix product.

        Neither operand may be other than a load.
        """

        def factor_left(*at: Index) -> Expr:
            *outer, row, _, deep = at
            return left(*outer, row, deep)

        def factor_right(*at: Index) -> Expr:
            *outer, _, column, deep = at
            return right(*outer, deep, column)

        shape, rank = (*batch, rows, columns), len(batch)
        return self.contract(
            shape, (depth,), (rank,), (rank + 1,), factor_left, factor_right, finish, to
        )

    def contract(
        self,
        shape: Sequence[int],
        over: Sequence[int],
        rows: Sequence[int],
        columns: Sequence[int],
        left: Formula,
        right: Formula,
        finish: Callable[..., Expr] | None = None,
        to: int | None = None,
    ) -> Value:
        """The sum of ``left * right`` over further axes, as a matrix product whose rows and columns
        are these axes of the output. Both formulas get all indices; ``left`` is the same for all
        columns, ``right`` for all rows, and neither may be other than a load.
        """
        axes = comp.output_axes(tuple(shape))
        folded = tuple(Var(f"k{axis}", size) for axis, size in enumerate(over))
        at = (*comp.positions(axes), *comp.positions(folded))
        down = tuple(axes[axis] for axis in rows)
        across = tuple(axes[axis] for axis in columns)
        batch = tuple(axis for axis in axes if axis not in (*down, *across))
        value = terms.apply("mul", left(*at), right(*at))
        roles = Roles(batch, down, across)
        return self._folded(Computation(axes, value, comp.SUM, folded, roles=roles), finish, to)

    def row(
        self,
        shape: Sequence[int],
        along: Sequence[int],
        folds: Sequence[tuple[str, Formula]],
        formula: Formula,
        to: int | None = None,
    ) -> Value:
        """Each element by itself and by what is known of its row, which runs along these axes.
        ``folds`` say how that is combined; the formulas of those and of the element get the results
        of the folds before them, as a list, and the indices.
        """
        axes = comp.output_axes(tuple(shape))
        at = comp.positions(axes)
        made: list[Fold] = []
        for number, (kind, value) in enumerate(folds):
            known = [fold.known for fold in made]
            made.append(Fold(f"s{number}", kind, value(known, *at)))
        result = self._typed(formula([fold.known for fold in made], *at), to)
        rows = tuple(axes[axis] for axis in along)
        return self._add(Computation(axes, result, comp.ROW, rows, folds=tuple(made)), to)

    def softmax(
        self, shape: Sequence[int], along: Sequence[int], formula: Formula, to: int | None = None
    ) -> Value:
        """The softmax along these axes of the output."""
        axes = comp.output_axes(tuple(shape))
        rows = tuple(axes[axis] for axis in along)
        value = formula(*comp.positions(axes))
        return self._folded(Computation(axes, value, comp.SOFTMAX, rows), None, to)

    def check(self, over: Sequence[int], formula: Formula, message: str) -> None:
        """Let a run fail with this message if ``formula`` is false anywhere over these sizes.

        For what only run-time values decide, such as whether they fit a declared shape.
        """

        def failures(*places: Index) -> Expr:
            one, none = terms.const(1, DType.INT32), terms.const(0, DType.INT32)
            return terms.select(formula(*places), none, one)

        made = self.fold(comp.SUM, (), over, failures)
        self._nodes[-1] = self._nodes[-1].with_attrs(**{CHECK: message})
        assert made.shape == ()

    def nodes(self) -> tuple[Node, ...]:
        return tuple(self._nodes)

    def _folded(
        self, computation: Computation, finish: Callable[..., Expr] | None, to: int | None
    ) -> Value:
        result = terms.hole(computation.value.dtype)
        if finish is not None:
            result = finish(result, *comp.positions(computation.axes))
        return self._add(replace(computation, finish=self._typed(result, to)), to)

    def _typed(self, value: Expr, to: int | None) -> Expr:
        return value if to is None else terms.cast_to(value, self.dtype(to))

    def _add(self, computation: Computation, to: int | None) -> Value:
        node = comp.computed(self._next(to), computation)
        return self._made(node, computation.shape, computation.dtype)

    def _next(self, to: int | None) -> Node:
        number = len(self._nodes)
        output = self.node.outputs[to] if to is not None else f"{self.node.name}.{number}"
        while to is None and output in self.graph.tensors:
            output += "'"
        return replace(
            self.node,
            name=f"{self.node.name}.{number}" if number else self.node.name,
            inputs=tuple(value.name for value in self._values),
            outputs=(output,),
            attrs={},
        )

    def _made(
        self, node: Node, shape: tuple[int, ...], dtype: DType, known: Array | None = None
    ) -> Value:
        self._nodes.append(node)
        self._values.append(Value(len(self._values), node.outputs[0], shape, dtype, known))
        return self._values[-1]
