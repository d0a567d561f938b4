"""Convolutions of any rank: sums over a window and over the channels of a group."""

from __future__ import annotations

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions.computation import Roles
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps
from ramforge.compiler.expressions.terms import Expr
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.window import Window


def _convolution(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, weight, bias = steps.given(0), steps.given(1), steps.optional(2)
    outputs, rank = steps.shape(), x.rank
    groups, channels = node.attr("group", 1), weight.shape[1]
    window = Window(node, weight.shape[2:], x.shape[2:], outputs[2:])
    wide = x.dtype.wide

    def product(*at: Index) -> Expr:
        *offsets, channel = at[rank:]
        group = at[1] // (outputs[1] // groups)
        places = window.positions(at[2:rank], offsets)
        element = x.at((at[0], group * channels + channel, *places), fill=0)
        return element.cast(wide) * weight[(at[1], channel, *offsets)].cast(wide)

    def biased(total: Expr, *at: Index) -> Expr:
        return total if bias is None else total + bias[at[1]].cast(wide)

    over = (*window.kernel, channels)
    roles = None if channels == 1 and groups > 1 else product_roles(outputs, groups)
    steps.fold(comp.SUM, outputs, over, product, biased, to=0, roles=roles)
    return steps.nodes()


def product_roles(shape: tuple[int, ...], groups: int, batch: int = 0) -> Roles:
    """The roles of an output ``[batch axes..., n, channels, spatial axes...]``."""
    axes = comp.output_axes(shape)
    n, channel, *spatial = axes[batch:]
    return Roles(axes[:batch], (n, *spatial), (channel,), groups)


register(Operator("Conv", _convolution))
