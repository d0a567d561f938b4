"""From graph to rOperators: for each node the family that fits, its variants, and the one that is
chosen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from ramforge.compiler import registry
from ramforge.compiler.cost import CostModel
from ramforge.compiler.cost.analytic import AnalyticCost, alone_ns
from ramforge.compiler.device import Target, VDevice, vdevice
from ramforge.compiler.errors import CompileError
from ramforge.compiler.expressions.placed import place
from ramforge.compiler.expressions.regions import Boxes
from ramforge.compiler.ir import Array, Graph, Node
from ramforge.compiler.rprogram import Candidate, Design, ROperator, Variant


@dataclass(frozen=True, slots=True, eq=False)
class Lowered:
    """The rOperators of a graph in topological order, and the device they are meant for."""

    operators: tuple[ROperator, ...]
    device: VDevice
    libraries: tuple[str, ...]


Choose = Callable[[tuple[Candidate, ...], Target], Candidate]


@functools.lru_cache(maxsize=8192)
def fastest(candidates: tuple[Candidate, ...], target: Target) -> Candidate:
    """The candidate that is predicted to take the least time alone on the device."""
    cost = AnalyticCost()
    return min(candidates, key=lambda candidate: _time(candidate, target, cost))


def lower(graph: Graph, target: Target, choose: Choose = fastest) -> Lowered:
    operators: list[ROperator] = []
    libraries: list[str] = []
    for node in graph.nodes:
        if graph.tensor(node.outputs[0]).size == 0:
            continue  # nothing to compute
        placed = place(node, graph)
        design = choose(registry.candidates_of(placed, target), target).make()
        operators.append(ROperator(node.name, node.op, node.origin, _named(design, node, graph)))
        family = registry.family_of(placed)
        if family.library and family.library not in libraries:
            libraries.append(family.library)
    device = vdevice(target, _largest_arena(operators, target))
    return Lowered(tuple(operators), device, tuple(sorted(libraries)))


def _named(design: Design, node: Node, graph: Graph) -> Variant:
    """The design with this node's tensors; constants that it wants packed get other names."""
    operands = list(node.inputs)
    packed: dict[str, Callable[[], Array]] = {}
    for slot, packing in design.packings.items():
        weight = node.inputs[slot]
        operands[slot] = f"{weight}#{packing.label}"
        packed[operands[slot]] = functools.partial(packing.pack, graph.constants[weight])
    reads: dict[str, Boxes] = {}
    for slot, boxes in design.reads.items():
        if slot not in design.packings:
            name = operands[slot]
            reads[name] = reads[name].merged(boxes) if name in reads else boxes
    output = node.outputs[0]
    writes = {output: design.writes}
    return Variant(
        design.body, design.tasks, (*operands, output), reads, writes, design.cost, packed
    )


def _time(candidate: Candidate, target: Target, cost: CostModel) -> float:
    return alone_ns(cost, candidate, vdevice(target, candidate.arena_bytes))


def _largest_arena(operators: list[ROperator], target: Target) -> int:
    largest = max((op.variant.body.arena_bytes for op in operators), default=0)
    if not target.is_host and largest > target.shared_bytes_per_block:
        worst = max(operators, key=lambda op: op.variant.body.arena_bytes)
        raise CompileError(
            f"{worst.name!r} needs {largest} bytes of shared memory a block, {target.name} has "
            f"{target.shared_bytes_per_block}\n    fix: choose a larger --target"
        )
    return -(-largest // 128) * 128
