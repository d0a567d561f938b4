"""The Reduce family of ONNX: folds over whole axes.

Each is computed in the type that C computes in and rounded once, at the end. Norms and logarithms
of integers are computed as doubles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, apply, const, select
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.declared import some_axes
from ramforge.kernels.operators.movement import constant_input

Step = Callable[[Expr], Expr]


@dataclass(frozen=True, slots=True)
class Folding:
    """The elements of input 0, and which of its axes are folded."""

    steps: Steps
    source: Value
    axes: tuple[int, ...]
    dtype: DType

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.source.shape[axis] for axis in self.axes)

    def place(self, at: Sequence[Index]) -> list[Index]:
        """Where the element lies, from the indices of the output and then the folded ones."""
        outer, inner = at[: len(at) - len(self.axes)], list(at[len(at) - len(self.axes) :])
        keeps = len(outer) == self.source.rank
        kept = [place for axis, place in enumerate(outer) if not keeps or axis not in self.axes]
        return [(inner if axis in self.axes else kept).pop(0) for axis in range(self.source.rank)]

    def element(self, at: Sequence[Index]) -> Expr:
        return self.source.at(self.place(at)).cast(self.dtype)


def folded_axes(node: Node, graph: Graph) -> tuple[int, ...]:
    """The axes that a Reduce node folds, from its attribute or its constant input."""
    rank = len(graph.tensor(node.inputs[0]).shape)
    axes = node.attr("axes")
    given = constant_input(node, graph, 1)
    if given is not None:
        axes = tuple(given.tolist())
    if not axes:
        return () if node.attr("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted({int(axis) % rank for axis in axes}))


def _folding(node: Node, graph: Graph, in_floats: bool, mean: bool = False) -> Folding:
    steps = Steps(node, graph)
    source = steps.given(0)
    dtype = source.dtype.wide
    if in_floats and not dtype.is_float:
        dtype = DType.FLOAT64
    elif mean and not dtype.is_float and dtype.itemsize < 8:
        dtype = DType.INT64  # the mean fits where the sum does not
    return Folding(steps, source, folded_axes(node, graph), dtype)


def reduction(
    name: str,
    kind: str,
    before: Step = lambda x: x,
    after: Step = lambda x: x,
    mean: bool = False,
    in_floats: bool = False,
) -> None:
    """Register a Reduce operator: ``after(kind over axes of before(x))``."""

    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        folding = _folding(node, graph, in_floats, mean)
        steps = folding.steps

        def finish(total: Expr, *at: Index) -> Expr:
            return after(total / math.prod(folding.sizes) if mean else total)

        if not folding.axes:
            steps.map(steps.shape(), lambda *at: after(before(folding.element(at))), to=0)
        else:
            steps.fold(
                kind,
                steps.shape(),
                folding.sizes,
                lambda *at: before(folding.element(at)),
                finish,
                to=0,
            )
        return steps.nodes()

    register(Operator(name, express, needs={1: some_axes}))


def _log_sum_exp(node: Node, graph: Graph) -> tuple[Node, ...]:
    """Relative to the largest element, so that no exponential overflows."""
    folding = _folding(node, graph, in_floats=True)
    steps, shape = folding.steps, folding.steps.shape()
    if not folding.axes:
        steps.map(shape, lambda *at: folding.element(at), to=0)
        return steps.nodes()
    peaks = steps.fold(
        comp.MAXIMUM, shape, folding.sizes, lambda *at: folding.element(at), _finite_or_zero
    )

    def value(*at: Index) -> Expr:
        return apply("exp", folding.element(at) - peaks.at(at[: peaks.rank]))

    def finish(total: Expr, *at: Index) -> Expr:
        return apply("log", total) + peaks.at(at)

    steps.fold(comp.SUM, shape, folding.sizes, value, finish, to=0)
    return steps.nodes()


def _finite_or_zero(peak: Expr, *at: Index) -> Expr:
    return select(apply("abs", peak) < math.inf, peak, const(0, peak.dtype))


def _absolute(x: Expr) -> Expr:
    return apply("abs", x)


def _square(x: Expr) -> Expr:
    return x * x


reduction("ReduceSum", comp.SUM)
reduction("ReduceMean", comp.SUM, mean=True)
reduction("ReduceMax", comp.MAXIMUM)
reduction("ReduceMin", comp.MINIMUM)
reduction("ReduceProd", comp.PRODUCT)
reduction("ReduceL1", comp.SUM, _absolute)
reduction("ReduceL2", comp.SUM, _square, lambda x: apply("sqrt", x), in_floats=True)
reduction("ReduceSumSquare", comp.SUM, _square)
reduction("ReduceLogSum", comp.SUM, after=lambda x: apply("log", x), in_floats=True)
register(Operator("ReduceLogSumExp", _log_sum_exp, needs={1: some_axes}))
