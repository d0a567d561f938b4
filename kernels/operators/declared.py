"""Operands that decide a shape and are known only at run time, where the model declares the shape.

What shapes tell about such an operand is said by a solver. What really comes is compared with that
at run time; where several values are possible, the one that comes chooses.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence

import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, const, select
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import CHOOSE, COMPARE, WAYS, Operator, Solve, Told, register


def exactly(*values: int) -> Told:
    """This value and no other."""
    return Told(values, tuple((value,) for value in values), meaning=values)


def output_shape(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    """The operand is the shape of the output."""
    return (exactly(*graph.tensor(node.outputs[0]).shape),)


def output_size(axis: int | None = None, default: int = 0) -> Solve:
    """The operand is the output's length along this axis, or that of the attribute."""

    def solve(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
        along = node.attr("axis", default) if axis is None else axis
        return (exactly(graph.tensor(node.outputs[0]).shape[along]),)

    return solve


def output_sizes(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    """The operand lists the output's lengths along the axes of the attribute, or all."""
    shape = graph.tensor(node.outputs[0]).shape
    return (exactly(*(shape[axis] for axis in node.attr("axes") or range(len(shape)))),)


def some_axes(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    """The operand lists axes of the first input; those of length one mean nothing."""
    shape = graph.tensor(node.inputs[0]).shape
    rank, count = len(shape), graph.tensor(node.inputs[slot]).size
    return [
        _axes(chosen, rank, tuple(axis for axis in chosen if shape[axis] != 1))
        for chosen in itertools.combinations(range(rank), count)
    ]


def unit_axes(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    """The operand lists axes of length one, in the longer of input and output: any are alike."""
    ends = (graph.tensor(name).shape for name in (node.inputs[0], node.outputs[0]))
    longer = max(ends, key=len)
    units = [axis for axis, size in enumerate(longer) if size == 1]
    count = graph.tensor(node.inputs[slot]).size
    return [_axes(chosen, len(longer), ()) for chosen in itertools.combinations(units, count)]


def _axes(chosen: tuple[int, ...], rank: int, meaning: tuple[int, ...]) -> Told:
    return Told(chosen, tuple((axis, axis - rank) for axis in chosen), True, meaning)


def _misfits(steps: Steps) -> Value:
    """For each value told how many of its places find none of their choices in the operand."""
    operand = steps.given(0)
    ways: list[Told] = [way for meaning in steps.node.attr(WAYS) for way in meaning]
    most = max((len(choices) for way in ways for choices in way.choices), default=0)
    table = [[_filled(choices, most) for choices in way.choices] for way in ways]
    choices = steps.constant(np.array(table, np.int64).reshape(len(ways), operand.size, most))
    is_free = steps.constant(np.array([[not found for found in way.choices] for way in ways]))
    elsewhere = ways[0].anywhere

    def element(place: Index | int) -> Expr:
        found = operand[(place,) if operand.rank else ()]
        return found.cast(DType.INT64)

    def misfit(way: Index, place: Index) -> Expr:
        elements = (
            [element(number) for number in range(operand.size)] if elsewhere else [element(place)]
        )
        good = _any(
            [
                is_free[way, place],
                *(
                    found.equals(choices[way, place, number])
                    for number in range(most)
                    for found in elements
                ),
            ]
        )
        return select(good, const(0, DType.INT32), const(1, DType.INT32))

    return steps.fold(comp.SUM, (len(ways),), (operand.size,), misfit)


def _any(checks: Sequence[Expr]) -> Expr:
    return functools.reduce(operator.or_, checks)


def _filled(choices: Sequence[int], length: int) -> list[int]:
    return [*choices, *[choices[0] if choices else 0] * (length - len(choices))]


def _express_compare(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    misfits = _misfits(steps)
    steps.fold(comp.MINIMUM, (), misfits.shape, lambda way: misfits[way], to=0)
    return steps.nodes()


def _express_choose(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    misfits = _misfits(steps)
    fits: list[Expr] = []
    first = 0
    for meaning in node.attr(WAYS):
        numbers = range(first, first + len(meaning))
        fits.append(_any([misfits[number].equals(0) for number in numbers]))
        first += len(meaning)
    found = [steps.given(1 + number) for number in range(len(fits))]

    def chosen(*at: Index) -> Expr:
        value = found[-1][at]
        for fit, source in zip(reversed(fits[:-1]), reversed(found[:-1]), strict=True):
            value = select(fit, source[at], value)
        return value

    steps.map(steps.shape(), chosen, to=0)
    return steps.nodes()


register(Operator(COMPARE, _express_compare))
register(Operator(CHOOSE, _express_choose))
