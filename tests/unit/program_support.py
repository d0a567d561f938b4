"""Small synthetic programs, and the example models brought as far as a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

import ramforge.kernels  # noqa: F401  (fills the registry)
from examples.models import MODELS as MODELS
from ramforge.compiler.check import check_plan
from ramforge.compiler.device import VDevice, find_target
from ramforge.compiler.expressions.regions import Boxes
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import DType, Graph, Tensor
from ramforge.compiler.lower import lower
from ramforge.compiler.memory import Memory, plan_memory
from ramforge.compiler.pipeline import optimise
from ramforge.compiler.rprogram import Body, Plan, ROperator, TaskCost, Variant
from ramforge.compiler.schedule import find_policy

ELEMENTS_PER_TASK = 4


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """What ``check_plan`` is given."""

    operators: tuple[ROperator, ...]
    plan: Plan
    device: VDevice
    memory: Memory
    graph: Graph

    def check(self) -> None:
        check_plan(self.operators, self.plan, self.device, self.memory, self.graph)


@dataclass(frozen=True, slots=True)
class Step:
    """One rOperator: its tasks, the steps that it reads (-1 the input), and whether each of its
    tasks reads all of them, or only its own share.
    """

    tasks: int
    reads: tuple[int, ...]
    reads_all: bool = True
    prefetches: bool = False


def device(units: int) -> VDevice:
    return VDevice(replace(find_target("h200"), sms=units), 256, 1, 0)


def boxes(starts: Sequence[int], stops: Sequence[int]) -> Boxes:
    return Boxes(np.array(starts, np.int64)[:, None], np.array(stops, np.int64)[:, None])


def program(steps: Sequence[Step]) -> tuple[tuple[ROperator, ...], Graph]:
    """Step ``i`` writes the vector ``ti``; what nobody reads is an output."""
    sizes = {"x": ELEMENTS_PER_TASK * 8}
    sizes |= {f"t{number}": step.tasks * ELEMENTS_PER_TASK for number, step in enumerate(steps)}
    tensors = {name: Tensor(name, (size,), DType.FLOAT32) for name, size in sizes.items()}
    operators = tuple(_operator(number, step, sizes) for number, step in enumerate(steps))
    read = {name for operator in operators for name in operator.variant.reads}
    outputs = tuple(name for name in sizes if name not in read and name != "x")
    return operators, Graph("synthetic", ("x",), outputs, (), tensors, {})


def _operator(number: int, step: Step, sizes: Mapping[str, int]) -> ROperator:
    reads: dict[str, Boxes] = {}
    for source in step.reads:
        name = f"t{source}" if source >= 0 else "x"
        share = -(-sizes[name] // step.tasks)
        starts = [0 if step.reads_all else task * share for task in range(step.tasks)]
        stops = [sizes[name] if step.reads_all else start + share for start in starts]
        size = sizes[name]
        reads[name] = boxes([min(s, size) for s in starts], [min(s, size) for s in stops])
    own = [task * ELEMENTS_PER_TASK for task in range(step.tasks)]
    writes = {f"t{number}": boxes(own, [start + ELEMENTS_PER_TASK for start in own])}
    body = Body("fake", f"step {number}", f"// {number}", 0, 0, "// ask" * step.prefetches)
    cost = TaskCost(1000.0, 64.0, 16.0)
    variant = Variant(body, step.tasks, (*reads, *writes), reads, writes, cost)
    return ROperator(f"step {number}", "Fake", (f"node {number}",), variant)


def random_steps(random: np.random.Generator, most_steps: int, most_tasks: int) -> list[Step]:
    steps: list[Step] = []
    for number in range(int(random.integers(2, most_steps + 1))):
        known = [-1, *range(number)]
        count = min(len(known), int(random.integers(1, 3)))
        reads = random.choice(known, size=count, replace=False)
        tasks = int(random.integers(1, most_tasks + 1))
        kinds = random.random(2) < 0.5
        steps.append(Step(tasks, tuple(int(r) for r in reads), bool(kinds[0]), bool(kinds[1])))
    return steps


def planned(
    operators: tuple[ROperator, ...], graph: Graph, on: VDevice, policy: str = "waves"
) -> Planned:
    """Scheduled and placed; constants count as 64 bytes each, so that none has to be packed."""
    plan = find_policy(policy)(operators, on)
    written = {name for operator in operators for name in operator.variant.writes}
    constants = {
        name: 64
        for operator in operators
        for name in operator.variant.operands
        if name not in written and name not in graph.inputs
    }
    return Planned(operators, plan, on, plan_memory(graph, operators, plan, constants), graph)


@cache
def optimised(model: str) -> Graph:
    dims = {"batch": 1} if model == "mlp" else {}
    return optimise(import_model(MODELS[model](), dims=dims))


@cache
def planned_model(model: str, policy: str, sms: int) -> Planned:
    target = replace(find_target("h200"), sms=sms)
    graph = optimised(model)
    lowered = lower(graph, target)
    return planned(lowered.operators, graph, lowered.device, policy)
