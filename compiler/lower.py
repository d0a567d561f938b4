"""From graph to rOperators: for each node the family that fits and the variants that it offers."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from ramforge.compiler import registry
from ramforge.compiler.device import Target
from ramforge.compiler.expressions.placed import place
from ramforge.compiler.expressions.regions import Boxes
from ramforge.compiler.ir import Array, Graph, Node
from ramforge.compiler.rprogram import Candidate, Design, ROperator, Variant

_A_WEIGHT = 4096  # bytes; what is smaller is no matter


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """The nodes of a graph that compute something, in topological order, and for each the
    candidates to choose from.
    """

    graph: Graph
    target: Target
    nodes: tuple[Node, ...]
    candidates: tuple[tuple[Candidate, ...], ...]

    def realise(self, options: tuple[int, ...]) -> tuple[ROperator, ...]:
        """The rOperators, if each node takes the candidate of this number."""
        return tuple(
            ROperator(
                node.name,
                node.op,
                node.origin,
                _named(candidates[option].make(), node, self.graph),
            )
            for node, candidates, option in zip(self.nodes, self.candidates, options, strict=True)
        )


Offer = Callable[[tuple[Candidate, ...]], tuple[Candidate, ...]]


def all_of_them(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    return candidates


def lower(graph: Graph, target: Target, offer: Offer = all_of_them) -> Lowered:
    """``offer`` may leave out some of the candidates of a node."""
    nodes: list[Node] = []
    candidates: list[tuple[Candidate, ...]] = []
    readers = _readers_of_weights(graph, target)
    for node in graph.nodes:
        if graph.tensor(node.outputs[0]).size == 0:
            continue  # nothing to compute
        placed = place(node, graph)
        nodes.append(node)
        offered = registry.candidates_of(placed, target)
        shared = max((readers[name] for name in node.inputs), default=0)
        candidates.append(offer(_sharing(offered, shared) if shared > 1 else offered))
    return Lowered(graph, target, tuple(nodes), tuple(candidates))


def _readers_of_weights(graph: Graph, target: Target) -> Counter[str]:
    """How many nodes read each constant of some size, if all constants of the graph stay in L2 from
    one of them to the next.
    """
    if sum(value.nbytes for value in graph.constants.values()) > target.l2_bytes:
        return Counter()
    weights = {name for name, value in graph.constants.items() if value.nbytes >= _A_WEIGHT}
    return Counter(name for node in graph.nodes for name in node.inputs if name in weights)


@functools.lru_cache(maxsize=4096)
def _sharing(candidates: tuple[Candidate, ...], readers: int) -> tuple[Candidate, ...]:
    """The same, where the weights come from memory for the first of their readers only: each has
    its part of that.
    """
    return tuple(_with_part(candidate, readers) for candidate in candidates)


def _with_part(candidate: Candidate, readers: int) -> Candidate:
    cost = replace(candidate.cost, constant_bytes=candidate.cost.constant_bytes / readers)
    make = functools.cache(lambda: replace(candidate.make(), cost=cost))
    return replace(candidate, cost=cost, make=make)


def _named(design: Design, node: Node, graph: Graph) -> Variant:
    """The design with this node's tensors; constants that it wants packed get other names."""
    operands = list(node.inputs)
    packed: dict[str, Callable[[], Array]] = {}
    packed_bytes: dict[str, int] = {}
    for slot, packing in design.packings.items():
        weight = node.inputs[slot]
        operands[slot] = f"{weight}#{packing.label}"
        packed[operands[slot]] = functools.partial(packing.pack, graph.constants[weight])
        packed_bytes[operands[slot]] = packing.nbytes
    reads: dict[str, Boxes] = {}
    for slot, boxes in design.reads.items():
        if slot not in design.packings:
            name = operands[slot]
            reads[name] = reads[name].merged(boxes) if name in reads else boxes
    output = node.outputs[0]
    writes = {output: design.writes}
    operands.append(output)
    return Variant(
        design.body,
        design.tasks,
        tuple(operands),
        reads,
        writes,
        design.cost,
        packed,
        packed_bytes,
    )
