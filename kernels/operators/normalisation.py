"""Operators that need statistics of whole rows: softmax and the normalisations but that of a batch.

They compute in float32, or in float64 if that is the type of the data, whatever is stored; only
softmax rounds in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, apply, const, select
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.casts import limits

Element = Callable[..., Expr]


def _softmax(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x = steps.given(0)
    along = [node.attr("axis", -1) % x.rank] if x.rank else []
    if along and _rounds_everywhere(x, along[0]):
        _rounded_softmax(steps, x, along[0])
    else:
        steps.softmax(x.shape, along, lambda *at: x[at].cast(x.dtype.wide), to=0)
    return steps.nodes()


def _log_softmax(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x = steps.given(0)
    along = [node.attr("axis", -1) % x.rank] if x.rank else []

    def distance(peak: Expr, at: Sequence[Index]) -> Expr:
        return x[tuple(at)].cast(x.dtype.wide) - peak

    steps.row(
        x.shape,
        along,
        [
            (comp.MAXIMUM, lambda known, *at: x[at].cast(x.dtype.wide)),
            (comp.SUM, lambda known, *at: apply("exp", distance(known[0], at))),
        ],
        lambda known, *at: distance(known[0], at) - apply("log", known[1]),
        to=0,
    )
    return steps.nodes()


def _rounds_everywhere(x: Value, axis: int) -> bool:
    """Whether a row of ones has a sum in a type that rounds after each operation."""
    return x.dtype.is_stored_only and x.shape[axis] <= limits(x.dtype)[1]


def _rounded_softmax(steps: Steps, x: Value, axis: int) -> None:
    """Softmax that rounds where ONNX's own function does: differences, powers, sum, quotients."""
    kept = [1 if number == axis else size for number, size in enumerate(x.shape)]
    depth = (x.shape[axis],)

    def moved(at: Sequence[Index], place: Index | int) -> list[Index | int]:
        return [place if number == axis else at[number] for number in range(x.rank)]

    peak = steps.fold(comp.MAXIMUM, kept, depth, lambda *at: x.at(moved(at, at[-1])))
    powers = steps.map(x.shape, lambda *at: apply("exp", x[at] - peak.at(moved(at, 0))))
    total = steps.fold(comp.SUM, kept, depth, lambda *at: powers.at(moved(at, at[-1])))
    steps.map(x.shape, lambda *at: powers[at] / total.at(moved(at, 0)), to=0)


def _refuse_integers(node: Node, graph: Graph) -> tuple[str, str] | None:
    if not graph.tensor(node.inputs[0]).dtype.is_float:
        return "the input is not of a floating-point type", "cast it to float32"
    return None


def mean_over(steps: Steps, shape: Sequence[int], axes: Sequence[int], element: Element) -> Value:
    """The mean of ``element`` over these axes, which stay with length 1."""
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    over = [shape[axis] for axis in axes]

    def inside(*at: Index) -> Expr:
        places = list(at[: len(shape)])
        for axis, place in zip(axes, at[len(shape) :], strict=True):
            places[axis] = place
        return element(*places)

    size = math.prod(over)
    return steps.fold(comp.SUM, kept, over, inside, lambda total, *at: total / size)


def moments(
    steps: Steps, shape: Sequence[int], axes: Sequence[int], element: Element
) -> tuple[Value, Value]:
    """Mean and variance of ``element`` over these axes, which stay with length 1."""
    mean = mean_over(steps, shape, axes, element)

    def squared(*at: Index) -> Expr:
        distance = element(*at) - mean.spread(at)
        return distance * distance

    return mean, mean_over(steps, shape, axes, squared)


def inverse_root(value: Expr, epsilon: float) -> Expr:
    return 1 / apply("sqrt", value + epsilon)


def _normalised(
    steps: Steps,
    shape: Sequence[int],
    axes: Sequence[int],
    element: Element,
    finish: Callable[..., Expr],
    epsilon: float,
    to: int | None = None,
) -> Value:
    """``finish`` of each element less the mean of its row and over the row's deviation."""
    size = math.prod(shape[axis] for axis in axes)

    def distance(known: Sequence[Expr], *at: Index) -> Expr:
        return element(*at) - known[0] / size

    def squared(known: Sequence[Expr], *at: Index) -> Expr:
        return distance(known, *at) * distance(known, *at)

    def value(known: Sequence[Expr], *at: Index) -> Expr:
        return finish(distance(known, *at) * inverse_root(known[1] / size, epsilon), *at)

    folds = [(comp.SUM, lambda known, *at: element(*at)), (comp.SUM, squared)]
    return steps.row(shape, axes, folds, value, to)


def _scaled(value: Expr, scale: Expr | None, bias: Expr | None) -> Expr:
    if scale is not None:
        value = value * scale
    return value if bias is None else value + bias


def _layer_norm(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, scale, bias = steps.given(0), steps.optional(1), steps.optional(2)
    axes = range(node.attr("axis", -1) % x.rank, x.rank)
    epsilon = node.attr("epsilon", 1e-5)

    def element(*at: Index) -> Expr:
        return x[at].cast(x.dtype.wide)

    def finish(value: Expr, *at: Index) -> Expr:
        factors = (other.spread(at) if other else None for other in (scale, bias))
        return _scaled(value.cast(x.dtype), *factors)

    _normalised(steps, x.shape, axes, element, finish, epsilon, to=0)
    if steps.wants(1) or steps.wants(2):
        mean, variance = moments(steps, x.shape, axes, element)
        if steps.wants(1):
            steps.map(mean.shape, lambda *at: mean[at], to=1)
        if steps.wants(2):
            steps.map(mean.shape, lambda *at: inverse_root(variance[at], epsilon), to=2)
    return steps.nodes()


def _rms_norm(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, scale = steps.given(0), steps.given(1)
    axes = range(node.attr("axis", -1) % x.rank, x.rank)
    epsilon = node.attr("epsilon", 1e-5)

    def element(*at: Index) -> Expr:
        return x[at].cast(x.dtype.wide)

    size = math.prod(x.shape[axis] for axis in axes)

    def normalised(known: Sequence[Expr], *at: Index) -> Expr:
        value = element(*at) * inverse_root(known[0] / size, epsilon)
        return value.cast(x.dtype).cast(scale.dtype) * scale.spread(at)

    squares = (comp.SUM, lambda known, *at: element(*at) * element(*at))
    steps.row(x.shape, axes, [squares], normalised, to=0)
    return steps.nodes()


def _instance_norm(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, scale, bias = (steps.given(slot) for slot in range(3))
    wide = x.dtype.wide

    def finish(value: Expr, *at: Index) -> Expr:
        return value * scale[at[1]].cast(wide) + bias[at[1]].cast(wide)

    _normalised(
        steps,
        x.shape,
        range(2, x.rank),
        lambda *at: x[at].cast(wide),
        finish,
        node.attr("epsilon", 1e-5),
        to=0,
    )
    return steps.nodes()


def _group_norm(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, scale, bias = (steps.given(slot) for slot in range(3))
    groups = node.attr("num_groups")
    members = x.shape[1] // groups
    shape = (x.shape[0], groups, members, *x.shape[2:])

    def finish(value: Expr, *at: Index) -> Expr:
        channel = at[1] * members + at[2]
        return _scaled(value.cast(x.dtype), scale[channel], bias[channel])

    grouped = _normalised(
        steps,
        shape,
        range(2, len(shape)),
        lambda n, group, member, *at: x[(n, group * members + member, *at)].cast(x.dtype.wide),
        finish,
        node.attr("epsilon", 1e-5),
    )
    steps.map(
        x.shape,
        lambda n, channel, *at: grouped[(n, channel // members, channel % members, *at)],
        to=0,
    )
    return steps.nodes()


def _refuse_groups(node: Node, graph: Graph) -> tuple[str, str] | None:
    shape, groups = graph.tensor(node.inputs[0]).shape, node.attr("num_groups")
    if groups > 0 and shape[1] % groups == 0:
        return None
    return f"{shape[1]} channels are not {groups} equal groups", "make num_groups a divisor"


def _mean_variance_norm(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x = steps.given(0)
    given = node.attr("axes")
    axes = sorted({axis % x.rank for axis in ((0, 2, 3) if given is None else given)})

    def element(*at: Index) -> Expr:
        return x[at].cast(x.dtype.wide)

    mean, variance = moments(steps, x.shape, axes, element)

    def normalised(*at: Index) -> Expr:
        deviation = apply("sqrt", variance.spread(at)) + 1e-9
        return (element(*at) - mean.spread(at)) / deviation

    steps.map(x.shape, normalised, to=0)
    return steps.nodes()


def _lp_norm(node: Node, graph: Graph) -> tuple[Node, ...]:
    """Over a norm of 0 stands 0."""
    steps = Steps(node, graph)
    x = steps.given(0)
    axis, is_first = node.attr("axis", -1) % x.rank, node.attr("p", 2) == 1
    wide = x.dtype.wide

    def size(*at: Index) -> Expr:
        value = x[(*at[:axis], at[-1], *at[axis + 1 : -1])].cast(wide)
        return apply("abs", value) if is_first else value * value

    kept = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    norm = steps.fold(
        comp.SUM,
        kept,
        x.shape[axis : axis + 1],
        size,
        lambda total, *at: total if is_first else apply("sqrt", total),
    )

    def normalised(*at: Index) -> Expr:
        length = norm.spread(at)
        return select(length.equals(0), const(0, wide), x[at].cast(wide) / length)

    steps.map(x.shape, normalised, to=0)
    return steps.nodes()


def _refuse_order(node: Node, graph: Graph) -> tuple[str, str] | None:
    p = node.attr("p", 2)
    return None if p in (1, 2) else (f"p is {p}; ONNX knows 1 and 2", "use ReduceL1 or ReduceL2")


def _local_response_norm(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, size = steps.given(0), node.attr("size")
    wide: DType = x.dtype.wide
    factor = node.attr("alpha", 1e-4) / size

    def square(*at: Index) -> Expr:
        channel = at[1] + at[-1] - (size - 1) // 2
        value = x.at((at[0], channel, *at[2:-1]), fill=0).cast(wide)
        return value * value

    def finish(total: Expr, *at: Index) -> Expr:
        base = total * factor + node.attr("bias", 1.0)
        return x[at].cast(wide) / apply("power", base, const(node.attr("beta", 0.75), wide))

    steps.fold(comp.SUM, x.shape, (size,), square, finish, to=0)
    return steps.nodes()


register(Operator("Softmax", _softmax, _refuse_integers))
register(Operator("LogSoftmax", _log_softmax, _refuse_integers))
register(Operator("LayerNormalization", _layer_norm))
register(Operator("RMSNormalization", _rms_norm))
register(Operator("InstanceNormalization", _instance_norm))
register(Operator("GroupNormalization", _group_norm, _refuse_groups, like_input=True))
register(Operator("MeanVarianceNormalization", _mean_variance_norm, like_input=True))
register(Operator("LpNormalization", _lp_norm, _refuse_order))
register(Operator("LRN", _local_response_norm))
