"""A constant that scales a factor of a product scales its sum instead.

Exporters scale queries and keys in front of their product. Behind it the constant is part of the
product's end, and the factor is read where it already lies.
"""

from __future__ import annotations

from dataclasses import replace

from ramforge.compiler import registry
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, computation_of, factors_of
from ramforge.compiler.expressions.placed import place
from ramforge.compiler.expressions.terms import Expr, Load
from ramforge.compiler.ir import DType, Graph, Node

_LEAST, _MOST = 1e-5, 1e5


def hoist_scales(graph: Graph) -> Graph:
    made = {node.outputs[0]: node for node in graph.nodes}
    nodes = []
    for node in graph.nodes:
        factors = factors_of(computation_of(node)) or ()
        for factor in factors if len(set(factors)) == len(factors) else ():
            hoisted = _hoisted(node, factor, made.get(node.inputs[factor.slot]))
            if hoisted is not None and _is_as_good(hoisted, node, graph):
                node = hoisted
                break
        nodes.append(node)
    changed = any(new is not old for new, old in zip(nodes, graph.nodes, strict=True))
    return hoist_scales(graph.rebuilt(nodes)) if changed else graph


def _is_as_good(new: Node, old: Node, graph: Graph) -> bool:
    ranks = [registry.family_of(place(node, graph)).rank for node in (new, old)]
    return ranks[0] <= ranks[1]


def _hoisted(node: Node, factor: Load, maker: Node | None) -> Node | None:
    """The product with the tensor behind the scale as its factor."""
    if maker is None or not computation_of(maker).is_map or factor.loose_axes():
        return None
    source = computation_of(maker)
    scaled = _scaled_load(source.value)
    if scaled is None or isinstance(source.value, Load) or factor.dtype is not DType.FLOAT32:
        return None
    name = maker.inputs[scaled.slot]
    inputs = node.inputs if name in node.inputs else (*node.inputs, name)
    moved = terms.rewrite(scaled, dict(zip(source.axes, factor.indices, strict=True)))
    assert isinstance(moved, Load)
    bare = terms.load(inputs.index(name), moved.indices, moved.shape, moved.dtype)

    def behind(value: Expr) -> Expr:
        return terms.rewrite(source.value, loads=lambda load: value)

    computation = computation_of(node)
    product = terms.rewrite(computation.value, loads=lambda load: bare if load is factor else load)
    hole = terms.hole(computation.value.dtype)
    finish = terms.rewrite(computation.result, filled=behind(hole))
    merged: Computation = replace(computation, value=product, finish=finish)
    origin = tuple(dict.fromkeys((*maker.origin, *node.origin)))
    return comp.computed(replace(node, inputs=inputs, origin=origin), merged)


def _scaled_load(value: Expr) -> Load | None:
    """What is multiplied with constants, or divided by them, and nothing else. Only by such that no
    sum leaves the range of numbers for it, or falls below it.
    """
    while isinstance(value, terms.Apply) and value.name in ("mul", "divide"):
        first, second = value.args
        if isinstance(second, terms.Const) and _is_moderate(second):
            value = first
        elif isinstance(first, terms.Const) and value.name == "mul" and _is_moderate(first):
            value = second
        else:
            return None
    return value if isinstance(value, Load) and value.fill is None else None


def _is_moderate(scale: terms.Const) -> bool:
    return _LEAST <= abs(scale.value) <= _MOST
