"""Operands that decide a shape and are known only at run time, where the model declares the shape.

The declared shape then says what the operand has to be: a solver gives that value, and it becomes a
constant of the node. What really comes is compared with it at run time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps
from ramforge.compiler.expressions.terms import Expr
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import (
    ACCEPTED,
    CHECK_OPERAND,
    Accepted,
    Operator,
    Solve,
    register,
    register_solver,
)


def _shapes(node: Node, graph: Graph) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return graph.tensor(node.inputs[0]).shape, graph.tensor(node.outputs[0]).shape


def _reshape(node: Node, graph: Graph, slot: int) -> Accepted:
    source, output = _shapes(node, graph)
    copied = not node.attr("allowzero", 0)
    return [
        [size, -1, *([0] if copied and axis < len(source) and source[axis] == size else [])]
        for axis, size in enumerate(output)
    ]


def _expand(node: Node, graph: Graph, slot: int) -> Accepted:
    source, output = _shapes(node, graph)
    count = graph.tensor(node.inputs[slot]).size
    old = (1,) * (len(output) - len(source)) + source
    pairs = list(zip(old, output, strict=True))[len(output) - count :]
    return [[new, *([1] if before == new else [])] for before, new in pairs]


def _whole_shape(node: Node, graph: Graph, slot: int) -> Accepted:
    return [[size] for size in graph.tensor(node.outputs[0]).shape]


def _repeats(node: Node, graph: Graph, slot: int) -> Accepted | None:
    source, output = _shapes(node, graph)
    if len(source) != len(output) or 0 in source:
        return None
    return [[new // old] for old, new in zip(source, output, strict=True)]


def _unit_axes(long: tuple[int, ...], short: tuple[int, ...]) -> Accepted | None:
    """Which axes of length one were put in or taken out: any choice that fits moves no element."""
    units = [axis for axis, size in enumerate(long) if size == 1]
    count = len(long) - len(short)
    for chosen in itertools.combinations(units, count):
        if tuple(size for axis, size in enumerate(long) if axis not in chosen) == short:
            return _any_of(units, chosen, len(long))
    return None


def _any_of(allowed: Sequence[int], chosen: Sequence[int], rank: int) -> Accepted:
    """Each of the chosen axes, or another of those that may stand in its place."""
    every = [*allowed, *(axis - rank for axis in allowed)]
    return [[axis, *(other for other in every if other != axis)] for axis in chosen]


def _squeezed(node: Node, graph: Graph, slot: int) -> Accepted | None:
    source, output = _shapes(node, graph)
    return _unit_axes(source, output)


def _unsqueezed(node: Node, graph: Graph, slot: int) -> Accepted | None:
    source, output = _shapes(node, graph)
    return _unit_axes(output, source)


def _folded(node: Node, graph: Graph, slot: int) -> Accepted | None:
    """The axes of a reduction, if only one choice gives the declared shape."""
    source, output = _shapes(node, graph)
    rank, count = len(source), graph.tensor(node.inputs[slot]).size
    keeps = bool(node.attr("keepdims", 1))
    found = []
    for axes in itertools.combinations(range(rank), count):
        shape = [1 if axis in axes else size for axis, size in enumerate(source)]
        if not keeps:
            shape = [size for axis, size in enumerate(shape) if axis not in axes]
        if tuple(shape) == output:
            found.append(axes)
    # Axes of length one change nothing, so choices that differ in these alone are one.
    distinct = {tuple(axis for axis in axes if source[axis] != 1) for axes in found}
    if len(distinct) != 1 or not count:
        return None
    allowed = [axis for axis in range(rank) if axis in found[0] or source[axis] == 1]
    return _any_of(allowed, found[0], rank)


def _parts(node: Node, graph: Graph, slot: int) -> Accepted:
    axis = node.attr("axis", 0)
    return [[graph.tensor(name).shape[axis]] for name in node.outputs]


def _best(node: Node, graph: Graph, slot: int) -> Accepted:
    return [[graph.tensor(node.outputs[0]).shape[node.attr("axis", -1)]]]


def _depth(node: Node, graph: Graph, slot: int) -> Accepted:
    return [[graph.tensor(node.outputs[0]).shape[node.attr("axis", -1)]]]


def _sizes(node: Node, graph: Graph, slot: int) -> Accepted | None:
    """The sizes of a Resize that stretches to them."""
    output = graph.tensor(node.outputs[0]).shape
    if node.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    axes = node.attr("axes") or range(len(output))
    return [[output[axis]] for axis in axes]


_SOLVERS: dict[str, tuple[int, Solve]] = {
    "CenterCropPad": (
        1,
        lambda node, graph, slot: (
            None if node.attr("axes") else _whole_shape(node, graph, slot)
        ),
    ),
    "ConstantOfShape": (0, _whole_shape),
    "Expand": (1, _expand),
    "OneHot": (1, _depth),
    "Reshape": (1, _reshape),
    "Resize": (3, _sizes),
    "Split": (1, _parts),
    "Squeeze": (1, _squeezed),
    "Tile": (1, _repeats),
    "TopK": (1, _best),
    "Unsqueeze": (1, _unsqueezed),
    **{
        f"Reduce{kind}": (1, _folded)
        for kind in (
            "L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare",
        )
    },
}  # fmt: skip

for _name, (_slot, _solver) in _SOLVERS.items():
    register_solver(_name, _slot, _solver)


def _express_check(node: Node, graph: Graph) -> tuple[Node, ...]:
    """How many elements of an operand are none of the numbers that they may be."""
    steps = Steps(node, graph)
    operand = steps.given(0)
    accepted: Accepted = node.attr(ACCEPTED)
    longest = max((len(choice) for choice in accepted), default=0)
    table = np.array(
        [[*choice, *[choice[0]] * (longest - len(choice))] for choice in accepted], np.int64
    )
    allowed = steps.constant(table)
    one, none = terms.const(1, DType.INT32), terms.const(0, DType.INT32)

    def failures(*places: Index) -> Expr:
        place = places[0] if places else 0
        found = operand[places].cast(DType.INT64)
        good: Expr = terms.const(False, DType.BOOL)
        for choice in range(longest):
            good = good | found.equals(allowed[place, choice])
        return terms.select(good, none, one)

    steps.fold("sum", (), operand.shape, failures, to=0)
    return steps.nodes()


register(Operator(CHECK_OPERAND, _express_check))
