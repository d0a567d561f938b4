"""Running totals along an axis: CumSum and CumProd."""

from __future__ import annotations

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions.steps import Steps
from ramforge.compiler.expressions.terms import const
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.declared import some_axes
from ramforge.kernels.operators.movement import constant_input
from ramforge.kernels.operators.ordering import prefix


def _cumulation(name: str, kind: str) -> None:
    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        steps = Steps(node, graph)
        x = steps.given(0)
        axis = constant_input(node, graph, 1)
        assert axis is not None
        exclusive, reverse = (bool(node.attr(name, 0)) for name in ("exclusive", "reverse"))
        if x.rank == 0:
            empty = comp.identity(kind, x.dtype)
            steps.map((), lambda: x[()] if not exclusive else const(empty, x.dtype), to=0)
            return steps.nodes()
        prefix(steps, x, int(axis.reshape(()).item()) % x.rank, kind, exclusive, reverse, to=0)
        return steps.nodes()

    register(Operator(name, express, needs={1: some_axes}))


_cumulation("CumSum", comp.SUM)
_cumulation("CumProd", comp.PRODUCT)
