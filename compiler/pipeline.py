"""The whole compiler as one ordered list of passes, and what comes after them.

The order, and why:

1. ``fold_batch_norm`` and ``multiply_integers`` while convolutions and their weights are still ONNX
   nodes.
2. ``express``: from here on a node is what it computes.
3. ``fold_constants``: what weights alone decide is decided now.
4. ``merge_gates`` while the products of gates have no ends yet. ``assign_layouts`` before fusion,
   because a view that is cheap in one layout is not in another.
5. ``absorb_finishes`` (pointwise tails into products) before ``inline_maps`` (movement and
   pointwise into their readers): a bias belongs into the product, not into the transpose behind
   it. Then both again, for what the first round set free.
6. ``hoist_scales`` when only the scale is left between a product and what it reads.
7. ``fuse_rows`` when a reduction and its readers stand alone, and ``inline_maps`` for what rows
   read then.
8. ``fuse_attention`` when scores and weights have their pointwise ends, and ``fuse_cells`` when
   gates and states are whole.
9. ``drop_dead`` behind each of them; last ``fold_the_rest``, for weights that nobody reads narrow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ramforge.compiler import dump, printer
from ramforge.compiler.check import check_graph, check_plan
from ramforge.compiler.cost import CostModel
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import PRECISIONS, THREADS, Target
from ramforge.compiler.ir import Array, DType, Graph
from ramforge.compiler.lower import Lowered, Offer, all_of_them, lower
from ramforge.compiler.memory import Memory
from ramforge.compiler.passes.assign_layouts import assign_layouts
from ramforge.compiler.passes.drop_dead import drop_dead
from ramforge.compiler.passes.express import express
from ramforge.compiler.passes.fold_batch_norm import fold_batch_norm
from ramforge.compiler.passes.fold_constants import fold_constants, fold_the_rest
from ramforge.compiler.passes.fuse import absorb_finishes, inline_maps
from ramforge.compiler.passes.fuse_attention import fuse_attention
from ramforge.compiler.passes.fuse_cells import fuse_cells
from ramforge.compiler.passes.fuse_rows import fuse_rows
from ramforge.compiler.passes.hoist_scales import hoist_scales
from ramforge.compiler.passes.merge_gates import merge_gates
from ramforge.compiler.passes.multiply_integers import multiply_integers
from ramforge.compiler.passes.shorten import shorten
from ramforge.compiler.passes.split_reductions import split_reductions
from ramforge.compiler.passes.store_factors import store_factors
from ramforge.compiler.plan import Plan
from ramforge.compiler.rprogram import ROperator
from ramforge.compiler.schedule import DEFAULT_SCHEDULE, find_policies
from ramforge.compiler.schedule.search import Scheduled, Search
from ramforge.compiler.schedule.selection import Rule
from ramforge.compiler.schedule.simulate import Timeline
from ramforge.compiler.schedule.waves import WAVES
from ramforge.compiler.splitting import choose_splits

log = logging.getLogger("ramforge")

Pass = Callable[[Graph], Graph]

PASSES: tuple[Pass, ...] = (
    drop_dead,
    fold_batch_norm,
    multiply_integers,
    express,
    drop_dead,
    fold_constants,
    merge_gates,
    assign_layouts,
    absorb_finishes,
    inline_maps,
    drop_dead,
    inline_maps,
    hoist_scales,
    drop_dead,
    fuse_rows,
    inline_maps,
    drop_dead,
    absorb_finishes,
    drop_dead,
    fuse_attention,
    fuse_cells,
    drop_dead,
    fold_the_rest,
    drop_dead,
)


_STORED_AS = {"fp16": DType.FLOAT16, "bf16": DType.BFLOAT16}


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Everything that is rendered."""

    graph: Graph
    operators: tuple[ROperator, ...]
    plan: Plan
    memory: Memory
    target: Target
    weights: Mapping[str, Array]
    timeline: Timeline

    @property
    def tasks(self) -> int:
        return sum(operator.tasks for operator in self.operators)

    @property
    def predicted_ns(self) -> float:
        return self.timeline.makespan_ns


def optimise(graph: Graph, precision: str = PRECISIONS[0]) -> Graph:
    """All passes, each that changed something followed by the verifier."""
    check_graph(graph, "import")
    dump.write(0, "import.txt", partial(printer.graph_text, graph))
    for number, step in enumerate((*PASSES, *_narrowing(precision)), start=1):
        changed = step(graph)
        if changed is not graph:
            check_graph(changed, step.__name__)
        graph = changed
        dump.write(number, f"{step.__name__}.txt", partial(printer.graph_text, graph))
    return graph


def _narrowing(precision: str) -> tuple[Pass, ...]:
    """The pass behind all others that ``precision`` asks for."""
    if precision not in _STORED_AS:
        return ()

    def narrow(graph: Graph) -> Graph:
        return store_factors(graph, _STORED_AS[precision])

    return (narrow,)


def compile_graph(
    graph: Graph,
    target: Target,
    schedule: str = DEFAULT_SCHEDULE,
    *,
    cost: CostModel | None = None,
    rule: Rule = Rule.SELECTED,
    offer: Offer = all_of_them,
) -> Program:
    """From an imported graph to a checked program.

    ``rule`` says how variants are chosen, ``offer`` which of them there are.
    """
    policies = find_policies(schedule)
    graph = optimise(graph, target.precision)
    log.debug("%d nodes after fusion", len(graph.nodes))
    cost = cost or AnalyticCost()
    tried = [
        (search(lowered, cost).best(policies, rule), lowered)
        for lowered in attempts(graph, target, cost, offer, rule)
    ]
    found, lowered = min(tried, key=_predicted) if len(tried) > 1 else tried[0]
    return finish(found, lowered)


def finish(found: Scheduled, lowered: Lowered) -> Program:
    """The program of a plan that was made for a lowered graph, once it is proven."""
    graph, target = lowered.graph, lowered.target
    operators, plan, memory = found.operators, found.plan, found.memory
    check_plan(operators, plan, target, memory, graph)
    text = partial(printer.program_text, operators, plan, memory)
    dump.write(len(PASSES) + 2, "program.txt", text)
    log.debug("%d rOperators in %d waves, by %s", len(operators), plan.waves, plan.policy)
    return Program(
        graph,
        operators,
        plan,
        memory,
        target,
        _weights(graph, operators),
        found.timeline,
    )


def attempts(
    graph: Graph,
    target: Target,
    cost: CostModel,
    offer: Offer = all_of_them,
    rule: Rule = Rule.SELECTED,
) -> tuple[Lowered, ...]:
    """The ways to cut an optimised graph into rTasks that are worth planning: as it is or with
    fewer levels, and with its long sums in parts, if some are long enough. For blocks of as many
    threads as is predicted to be best.
    """
    shorter = shorten(graph)
    graphs = (graph,) if shorter is graph else (graph, shorter)
    sizes = (target.threads,) if target.is_host else THREADS
    targets = [replace(target, threads=threads) for threads in sizes]
    found = [lower(each, device, offer) for each in graphs for device in targets]
    if not target.is_host and len(found) > 1:
        found = [min(found, key=lambda one: search(one, cost).selection(WAVES, rule).time_ns)]
    # on a core what follows waits for nobody, so levels alone do not tell
    return tuple(cut for one in found for cut in _cuts(one, cost, offer, rule))


def _cuts(whole: Lowered, cost: CostModel, offer: Offer, rule: Rule) -> tuple[Lowered, ...]:
    splits = choose_splits(whole, cost, offer) if rule is Rule.SELECTED else {}
    if not splits:
        return (whole,)
    return whole, lower(split_reductions(whole.graph, splits), whole.target, offer)


def _predicted(attempt: tuple[Scheduled, Lowered]) -> float:
    return attempt[0].timeline.makespan_ns


def search(lowered: Lowered, cost: CostModel) -> Search:
    """Everything that can be decided about a lowered graph."""
    return Search(
        lowered.graph,
        lowered.target,
        cost,
        [node.inputs for node in lowered.nodes],
        [node.outputs for node in lowered.nodes],
        lowered.candidates,
        lowered.realise,
        partial(_weight_sizes, lowered.graph),
    )


def _weights(graph: Graph, operators: Sequence[ROperator]) -> dict[str, Array]:
    """Constant operands in the order of first use: the order in which the program streams them."""
    found: dict[str, Array] = {}
    for operator in operators:
        variant = operator.variant
        for name in variant.operands:
            if name in found:
                continue
            if name in variant.packed:
                found[name] = variant.packed[name]()
            elif name in graph.constants:
                found[name] = graph.constants[name]
    return found


def _weight_sizes(graph: Graph, operators: Sequence[ROperator]) -> dict[str, int]:
    """The bytes of each of them, without making them."""
    found: dict[str, int] = {}
    for operator in operators:
        variant = operator.variant
        for name in variant.operands:
            if name in variant.packed:
                found[name] = variant.packed_bytes[name]
            elif name in graph.constants:
                found[name] = graph.constants[name].nbytes
    return found
