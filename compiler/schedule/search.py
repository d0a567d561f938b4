"""The whole of scheduling: choose variants and stages, arrange, plan the memory, synchronise, and
of several plans take the one that is predicted to be done first.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from ramforge.compiler.cost import CostModel
from ramforge.compiler.device import Target, vdevices
from ramforge.compiler.ir import Graph
from ramforge.compiler.memory import Memory, conflicts, plan_memory
from ramforge.compiler.plan import Plan
from ramforge.compiler.rprogram import ROperator
from ramforge.compiler.schedule.arrangement import Stage, levels
from ramforge.compiler.schedule.policy import Policy
from ramforge.compiler.schedule.selection import Options, Rule, Selection, Selector, select
from ramforge.compiler.schedule.simulate import Timeline, simulate
from ramforge.compiler.schedule.waves import WAVES

# The size in bytes of each constant that these rOperators want, in the order of the file.
Sizes = Callable[[Sequence[ROperator]], Mapping[str, int]]


@dataclass(frozen=True, eq=False)
class Scheduled:
    """A plan with all that belongs to it."""

    operators: tuple[ROperator, ...]
    plan: Plan
    memory: Memory
    target: Target
    cost: CostModel

    @cached_property
    def timeline(self) -> Timeline:
        """What the plan is predicted to do."""
        return simulate(self.operators, self.plan, self.target, self.cost)


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What is to be scheduled, and by which costs."""

    graph: Graph
    target: Target
    cost: CostModel
    reads: Sequence[Sequence[str]]  # of each rOperator
    writes: Sequence[Sequence[str]]
    choices: Sequence[Options]
    realise: Callable[[tuple[int, ...]], tuple[ROperator, ...]]
    sizes: Sizes

    def best(self, policies: Sequence[Policy], rule: Rule = Rule.SELECTED) -> Scheduled:
        """The best plan of these policies; the first of those that are equally good."""
        found = []
        accepted = None
        for policy in policies:
            if policy.is_alone:
                found.append(self.plan(policy, self.selection(policy, rule)))
                continue
            accepted = accepted or self.accepted(rule)
            selection, by_waves = accepted
            found.append(by_waves if policy is WAVES else self.plan(policy, selection))
        if len(found) == 1:
            return found[0]
        return min(found, key=lambda scheduled: scheduled.timeline.makespan_ns)

    def accepted(self, rule: Rule) -> tuple[Selection, Scheduled]:
        """The variants for policies that run rOperators together, and the plan of waves that they
        make: what was selected wave by wave, if the whole of it is predicted to be better than the
        fastest variants.
        """
        selection = self.selection(WAVES, rule)
        found = selection, self.plan(WAVES, selection)
        if rule is not Rule.SELECTED:
            return found
        fastest = self.selection(WAVES, Rule.FASTEST)
        if fastest.options == selection.options:
            return found
        other = fastest, self.plan(WAVES, fastest)
        return min(found, other, key=lambda pair: pair[1].timeline.makespan_ns)

    def selection(self, policy: Policy, rule: Rule) -> Selection:
        devices = vdevices(self.target)
        if not policy.is_alone:
            waves = levels(self.reads, self.writes)
            return select(waves, self.choices, Selector(devices, self.cost, rule))
        # alone on the device the fastest is the best
        rule = Rule.FASTEST if rule is Rule.SELECTED else rule
        selector = Selector(devices, self.cost, rule)
        single = [select([[n]], self.choices, selector) for n in range(len(self.choices))]
        return Selection(
            tuple(found.options[n] for n, found in enumerate(single)),
            tuple(stage for found in single for stage in found.stages),
            sum(found.time_ns for found in single),
        )

    def plan(self, policy: Policy, selection: Selection) -> Scheduled:
        operators = self.realise(selection.options)
        return plan(
            policy, operators, selection.stages, self.graph, self.target, self.cost, self.sizes
        )


def plan(
    policy: Policy,
    operators: tuple[ROperator, ...],
    stages: tuple[Stage, ...],
    graph: Graph,
    target: Target,
    cost: CostModel,
    sizes: Sizes,
) -> Scheduled:
    """One plan by one policy for rOperators whose variants and stages are chosen."""
    with _no_collection():
        arranged = policy.arrange(operators, stages, cost)
        steps = arranged.steps
        wait = arranged.needs.wait_ns if arranged.needs else None
        memory = plan_memory(graph, operators, steps, sizes(operators), wait)
        made = policy.synchronise(operators, arranged, conflicts(memory, operators, steps))
    return Scheduled(operators, made, memory, target, cost)


@contextmanager
def _no_collection() -> Iterator[None]:
    """A large plan is hundreds of thousands of small arrays, none of them in a circle: looking for
    circles again and again takes a twentieth of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def fixed(
    operators: Sequence[ROperator], policy: Policy, target: Target, cost: CostModel
) -> tuple[Stage, ...]:
    """The stages of rOperators that have one variant each."""
    choices = [(operator.variant,) for operator in operators]
    waves = levels(
        [tuple(operator.variant.reads) for operator in operators],
        [tuple(operator.variant.writes) for operator in operators],
    )
    selector = Selector(vdevices(target), cost, Rule.FASTEST)
    if not policy.is_alone:
        return select(waves, choices, selector).stages
    stages = [
        stage for n in range(len(choices)) for stage in select([[n]], choices, selector).stages
    ]
    return tuple(stages)
