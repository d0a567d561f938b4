"""Pooling of any rank: a fold over a window, or over all spatial axes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Data, Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, apply, const
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.declared import output_shape
from ramforge.kernels.operators.window import Meeting, Window

NOWHERE = int(np.iinfo(np.int64).max)


def _window(steps: Steps) -> Window:
    node = steps.node
    return Window(node, node.attr("kernel_shape"), steps.given(0).shape[2:], steps.shape()[2:])


def _looking(x: Value, window: Window, at: tuple[Index, ...], fill: terms.Scalar) -> Expr:
    """The element of the input at an output position and an offset in the window."""
    rank = x.rank
    return x.at((*at[:2], *window.positions(at[2:rank], at[rank:])), fill)


def _max_pool(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, window = steps.given(0), _window(steps)
    lowest = comp.identity(comp.MAXIMUM, x.dtype)
    peak = steps.fold(
        comp.MAXIMUM,
        steps.shape(),
        window.kernel,
        lambda *at: _looking(x, window, at, lowest),
        to=0,
    )
    if steps.wants(1):
        _indices(steps, x, peak, window)
    return steps.nodes()


def _indices(steps: Steps, x: Value, peak: Value, window: Window) -> None:
    """Where each window first has its largest element, -1 if it sees nothing of the input."""
    rank, sizes = x.rank, x.shape[2:]
    size = int(np.prod(sizes))
    by_column = bool(steps.node.attr("storage_order", 0))

    def offset(*at: Index) -> Expr:
        places = window.positions(at[2:rank], at[rank:])
        value = x.at((*at[:2], *places), 0)
        is_peak = value.equals(peak.at(at[:rank]))
        if x.dtype.is_float:
            is_peak = is_peak | apply("isnan", value)
        checks = [
            terms.inside(place, 0, length) for place, length in zip(places, sizes, strict=True)
        ]
        flat = ix.flatten(places, _row_major(sizes))
        nowhere = const(NOWHERE, DType.INT64)
        return terms.select(terms.conjunction([*checks, is_peak]), terms.value_of(flat), nowhere)

    def index(found: Expr, *at: Index) -> Expr:
        place = ix.of(Data(found, size))
        if by_column:
            strides = tuple(reversed(_row_major(sizes[::-1])))
            place = ix.flatten(ix.unflatten(place, sizes), strides)
        start = (at[0] * x.shape[1] + at[1]) * size
        return terms.select(found < NOWHERE, terms.value_of(start + place), const(-1, DType.INT64))

    steps.fold(comp.MINIMUM, steps.shape(), window.kernel, offset, index, to=1)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


def _average_pool(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, window = steps.given(0), _window(steps)
    padded = bool(node.attr("count_include_pad", 0))

    def mean(total: Expr, *at: Index) -> Expr:
        return total / window.counts(at[2:], padded).cast(total.dtype)

    steps.fold(
        comp.SUM,
        steps.shape(),
        window.kernel,
        lambda *at: _wide(_looking(x, window, at, 0)),
        mean,
        to=0,
    )
    return steps.nodes()


def _wide(value: Expr) -> Expr:
    """In the type that it is computed in, so that it is rounded once, at the end."""
    return value.cast(value.dtype.wide)


def _power(value: Expr, p: int) -> Expr:
    value = _wide(value)
    if p == 2:
        return value * value
    size = apply("abs", value)
    return size if p == 1 else apply("power", size, const(p, size.dtype))


def _root(total: Expr, p: int) -> Expr:
    if p == 2:
        return apply("sqrt", total)
    return total if p == 1 else apply("power", total, const(1 / p, total.dtype))


def _lp_pool(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, window = steps.given(0), _window(steps)
    p = node.attr("p", 2)
    steps.fold(
        comp.SUM,
        steps.shape(),
        window.kernel,
        lambda *at: _power(_looking(x, window, at, 0), p),
        lambda total, *at: _root(total, p),
        to=0,
    )
    return steps.nodes()


def _refuse_surplus(node: Node, graph: Graph) -> tuple[str, str] | None:
    """Before opset 22 shape inference counted windows that start behind the input."""
    source, output = (graph.tensor(names[0]).shape for names in (node.inputs, node.outputs))
    window = Window(node, node.attr("kernel_shape"), source[2:], output[2:])
    for axis, size in enumerate(output[2:]):
        start = (size - 1) * window.strides[axis] - window.before[axis]
        if node.attr("ceil_mode", 0) and start >= source[2 + axis]:
            return (
                f"along axis {2 + axis} the last of {size} windows sees nothing but padding",
                "export the model with opset 22 or newer, which has one window less",
            )
    return None


def _refuse_lp_pool(node: Node, graph: Graph) -> tuple[str, str] | None:
    return _refuse_order(node, graph) or _refuse_surplus(node, graph)


def _refuse_order(node: Node, graph: Graph) -> tuple[str, str] | None:
    p = node.attr("p", 2)
    return None if p > 0 else (f"p is {p}: there is no such norm", "give p as 1 or more")


def _global_pool(
    name: str,
    kind: str,
    before: Callable[[Node, Expr], Expr],
    after: Callable[[Node, Expr, int], Expr],
) -> None:
    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        steps = Steps(node, graph)
        x = steps.given(0)
        over = x.shape[2:]
        size = int(np.prod(over))
        steps.fold(
            kind,
            steps.shape(),
            over,
            lambda *at: before(node, x.at((*at[:2], *at[x.rank :]))),
            lambda total, *at: after(node, total, size),
            to=0,
        )
        return steps.nodes()

    register(Operator(name, express, _refuse_order))


def _max_unpool(node: Node, graph: Graph) -> tuple[Node, ...]:
    """Each output looks at the windows that it lies in for one that names it; the last one wins."""
    steps = Steps(node, graph)
    x, indices = steps.given(0), steps.given(1)
    kernel = node.attr("kernel_shape")
    outputs = steps.shape()
    window = Window(node, kernel, outputs[2:], x.shape[2:])
    pads = zip(window.before, window.after, strict=True)
    # what the indices count in; a given output shape may be larger
    sizes = tuple(
        (size - 1) * window.strides[axis] + kernel[axis] - sum(pad)
        for axis, (size, pad) in enumerate(zip(x.shape[2:], pads, strict=True))
    )
    size, rank = int(np.prod(sizes)), x.rank
    meetings = [Meeting(k, s, 1) for k, s in zip(kernel, window.strides, strict=True)]

    def start(at: tuple[Index, ...]) -> Index:
        return (at[0] * x.shape[1] + at[1]) * size

    def source(*at: Index) -> Expr:
        here = at[2:rank]
        checks = [terms.inside(place, 0, length) for place, length in zip(here, sizes, strict=True)]
        places = []
        for axis, meeting in enumerate(meetings):
            place = here[axis] + window.before[axis]
            turn, phase = meeting.turn_of(place), meeting.phase_of(place)
            position, offset = meeting.pair(turn, phase, at[rank + axis])
            places.append(position)
            checks.append(terms.inside(offset, 0, meeting.kernel))
        named = indices.at((*at[:2], *places), -1)
        wanted = terms.value_of(start(at) + ix.flatten(here, _row_major(sizes)))
        flat = terms.value_of(ix.flatten(tuple(places), _row_major(x.shape[2:])))
        found = terms.conjunction([*checks, named.equals(wanted)])
        return terms.select(found, flat, const(-1, DType.INT64))

    turns = [meeting.turns for meeting in meetings]
    chosen = steps.fold(comp.MAXIMUM, outputs, turns, source)

    def element(*at: Index) -> Expr:
        number = chosen[at]
        place = ix.of(Data(number, int(np.prod(x.shape[2:]))))
        value = x[(*at[:2], *ix.unflatten(place, x.shape[2:]))]
        return terms.select(number < 0, const(0, x.dtype), value)

    def is_in_its_window(*at: Index) -> Expr:
        number = indices[at]
        place = ix.of(Data(number, x.shape[0] * x.shape[1] * size)) - start(at)
        # the index itself must be in this channel, then its place can be taken apart
        ranges = [terms.inside(place, 0, size), number >= 0]
        known = ix.of(Data(terms.value_of(place), size))
        for axis, position in enumerate(ix.unflatten(known, sizes)):
            first = at[2 + axis] * window.strides[axis] - window.before[axis]
            ranges.append(terms.inside(position - first, 0, kernel[axis]))
        return terms.conjunction(ranges)

    steps.map(outputs, element, to=0)
    steps.check(
        x.shape,
        is_in_its_window,
        f"MaxUnpool {node.name!r}: an index lies outside of the window of its element",
    )
    return steps.nodes()


register(Operator("MaxPool", _max_pool, _refuse_surplus))
register(Operator("AveragePool", _average_pool, _refuse_surplus))
register(Operator("LpPool", _lp_pool, _refuse_lp_pool))
register(Operator("MaxUnpool", _max_unpool, needs={2: output_shape}))
_global_pool("GlobalMaxPool", comp.MAXIMUM, lambda node, x: x, lambda node, peak, size: peak)
_global_pool(
    "GlobalAveragePool",
    comp.SUM,
    lambda node, x: _wide(x),
    lambda node, total, size: total / size,
)
_global_pool(
    "GlobalLpPool",
    comp.SUM,
    lambda node, x: _power(x, node.attr("p", 2)),
    lambda node, total, size: _root(total, node.attr("p", 2)),
)
