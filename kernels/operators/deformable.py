"""DeformConv: a convolution that looks where its offsets say, between the elements of its input.

What each window sees is gathered first; the rest is a matrix product.
"""

from __future__ import annotations

import itertools
import math

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps
from ramforge.compiler.expressions.terms import Expr, apply, const
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.convolution import product_roles
from ramforge.kernels.operators.window import Window

FAR = 2.0**30  # outside of every tensor, and still an integer that can be added to


def _deform_conv(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, weight, offset = (steps.given(slot) for slot in range(3))
    bias, mask = steps.optional(3), steps.optional(4)
    outputs, kernel = steps.shape(), weight.shape[2:]
    window = Window(node, kernel, x.shape[2:], outputs[2:])
    rank, wide = len(kernel), x.dtype.wide
    strides = tuple(math.prod(kernel[axis + 1 :]) for axis in range(rank))
    members = x.shape[1] // node.attr("offset_group", 1)

    def seen(*at: Index) -> Expr:
        """The input between its elements, linear along each axis, 0 outside."""
        n, channel, *rest = at
        offsets, place = rest[:rank], rest[rank:]
        number = channel // members * math.prod(kernel) + ix.flatten(tuple(offsets), strides)
        corners = []
        for axis, start in enumerate(window.positions(place, offsets)):
            moved = offset[(n, number * rank + axis, *place)].cast(wide)
            whole = apply("floor", terms.smaller(terms.larger(moved, -FAR), FAR))
            # the fraction of the offset alone: the sum would lose some of its digits
            fraction = moved - whole
            low = whole.cast(DType.INT64) + terms.value_of(start)
            corners.append(((low, 1 - fraction), (low + 1, fraction)))
        total = const(0, wide)
        for corner in itertools.product(*corners):
            share, checks = const(1, wide), []
            for (position, part), size in zip(corner, x.shape[2:], strict=True):
                share = share * part
                checks += [position >= 0, position < size]
            element = x[(n, channel, *(position for position, _ in corner))].cast(wide)
            inside = terms.conjunction(checks)
            total = total + terms.select(inside, element * share, const(0, wide))
        return total if mask is None else total * mask[(n, number, *place)].cast(wide)

    columns = steps.map((*x.shape[:2], *kernel, *outputs[2:]), seen)
    groups, channels = node.attr("group", 1), weight.shape[1]

    def product(*at: Index) -> Expr:
        n, m, *rest = at
        place, offsets, channel = rest[:rank], rest[rank:-1], rest[-1]
        source = m // (outputs[1] // groups) * channels + channel
        return columns[(n, source, *offsets, *place)] * weight[(m, channel, *offsets)].cast(wide)

    def biased(total: Expr, *at: Index) -> Expr:
        return total if bias is None else total + bias[at[1]].cast(wide)

    steps.fold(
        comp.SUM,
        outputs,
        (*kernel, channels),
        product,
        biased,
        to=0,
        roles=product_roles(outputs, groups),
    )
    return steps.nodes()


def _refuse_shapes(node: Node, graph: Graph) -> tuple[str, str] | None:
    """What shape inference does not look at."""
    x, weight = (graph.tensor(name).shape for name in node.inputs[:2])
    kernel, groups = weight[2:], node.attr("offset_group", 1)
    output = graph.tensor(node.outputs[0]).shape
    wanted = {2: (x[0], groups * math.prod(kernel) * len(kernel), *output[2:])}
    if len(node.inputs) > 4 and node.inputs[4]:
        wanted[4] = (x[0], groups * math.prod(kernel), *output[2:])
    for slot, shape in wanted.items():
        found = graph.tensor(node.inputs[slot]).shape
        if found != shape:
            name = node.inputs[slot]
            return f"input {name!r} has shape {found}, expected {shape}", "check its attributes"
    if x[1] % groups:
        return f"{x[1]} channels are not {groups} equal groups", "check offset_group"
    return None


register(Operator("DeformConv", _deform_conv, _refuse_shapes))
