"""Resize: along each axis an output element is a weighted sum of a few neighbouring elements.

Which ones and with what weights is known when the model is compiled (``taps.py``). Where
the first of them follows a rule, an index says it, otherwise a table. Axes are done one after the
other; a few axes of two taps each are done at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Data, Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, apply, const
from ramforge.compiler.ir import Array, DType, Graph, Node
from ramforge.compiler.registry import Operator, Told, register, untold
from ramforge.kernels.operators import taps as tp
from ramforge.kernels.operators.declared import output_sizes
from ramforge.kernels.operators.movement import constant_input
from ramforge.kernels.operators.taps import Axis, Taps

# Up to this many taps in all are added up in one map; more would repeat too much.
AT_ONCE = 8
NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def _transformation(node: Node) -> str:
    return str(node.attr("coordinate_transformation_mode", "half_pixel"))


def _crops(node: Node) -> bool:
    return _transformation(node) == "tf_crop_and_resize"


def _axes(node: Node, graph: Graph) -> list[Axis]:
    """How each axis is stretched."""
    old, new = (graph.tensor(name).shape for name in (node.inputs[0], node.outputs[0]))
    rank = len(old)
    axes = [axis % rank for axis in node.attr("axes", range(rank))]

    def spread(values: Array, default: float) -> list[float]:
        places = dict(zip(axes, values.astype(np.float64).tolist(), strict=True))
        return [places.get(axis, default) for axis in range(rank)]

    scales, widths = [1.0] * rank, [float(size) for size in new]
    given, sizes = constant_input(node, graph, 2), constant_input(node, graph, 3)
    if given is not None and given.size:
        scales = spread(given, 1.0)
        widths = [scale * size for scale, size in zip(scales, old, strict=True)]
    elif sizes is not None:
        ratios = {axis: int(size) / old[axis] for axis, size in zip(axes, sizes, strict=True)}
        policy = node.attr("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            common = (min if policy == "not_larger" else max)(ratios.values())
            ratios = dict.fromkeys(ratios, common)
            widths = [common * size if axis in ratios else size for axis, size in enumerate(old)]
        scales = [ratios.get(axis, 1.0) for axis in range(rank)]
    starts, ends = [0.0] * rank, [1.0] * rank
    roi = constant_input(node, graph, 1) if _crops(node) else None
    if roi is not None:
        starts, ends = spread(roi[: len(axes)], 0.0), spread(roi[len(axes) :], 1.0)
    numbers = zip(old, new, scales, widths, starts, ends, strict=True)
    return [Axis(*each) for each in numbers]


def _taps(node: Node, axis: Axis) -> Taps:
    places = tp.TRANSFORMS[_transformation(node)](axis)
    mode = node.attr("mode", "nearest")
    if mode == "nearest":
        return tp.nearest_taps(axis, places, node.attr("nearest_mode", "round_prefer_floor"))
    flags = bool(node.attr("antialias", 0)), bool(node.attr("exclude_outside", 0))
    kind = tp.linear(*flags)
    if mode == "cubic":
        kind = tp.cubic(node.attr("cubic_coeff_a", -0.75), *flags)
    return tp.weighted_taps(axis, places, kind)


def _inner_part(node: Node, axis: Axis) -> tuple[int, int]:
    """From where to where the output lies inside of the input."""
    places = tp.TRANSFORMS[_transformation(node)](axis)
    inside = np.flatnonzero((places >= 0) & (places <= axis.old - 1))
    return (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)


class _Reader:
    """Reads along one axis: the k-th element that counts for each element of the output, and its
    weight.
    """

    def __init__(self, steps: Steps, taps: Taps, working: DType) -> None:
        self.rule = taps.closed_form()
        self.taps = taps if self.rule else taps.within()
        self._starts = None if self.rule else steps.constant(self.taps.first.astype(np.int32))
        self._weights = steps.constant(self.taps.weights.astype(working.numpy))

    def place(self, at: Index, k: Index | int) -> Index:
        if self.rule:
            a, b, c = self.rule
            return (at * a + b) // c + k
        assert self._starts is not None
        most = max(self.taps.axis.old - self.taps.count, 0)
        return ix.of(Data(self._starts[at], most + 1)) + k

    def weight(self, at: Index, k: Index | int) -> Expr:
        return self._weights[at, k]


def _resize(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x = steps.given(0)
    mode = node.attr("mode", "nearest")
    working = DType.FLOAT64 if x.dtype.wide is not DType.FLOAT32 else DType.FLOAT32
    axes = _axes(node, graph)
    readers = {
        number: _Reader(steps, _taps(node, axis), working)
        for number, axis in enumerate(axes)
        if not axis.is_unchanged
    }
    inner = {number: _inner_part(node, axes[number]) for number in readers if _crops(node)}

    def finished(value: Expr, *at: Index) -> Expr:
        """The value as the output has it, or what stands for what is outside of the input."""
        if value.dtype is not x.dtype and not x.dtype.is_float:
            value = apply("round", value)
        checks = [terms.inside(at[axis], first, stop) for axis, (first, stop) in inner.items()]
        outside = _as_element(node.attr("extrapolation_value", 0.0), x.dtype)
        return terms.select(terms.conjunction(checks), value.cast(x.dtype), outside)

    if mode == "nearest" or not readers:

        def element(*at: Index) -> Expr:
            places = [
                readers[axis].place(place, 0) if axis in readers else place
                for axis, place in enumerate(at)
            ]
            return finished(x.at(places), *at)

        steps.map(steps.shape(), element, to=0)
        return steps.nodes()
    _interpolate(steps, readers, working, finished)
    return steps.nodes()


def _as_element(value: float, dtype: DType) -> Expr:
    if dtype.is_float or dtype is DType.BOOL:
        return const(value, dtype)
    limits = np.iinfo(dtype.numpy)
    return const(int(min(max(np.rint(value), limits.min), limits.max)), dtype)


def _interpolate(
    steps: Steps,
    readers: dict[int, _Reader],
    working: DType,
    finished: Callable[..., Expr],
) -> None:
    x = steps.given(0)
    order = list(readers)
    if x.dtype.is_float:  # the axes that shrink come first
        order.sort(key=lambda axis: readers[axis].taps.axis.new / readers[axis].taps.axis.old)
    if math.prod(reader.taps.count for reader in readers.values()) <= AT_ONCE:

        def element(*at: Index) -> Expr:
            return finished(_sum(list(at), order), *at)

        def _sum(at: list[Index], left: Sequence[int]) -> Expr:
            if not left:
                return x.at(at, 0).cast(working)
            axis, reader = left[-1], readers[left[-1]]
            parts = []
            for k in range(reader.taps.count):
                moved = [*at[:axis], reader.place(at[axis], k), *at[axis + 1 :]]
                parts.append(_sum(moved, left[:-1]) * reader.weight(at[axis], k))
            return _total(parts)

        steps.map(steps.shape(), element, to=0)
        return
    value, shape = x, list(x.shape)
    for axis in order:
        shape[axis] = readers[axis].taps.axis.new
        last = (finished, 0) if axis == order[-1] else (None, None)
        value = steps.fold(
            comp.SUM,
            shape,
            (readers[axis].taps.count,),
            _weighted(value, axis, readers[axis], working),
            *last,
        )


def _weighted(source: Value, axis: int, reader: _Reader, working: DType) -> Callable[..., Expr]:
    def term(*at: Index) -> Expr:
        *here, k = at
        weight = reader.weight(here[axis], k)
        here[axis] = reader.place(here[axis], k)
        return source.at(here, 0).cast(working) * weight

    return term


def _total(parts: Sequence[Expr]) -> Expr:
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result


def _refuse(node: Node, graph: Graph) -> tuple[str, str] | None:
    mode, transformation = node.attr("mode", "nearest"), _transformation(node)
    for value, known in (
        (mode, ("nearest", "linear", "cubic")),
        (transformation, tuple(tp.TRANSFORMS)),
        (node.attr("nearest_mode", NEAREST_MODES[0]), NEAREST_MODES),
    ):
        if value not in known:
            return f"there is no mode {value!r}", f"use one of {', '.join(known)}"
    x, y = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    if mode != "nearest" and x.dtype is DType.BOOL:
        return "booleans cannot be interpolated", "use mode nearest, or cast them"
    if x.size == 0 and y.size:
        return "there is nothing to make the output of", "resize what is not empty"
    roi = node.inputs[1:2] if _crops(node) else ("",)
    if _crops(node) and roi in ((), ("",)):
        return "tf_crop_and_resize needs a roi", "give the roi"
    if _crops(node) and roi[0] not in graph.constants:
        return "its roi is computed at run time", "give it as a constant"
    return None


def _sizes(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    is_stretched = node.attr("keep_aspect_ratio_policy", "stretch") == "stretch"
    return output_sizes(node, graph, slot) if is_stretched else ()


register(Operator("Resize", _resize, _refuse, needs={2: untold, 3: _sizes}, reads=(1,)))
