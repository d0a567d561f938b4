"""Matrix products: MatMul and Gemm."""

from __future__ import annotations

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, Roles, computed
from ramforge.compiler.expressions.index import Index, Var
from ramforge.compiler.expressions.terms import Expr, apply, const
from ramforge.compiler.ir import Graph, Node, Tensor
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.pointwise import operand


def _matmul(node: Node, graph: Graph) -> tuple[Node, ...]:
    a, b = (graph.tensor(name) for name in node.inputs)
    output = graph.tensor(node.outputs[0])
    axes = comp.output_axes(output.shape)
    rows = axes[len(axes) - 1 - (len(b.shape) > 1)] if len(a.shape) > 1 else None
    columns = axes[-1] if len(b.shape) > 1 else None
    batch = tuple(axis for axis in axes if axis not in (rows, columns))
    depth = Var("k0", a.shape[-1])
    value = apply(
        "mul",
        _factor(0, a, batch, rows, depth, transposed=False),
        _factor(1, b, batch, columns, depth, transposed=True),
    )
    row_axes = (rows,) if rows else ()
    column_axes = (columns,) if columns else ()
    if len(b.shape) <= 2:  # one weight for the whole batch: the batch is only more rows
        batch, row_axes = (), (*batch, *row_axes)
    roles = Roles(batch, row_axes, column_axes)
    return (computed(node, Computation(axes, value, comp.SUM, (depth,), roles=roles)),)


def _factor(
    slot: int,
    tensor: Tensor,
    batch: tuple[Var, ...],
    outer: Var | None,
    depth: Var,
    transposed: bool,
) -> Expr:
    """One operand of MatMul at (batch, outer, depth), broadcast over the batch."""
    inner = [ix.of(depth)] if outer is None else [ix.of(outer), ix.of(depth)]
    if transposed:
        inner.reverse()
    lead = len(tensor.shape) - len(inner)
    places: list[Index] = []
    for position, size in enumerate(tensor.shape[:lead]):
        var = batch[len(batch) - lead + position]
        places.append(ix.constant(0) if size == 1 else ix.of(var))
    return terms.load(slot, (*places, *inner), tensor.shape, tensor.dtype)


def _gemm(node: Node, graph: Graph) -> tuple[Node, ...]:
    a, b = (graph.tensor(name) for name in node.inputs[:2])
    output = graph.tensor(node.outputs[0])
    m, n = axes = comp.output_axes(output.shape)
    depth = Var("k0", a.shape[0] if node.attr("transA", 0) else a.shape[1])
    at_a = (ix.of(m), ix.of(depth))
    at_b = (ix.of(depth), ix.of(n))
    if node.attr("transA", 0):
        at_a = at_a[::-1]
    if node.attr("transB", 0):
        at_b = at_b[::-1]
    value = apply(
        "mul",
        terms.load(0, at_a, a.shape, a.dtype),
        terms.load(1, at_b, b.shape, b.dtype),
    )
    finish: Expr = terms.hole(output.dtype)
    finish = _scaled(finish, node.attr("alpha", 1.0))
    if len(node.inputs) > 2 and node.inputs[2]:
        addend = operand(node, graph, 2, comp.positions(axes))
        finish = apply("add", finish, _scaled(addend, node.attr("beta", 1.0)))
    roles = Roles((), (m,), (n,))
    computation = Computation(axes, value, comp.SUM, (depth,), finish, roles)
    return (computed(node, computation),)


def _scaled(value: Expr, factor: float) -> Expr:
    return value if factor == 1.0 else apply("mul", value, const(factor, value.dtype))


def _refuse_fractions(node: Node, graph: Graph) -> tuple[str, str] | None:
    factors = (node.attr("alpha", 1.0), node.attr("beta", 1.0))
    whole = all(float(factor).is_integer() for factor in factors)
    if whole or graph.tensor(node.inputs[0]).dtype.is_float:
        return None
    return "alpha or beta is a fraction and the matrices are integers", "cast them to float32"


register(Operator("MatMul", _matmul))
register(Operator("Gemm", _gemm, _refuse_fractions))
