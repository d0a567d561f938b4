"""The whole compiler as one ordered list of passes, and what comes after them.

The order, and why:

1. ``fold_batch_norm`` while convolutions and their weights are still ONNX nodes.
2. ``express``: from here on a node is what it computes.
3. ``fold_constants``: what weights alone decide is decided now.
4. ``assign_layouts`` before fusion, because a view that is cheap in one layout is not in another.
5. ``absorb_finishes`` (pointwise tails into products) before ``inline_maps`` (movement and
pointwise into their
   readers): a bias belongs into the product, not into the transpose behind it. Then both again, for
   what the first round set free.
6. ``drop_dead`` behind each of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from ramforge.compiler import dump, printer
from ramforge.compiler.check import check_graph, check_plan
from ramforge.compiler.device import Target, VDevice
from ramforge.compiler.ir import Array, Graph
from ramforge.compiler.lower import Choose, fastest, lower
from ramforge.compiler.memory import Memory, plan_memory
from ramforge.compiler.passes.assign_layouts import assign_layouts
from ramforge.compiler.passes.drop_dead import drop_dead
from ramforge.compiler.passes.express import express
from ramforge.compiler.passes.fold_batch_norm import fold_batch_norm
from ramforge.compiler.passes.fold_constants import fold_constants
from ramforge.compiler.passes.fuse import absorb_finishes, inline_maps
from ramforge.compiler.rprogram import Plan, ROperator
from ramforge.compiler.schedule import DEFAULT_POLICY, find_policy

log = logging.getLogger("ramforge")

Pass = Callable[[Graph], Graph]

PASSES: tuple[Pass, ...] = (
    drop_dead,
    fold_batch_norm,
    express,
    drop_dead,
    fold_constants,
    assign_layouts,
    absorb_finishes,
    inline_maps,
    drop_dead,
    inline_maps,
    drop_dead,
    absorb_finishes,
    drop_dead,
)


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Everything that is rendered."""

    graph: Graph
    operators: tuple[ROperator, ...]
    plan: Plan
    memory: Memory
    device: VDevice
    libraries: tuple[str, ...]
    weights: Mapping[str, Array]

    @property
    def tasks(self) -> int:
        return sum(operator.tasks for operator in self.operators)


def optimise(graph: Graph) -> Graph:
    """All passes, each followed by the verifier."""
    check_graph(graph, "import")
    dump.write(0, "import.txt", partial(printer.graph_text, graph))
    for number, step in enumerate(PASSES, start=1):
        graph = step(graph)
        check_graph(graph, step.__name__)
        dump.write(number, f"{step.__name__}.txt", partial(printer.graph_text, graph))
    return graph


def compile_graph(
    graph: Graph, target: Target, policy: str = DEFAULT_POLICY, choose: Choose = fastest
) -> Program:
    """From an imported graph to a checked program; ``choose`` picks each node's variant."""
    schedule = find_policy(policy)
    graph = optimise(graph)
    log.debug("%d nodes after fusion", len(graph.nodes))
    lowered = lower(graph, target, choose)
    plan = schedule(lowered.operators, lowered.device)
    weights = _weights(graph, lowered.operators)
    sizes = {name: value.nbytes for name, value in weights.items()}
    memory = plan_memory(graph, lowered.operators, plan, sizes)
    check_plan(lowered.operators, plan, lowered.device, memory, graph)
    text = partial(printer.program_text, lowered.operators, plan, memory)
    dump.write(len(PASSES) + 1, "program.txt", text)
    log.debug("%d rOperators in %d waves", len(lowered.operators), plan.waves)
    return Program(
        graph, lowered.operators, plan, memory, lowered.device, lowered.libraries, weights
    )


def _weights(graph: Graph, operators: tuple[ROperator, ...]) -> dict[str, Array]:
    """Constant operands in the order of first use: the order in which the program streams them."""
    found: dict[str, Array] = {}
    for operator in operators:
        for name in operator.variant.operands:
            if name in found:
                continue
            if name in operator.variant.packed:
                found[name] = operator.variant.packed[name]()
            elif name in graph.constants:
                found[name] = graph.constants[name]
    return found
