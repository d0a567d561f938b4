"""Attention as one node: scores, their softmax, and the values that it weighs.

Three dependency levels become one, and the scores of all queries for all keys, the largest tensors
of a transformer with many tokens, are never stored. It is found by what the nodes compute, whatever
they were called: a product whose first factor is a softmax of (something made element by element
of) another product, along what it sums over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ramforge.compiler import registry
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import (
    Computation,
    Scores,
    computation_of,
    computed,
    factors_of,
)
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.expressions.placed import place
from ramforge.compiler.expressions.terms import Expr, Load
from ramforge.compiler.ir import Graph, Node

MakerOf = Callable[[str], Node | None]


def fuse_attention(graph: Graph) -> Graph:
    made: dict[str, Node | None] = {node.outputs[0]: node for node in graph.nodes}
    readers = graph.consumers()

    def maker(name: str) -> Node | None:
        """Who makes a tensor, if it is for one reader only."""
        alone = len(readers.get(name, ())) == 1 and name not in graph.outputs
        return made.get(name) if alone else None

    for node in graph.nodes:
        found = _found(node, maker)
        if found is None or not registry.can_do(place(found.node, graph)):
            continue
        made[node.outputs[0]] = found.node
        made.update(dict.fromkeys(found.inside))
    if None not in made.values():
        return graph
    kept = [made[node.outputs[0]] for node in graph.nodes]
    return graph.rebuilt(node for node in kept if node is not None)


@dataclass(frozen=True, slots=True)
class _Attention:
    """The node, and the tensors that are not made any more."""

    node: Node
    inside: tuple[str, str]


def _found(node: Node, maker: MakerOf) -> _Attention | None:
    outer = computation_of(node)
    factors = factors_of(outer)
    if factors is None or len(outer.reduction) != 1 or factors[0].loose_axes():
        return None
    weights, values = factors
    readers = [load for load in (values, *outer.loads()) if load.slot == weights.slot]
    if readers != [weights]:
        return None  # what is read in another way as well has to be a tensor
    softmax = maker(node.inputs[weights.slot])
    if softmax is None or not _is_along(computation_of(softmax), weights, outer):
        return None
    inputs = list(node.inputs)
    row = _moved(
        softmax, inputs, dict(zip(computation_of(softmax).axes, weights.indices, strict=True))
    )
    scored = [load for load in terms.loads_of(row) if _is_product(maker(inputs[load.slot]))]
    if len(scored) != 1 or scored[0].loose_axes():
        return None
    (score,) = scored
    product = maker(inputs[score.slot])
    assert product is not None
    scores = _scores(product, inputs, row, score)
    merged = replace(outer, kind=comp.ATTENTION, value=_value(outer), scores=scores)
    origin = tuple(dict.fromkeys((*product.origin, *softmax.origin, *node.origin)))
    fused = replace(node, op="Attention", inputs=tuple(inputs), origin=origin)
    return _Attention(computed(fused, merged), (softmax.outputs[0], product.outputs[0]))


def _value(outer: Computation) -> Expr:
    assert isinstance(outer.value, terms.Apply)
    return outer.value.args[1]


def _is_product(node: Node | None) -> bool:
    return node is not None and factors_of(computation_of(node)) is not None


def _is_along(row: Computation, weights: Load, outer: Computation) -> bool:
    """Whether this is a softmax and nothing else, along what the product sums over; and whether all
    columns of the product weigh by the same.
    """
    if row.kind != comp.SOFTMAX or len(row.reduction) != 1 or not _is_stored_only(row.result):
        return False
    (key,) = outer.reduction
    along = row.axes.index(row.reduction[0])
    assert outer.roles is not None
    others = set(outer.roles.columns) | {key}
    return weights.indices[along] == ix.of(key) and not any(
        ix.variables(place) & others for axis, place in enumerate(weights.indices) if axis != along
    )


def _is_stored_only(result: Expr) -> bool:
    while isinstance(result, terms.Apply) and result.name == "cast":
        (result,) = result.args
    return isinstance(result, terms.Hole)


def _moved(softmax: Node, inputs: list[str], places: dict[Var, ix.Index]) -> Expr:
    """What the softmax is taken of, at the places of the product's axes; its inputs are added."""
    value = computation_of(softmax).value
    return terms.rewrite(value, places, lambda load: comp.adopted(load, softmax, inputs))


def _scores(product: Node, inputs: list[str], row: Expr, score: Load) -> Scores:
    made = computation_of(product)
    fresh = {var: Var(f"e{number}", var.size) for number, var in enumerate(made.reduction)}
    places = dict(zip(made.axes, score.indices, strict=True))
    places |= {var: ix.of(new) for var, new in fresh.items()}

    def here(expr: Expr) -> Expr:
        return terms.rewrite(expr, places, lambda load: comp.adopted(load, product, inputs))

    result = here(made.result)
    finish = terms.rewrite(row, loads=lambda load: result if load is score else load)
    return Scores(here(made.value), tuple(fresh.values()), finish)
