"""What a node computes, in full: an output index space, a value, a way to combine values, and what
is done after.

``output[axes] = finish(combine over the reduction of value)``. Without a reduction it is a map.
Four kernel families carry these out (map, reduce, row, contract); which one fits is read off the
computation, not the operator's name.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index, Var
from ramforge.compiler.expressions.terms import Expr
from ramforge.compiler.ir import DType, Node, Tensor

MAP = ""
SUM, PRODUCT, MAXIMUM, MINIMUM = "sum", "product", "max", "min"
SOFTMAX, ROW = "softmax", "row"
ROW_KINDS = (SOFTMAX, ROW)
COMBINERS = (SUM, PRODUCT, MAXIMUM, MINIMUM)
ATTENTION, CELL = "attention", "cell"


@dataclass(frozen=True, slots=True)
class Roles:
    """The axes of a matrix product: ``output[batch, rows, columns]``; the reduction is shared.

    Any of the three may be several axes (a convolution's rows are batch, height and width). With
    ``groups``, the one column axis falls into that many equal parts, each a product of its own.
    """

    batch: tuple[Var, ...]
    rows: tuple[Var, ...]
    columns: tuple[Var, ...]
    groups: int = 1


@dataclass(frozen=True, slots=True)
class Scores:
    """What attention weighs its values by: the softmax, along the computation's own reduction, of
    finish(sum over ``reduction`` of value). The value is a product of two loads.
    """

    value: Expr
    reduction: tuple[Var, ...]
    finish: Expr

    def mapped(self, change: Callable[[Expr], Expr]) -> Scores:
        return Scores(change(self.value), self.reduction, change(self.finish))


@dataclass(frozen=True, slots=True)
class Fold:
    """What is known of a whole row: ``value`` combined over it. It goes by its name (a ``Named``)
    in the folds after it and in what is done with the row.
    """

    name: str
    kind: str
    value: Expr

    @property
    def known(self) -> Expr:
        return terms.named(self.name, self.value.dtype)

    def mapped(self, change: Callable[[Expr], Expr]) -> Fold:
        return replace(self, value=change(self.value))


@dataclass(frozen=True, slots=True)
class Cell:
    """What several sums become together: there is a sum for each value of ``part``, and a result
    for each position along the first axis of the output. Sums go by their names in the results.
    """

    part: Var
    results: tuple[Expr, ...]

    @staticmethod
    def sum(number: int) -> Expr:
        return terms.named(f"sum{number}", DType.FLOAT32)

    def mapped(self, change: Callable[[Expr], Expr]) -> Cell:
        return Cell(self.part, tuple(change(result) for result in self.results))


@dataclass(frozen=True, slots=True)
class Computation:
    """One output, element by element.

    The rows of a row kind run over ``reduction``, which are then axes of the output themselves. A
    row is a map that knows ``folds`` of its whole row; a softmax is one of those, so usual that it
    has a name: there ``finish`` sees the softmax of ``value``. ``roles`` is there where value is a
    product of two loads. Attention is a sum of ``value``, each weighed by its ``scores``, which do
    not depend on the columns. A cell (of an LSTM) is several products with one end.
    """

    axes: tuple[Var, ...]
    value: Expr
    kind: str = MAP
    reduction: tuple[Var, ...] = ()
    finish: Expr | None = None
    roles: Roles | None = None
    scores: Scores | None = None
    folds: tuple[Fold, ...] = ()
    cell: Cell | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @property
    def is_map(self) -> bool:
        return self.kind == MAP

    @property
    def is_row(self) -> bool:
        return self.kind in ROW_KINDS

    @property
    def dtype(self) -> DType:
        return self.result.dtype

    @property
    def result(self) -> Expr:
        """What is stored, over axes and the hole."""
        return self.finish if self.finish is not None else terms.hole(self.value.dtype)

    @property
    def reduction_size(self) -> int:
        return math.prod(var.size for var in self.reduction)

    @property
    def folded(self) -> tuple[Var, ...]:
        """Everything that is summed over."""
        return self.reduction if self.scores is None else (*self.reduction, *self.scores.reduction)

    @property
    def summed(self) -> tuple[Expr, ...]:
        """The values of all sums."""
        return (self.value,) if self.scores is None else (self.scores.value, self.value)

    def expressions(self) -> tuple[Expr, ...]:
        scores = () if self.scores is None else (self.scores.value, self.scores.finish)
        finish = () if self.finish is None else (self.finish,)
        results = () if self.cell is None else self.cell.results
        return (*scores, *(fold.value for fold in self.folds), self.value, *finish, *results)

    def mapped(self, change: Callable[[Expr], Expr]) -> Computation:
        """The same with every expression changed."""
        return replace(
            self,
            value=change(self.value),
            finish=None if self.finish is None else change(self.finish),
            scores=None if self.scores is None else self.scores.mapped(change),
            folds=tuple(fold.mapped(change) for fold in self.folds),
            cell=None if self.cell is None else self.cell.mapped(change),
        )

    def loads(self) -> tuple[terms.Load, ...]:
        found = [node for expr in self.expressions() for node in terms.loads_of(expr)]
        return tuple(dict.fromkeys(found))

    def then(self, finish: Expr) -> Computation:
        """The same with more done to each element; ``finish`` sees today's result as its hole."""
        if self.is_map:
            return replace(self, value=terms.rewrite(finish, filled=self.value))
        return replace(self, finish=terms.rewrite(finish, filled=self.result))


def computation_of(node: Node) -> Computation:
    computation = node.attrs["computation"]
    assert isinstance(computation, Computation)
    return computation


_FACTORS = (DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16)
_WEIGHTS = (*_FACTORS, DType.INT8, DType.UINT8)


def factors_of(computation: Computation) -> tuple[terms.Load, terms.Load] | None:
    """The factors of a matrix product that is summed in float32, rows first; None if it is anything
    else. Each is stored in 16 bits or as float32 itself, those of the columns also in 8 bits.
    """
    value = computation.value
    if computation.kind != SUM or computation.roles is None:
        return None
    if not isinstance(value, terms.Apply) or value.name != "mul":
        return None
    left, right = (loaded(arg) for arg in value.args)
    if left is None or right is None or right.loose_axes() or value.dtype is not DType.FLOAT32:
        return None
    if left.fill and left.loose_axes():  # what lies outside of a row's tensor counts as zero
        return None
    return (left, right) if left.dtype in _FACTORS and right.dtype in _WEIGHTS else None


def multiplied(computation: Computation) -> tuple[terms.Load, ...]:
    """All factors of the matrix products in a computation: two, three in attention, or none."""
    factors = computation.value.args
    if computation.scores is not None:
        factors = (*computation.scores.value.args, computation.value)
    elif computation.kind != CELL:
        return factors_of(computation) or ()
    found = [loaded(factor) for factor in factors]
    return tuple(load for load in found if load is not None)


def loaded(factor: Expr) -> terms.Load | None:
    """What a factor reads, if it is a load or one that was made wider."""
    if isinstance(factor, terms.Apply) and factor.name == "cast":
        (factor,) = factor.args
    return factor if isinstance(factor, terms.Load) else None


def output_axes(shape: tuple[int, ...]) -> tuple[Var, ...]:
    """The variables i0, i1, ... of an output of this shape."""
    return tuple(Var(f"i{axis}", size) for axis, size in enumerate(shape))


def positions(axes: tuple[Var, ...]) -> tuple[Index, ...]:
    return tuple(ix.of(axis) for axis in axes)


def broadcast_load(slot: int, tensor: Tensor, axes: tuple[Index, ...]) -> Expr:
    """The element of a tensor that NumPy's broadcasting puts at this output position."""
    aligned = axes[len(axes) - len(tensor.shape) :]
    index = tuple(
        ix.constant(0) if size == 1 else position
        for size, position in zip(tensor.shape, aligned, strict=True)
    )
    return terms.load(slot, index, tensor.shape, tensor.dtype)


def computed(node: Node, computation: Computation) -> Node:
    """The node with this computation; each input is named once, those not read are dropped."""
    computation = _widened(_without_empty_loads(_without_empty_fold(computation)))
    slots = sorted({load.slot for load in computation.loads()})
    kept = tuple(dict.fromkeys(node.inputs[slot] for slot in slots))
    moved = renumber(computation, {slot: kept.index(node.inputs[slot]) for slot in slots})
    return replace(node, inputs=kept).with_attrs(computation=moved)


def _widened(computation: Computation) -> Computation:
    """Numbers of a type that is only stored are combined in the type they are computed in."""
    stored = computation.value.dtype
    if computation.is_map or computation.kind == ROW or not stored.is_stored_only:
        return computation
    value = computation.value
    if isinstance(value, terms.Apply) and value.name == "mul":
        value = terms.apply("mul", *(terms.cast_to(arg, stored.wide) for arg in value.args))
    else:
        value = terms.cast_to(value, stored.wide)
    rounded = terms.cast_to(terms.hole(stored.wide), stored)
    return replace(
        computation, value=value, finish=terms.rewrite(computation.result, filled=rounded)
    )


def _without_empty_loads(computation: Computation) -> Computation:
    """What is read from a tensor without elements lies outside of it."""
    if all(math.prod(load.shape) for load in computation.loads()):
        return computation

    def change(load: terms.Load) -> Expr:
        return load if math.prod(load.shape) else terms.const(load.fill or 0, load.dtype)

    return rewritten(computation, change)


def identity(kind: str, dtype: DType) -> terms.Scalar:
    """What a combiner gives for nothing at all: it leaves the other operand as it is."""
    if kind in (SUM, PRODUCT):
        return 0 if kind == SUM else 1
    if dtype is DType.BOOL:
        return kind == MINIMUM
    if dtype.is_float:
        return -math.inf if kind == MAXIMUM else math.inf
    limits = np.iinfo(dtype.wide.numpy)
    return int(limits.min if kind == MAXIMUM else limits.max)


def _without_empty_fold(computation: Computation) -> Computation:
    """A fold over nothing is a map of the combiner's identity."""
    if computation.kind not in COMBINERS or computation.reduction_size:
        return computation
    dtype = computation.value.dtype
    nothing = terms.const(identity(computation.kind, dtype), dtype)
    value = terms.rewrite(computation.result, filled=nothing)
    return Computation(computation.axes, value)


def slot_for(name: str, inputs: list[str]) -> int:
    """The slot that a tensor has among the inputs of a node; it is added if it is not there."""
    if name not in inputs:
        inputs.append(name)
    return inputs.index(name)


def adopted(load: terms.Load, of: Node, inputs: list[str]) -> terms.Load:
    """A node's load as another one makes it, which has these inputs."""
    slot = slot_for(of.inputs[load.slot], inputs)
    return terms.load(slot, load.indices, load.shape, load.dtype, load.fill)


def renumber(computation: Computation, slots: dict[int, int]) -> Computation:
    """The same computation with its inputs in other slots."""
    if all(old == new for old, new in slots.items()):
        return computation
    return _renumbered(computation, tuple(sorted(slots.items())))


@functools.lru_cache(maxsize=4096)
def _renumbered(computation: Computation, slots: tuple[tuple[int, int], ...]) -> Computation:
    # equal layers ask for the same renumbering again and again
    moves = dict(slots)

    def move(load: terms.Load) -> Expr:
        return terms.load(moves[load.slot], load.indices, load.shape, load.dtype, load.fill)

    return rewritten(computation, move)


def rewritten(computation: Computation, loads: Callable[[terms.Load], Expr]) -> Computation:
    """The same computation with each load replaced."""
    return computation.mapped(lambda expr: terms.rewrite(expr, loads=loads))
