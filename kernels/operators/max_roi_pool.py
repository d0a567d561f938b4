"""MaxRoiPool: the largest element in each part of each region of interest."""

from __future__ import annotations

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps
from ramforge.compiler.expressions.terms import Expr, apply, const, larger, select, value_of
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register


def _max_roi_pool(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, regions = steps.given(0), steps.given(1)
    count, channels, *parts = steps.shape()
    scale = node.attr("spatial_scale", 1.0)
    lowest = comp.identity(comp.MAXIMUM, x.dtype)

    def corner(region: Index, column: int) -> Expr:
        place = regions[region, column] * scale
        return apply("sign", place) * apply("floor", apply("abs", place) + 0.5)

    def seen(region: Index, axis: int, part: Index, place: Index) -> Expr:
        """Whether a part of a region holds the pixels at this place along an axis (0 down)."""
        first, last = corner(region, 2 - axis), corner(region, 4 - axis)
        step = larger(last - first + 1, 1) / parts[axis]
        start = first + apply("floor", value_of(part, x.dtype) * step)
        stop = first + apply("ceil", value_of(part + 1, x.dtype) * step)
        at = value_of(place, x.dtype)
        return (start <= at) & (at < stop)

    def across(region: Index, channel: Index, row: Index, column: Index, place: Index) -> Expr:
        value = x[regions[region, 0].cast(DType.INT64), channel, row, place]
        return select(seen(region, 1, column, place), value, const(lowest, x.dtype))

    rows = (count, channels, x.shape[2], parts[1])
    wide = steps.fold(comp.MAXIMUM, rows, x.shape[3:], across)

    def down(region: Index, channel: Index, row: Index, column: Index, place: Index) -> Expr:
        value = wide[region, channel, place, column]
        return select(seen(region, 0, row, place), value, const(lowest, x.dtype))

    def nothing_is_zero(peak: Expr, *at: Index) -> Expr:
        return select(peak.equals(lowest), const(0, x.dtype), peak)

    steps.fold(comp.MAXIMUM, steps.shape(), x.shape[2:3], down, nothing_is_zero, to=0)
    return steps.nodes()


register(Operator("MaxRoiPool", _max_roi_pool))
