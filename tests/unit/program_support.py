"""Small synthetic programs, and the example models brought as far as a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.compiler.check import check_plan
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import Target, VDevice, find_target
from ramforge.compiler.expressions.regions import Boxes
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import DType, Graph, Tensor
from ramforge.compiler.lower import lower
from ramforge.compiler.memory import Memory
from ramforge.compiler.pipeline import optimise, search
from ramforge.compiler.plan import Plan
from ramforge.compiler.rprogram import Body, ROperator, TaskCost, Variant
from ramforge.compiler.schedule import POLICIES
from ramforge.compiler.schedule.arrangement import Stage, levels
from ramforge.compiler.schedule.search import plan
from ramforge.compiler.schedule.simulate import Timeline
from ramforge.zoo import MODELS as MODELS

Ints = NDArray[np.int64]
INPUT = -1
INPUT_SIZE = 32
COST = AnalyticCost()


class Pattern(Enum):
    """Which part of a tensor a task reads."""

    ALL = "all of it"
    SHARE = "its own share"
    HALO = "its own share and a little of its neighbours'"
    TRANSPOSED = "the share of the task on the other side of the diagonal"
    SHUFFLED = "the share of some other task"
    STRIDED = "the first element of its share"
    BROADCAST = "the first element along the first axis, and its share of the others"
    SPARSE = "its own share if its number is even"


@dataclass(frozen=True, slots=True)
class Step:
    """One rOperator: a grid of tasks, each writing a tile of ``tile`` elements along each axis.

    ``reads`` names earlier steps (or the input) and how much of them each task reads. The tensor
    is ``spare`` elements shorter than the grid along the first axis, so that late tasks may write
    nothing. ``by_columns`` numbers the tasks column by column. A ``mirrored`` step writes a second
    tensor, with its tasks in the opposite order; whoever reads the first one reads that one too.
    """

    grid: tuple[int, ...]
    reads: tuple[tuple[int, Pattern], ...]
    tile: int = 4
    spare: int = 0
    by_columns: bool = False
    mirrored: bool = False
    prefetches: bool = False
    flops: float = 1000.0
    arena_bytes: int = 0

    @property
    def tasks(self) -> int:
        return prod(self.grid)

    @property
    def shape(self) -> tuple[int, ...]:
        first, *others = (size * self.tile for size in self.grid)
        return (max(1, first - self.spare), *others)

    def coordinates(self) -> Ints:
        """Of each task, in the grid: (tasks, rank)."""
        order = "F" if self.by_columns else "C"
        found = np.unravel_index(np.arange(self.tasks), self.grid, order=order)
        return np.stack(found, axis=1).astype(np.int64)


def vector(tasks: int, *sources: int, pattern: Pattern = Pattern.ALL, tile: int = 4,
           prefetches: bool = False, flops: float = 1000.0) -> Step:  # fmt: skip
    """A step whose tasks write a vector and read all its sources alike."""
    reads = tuple((source, pattern) for source in sources)
    return Step((tasks,), reads, tile, prefetches=prefetches, flops=flops)


def device(units: int) -> Target:
    """An H200 with this many SMs."""
    return replace(find_target("h200"), sms=units)


def program(steps: Sequence[Step]) -> tuple[tuple[ROperator, ...], Graph]:
    """Step ``i`` writes ``ti``, and ``mi`` if it is mirrored; what nobody reads is an output."""
    shapes: dict[str, tuple[int, ...]] = {"x": (INPUT_SIZE,)}
    for number, step in enumerate(steps):
        shapes |= {name: step.shape for name in names_of(number, step)}
    tensors = {name: Tensor(name, shape, DType.FLOAT32) for name, shape in shapes.items()}
    operators = tuple(_operator(number, steps, shapes) for number in range(len(steps)))
    read = {name for operator in operators for name in operator.variant.reads}
    outputs = tuple(name for name in shapes if name not in read and name != "x")
    return operators, Graph("synthetic", ("x",), outputs, (), tensors, {})


def names_of(number: int, step: Step) -> tuple[str, ...]:
    """What a step writes."""
    return (f"t{number}", f"m{number}") if step.mirrored else (f"t{number}",)


def _operator(number: int, steps: Sequence[Step], shapes: dict[str, tuple[int, ...]]) -> ROperator:
    step, reads, writes = steps[number], {}, {}
    for source, pattern in step.reads:
        names = names_of(source, steps[source]) if source != INPUT else ("x",)
        for name in names:
            reads[name] = read_boxes(step, pattern, shapes[name])
    boxes = written_boxes(step)
    for name in names_of(number, step):
        writes[name] = boxes
        boxes = Boxes(boxes.start[::-1], boxes.stop[::-1])
    body = Body("fake", f"step {number}", f"// {number}", step.arena_bytes, 0,
                "// ask" * step.prefetches)  # fmt: skip
    cost = TaskCost(step.flops, 64.0, 16.0)
    variant = Variant(body, step.tasks, (*reads, *writes), reads, writes, cost)
    return ROperator(f"step {number}", "Fake", (f"node {number}",), variant)


def written_boxes(step: Step) -> Boxes:
    start = step.coordinates() * step.tile
    limit = np.array(step.shape, dtype=np.int64)
    return Boxes(np.minimum(start, limit), np.minimum(start + step.tile, limit))


def read_boxes(step: Step, pattern: Pattern, shape: tuple[int, ...]) -> Boxes:
    """What each task reads of a tensor of this shape."""
    task = np.arange(step.tasks, dtype=np.int64)
    starts, stops = [], []
    for axis, size in enumerate(shape):
        start, stop = np.zeros_like(task), np.full_like(task, size)
        if pattern is Pattern.BROADCAST and axis == 0:
            stop = np.ones_like(task)
        elif pattern is not Pattern.ALL:
            place, parts = _share(step, pattern, axis, len(shape))
            start, stop = place * size // parts, -(-(place + 1) * size // parts)
            if pattern is Pattern.HALO:
                start, stop = np.maximum(start - 1, 0), np.minimum(stop + 1, size)
            elif pattern is Pattern.STRIDED:
                stop = np.minimum(start + 1, size)
            elif pattern is Pattern.SPARSE:
                stop = np.where(task % 2 == 0, stop, start)
        starts.append(start)
        stops.append(stop)
    return Boxes(np.stack(starts, axis=1), np.stack(stops, axis=1))


def _share(step: Step, pattern: Pattern, axis: int, rank: int) -> tuple[Ints, int]:
    """Which of how many parts of an axis each task reads."""
    task = np.arange(step.tasks, dtype=np.int64)
    place, parts = task, step.tasks
    if rank == 2 and len(step.grid) == 1 and axis == 1:
        place, parts = np.zeros_like(task), 1
    elif rank == len(step.grid) == 2:
        axis = 1 - axis if pattern is Pattern.TRANSPOSED else axis
        place, parts = step.coordinates()[:, axis], step.grid[axis]
    elif pattern is Pattern.TRANSPOSED:
        place = step.tasks - 1 - task
    if pattern is Pattern.SHUFFLED:
        place = (place * 7 + 3) % parts
    return place, parts


def random_steps(random: np.random.Generator, most_steps: int, most_tasks: int) -> list[Step]:
    """A random program: one or two axes, any pattern, some tasks that write nothing."""
    steps: list[Step] = []
    patterns = list(Pattern)
    for number in range(int(random.integers(2, most_steps + 1))):
        known = [INPUT, *range(number)]
        count = min(len(known), int(random.integers(1, 4)))
        late = known[-4:] if random.random() < 0.7 else known  # mostly what was made lately
        sources = random.choice(late, size=min(count, len(late)), replace=False)
        reads = tuple((int(s), patterns[int(random.integers(len(patterns)))]) for s in sources)
        tasks = int(random.integers(1, most_tasks + 1))
        columns = int(random.integers(1, 4))
        grid = (max(1, tasks // columns), columns) if random.random() < 0.4 else (tasks,)
        tile = int(random.choice([1, 2, 4, 16] if len(grid) == 1 else [1, 2, 4]))
        spare = int(random.integers(1, 2 * tile + 1)) if random.random() < 0.15 else 0
        flops = float(random.choice([0.0, 1e3, 1e6]))
        coin = random.random(2) < 0.5
        mirrored = bool(random.random() < 0.15)
        steps.append(Step(grid, reads, tile, spare, bool(coin[0]), mirrored, bool(coin[1]), flops))
    return steps


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """What ``check_plan`` is given, and the times that were predicted."""

    operators: tuple[ROperator, ...]
    plan: Plan
    target: Target
    memory: Memory
    graph: Graph
    timeline: Timeline

    def check(self) -> None:
        check_plan(self.operators, self.plan, self.target, self.memory, self.graph)


def stages_of(
    operators: Sequence[ROperator],
    target: Target,
    policy: str,
    cuts: Sequence[int] = (),
    blocks: Sequence[int] = (1,),
) -> tuple[Stage, ...]:
    """The waves of the program, with a new launch before each of the waves in ``cuts``; launches
    take ``blocks`` of an SM in turn.
    """
    waves = [[number] for number in range(len(operators))]
    if not POLICIES[policy].is_alone:
        reads = [tuple(operator.variant.reads) for operator in operators]
        waves = levels(reads, [tuple(operator.variant.writes) for operator in operators])
    else:
        cuts = range(1, len(waves))
    edges = sorted({0, len(waves), *(cut for cut in cuts if 0 < cut < len(waves))})
    stages = []
    for number, (start, end) in enumerate(pairwise(edges)):
        own = tuple(tuple(wave) for wave in waves[start:end])
        arena = max(operators[n].variant.arena_bytes for wave in own for n in wave)
        count = blocks[number % len(blocks)]
        stages.append(Stage(VDevice(target, target.threads, count, -(-arena // 128) * 128), own))
    return tuple(stages)


def planned(
    operators: tuple[ROperator, ...],
    graph: Graph,
    target: Target,
    policy: str = "waves",
    stages: tuple[Stage, ...] | None = None,
) -> Planned:
    """Scheduled and placed; without ``stages`` in one launch of a lane for each SM, or for per-op
    in one for each rOperator.
    """
    if stages is None:
        stages = stages_of(operators, target, policy)
    found = plan(POLICIES[policy], operators, stages, graph, target, COST, lambda _: {})
    return Planned(operators, found.plan, target, found.memory, graph, found.timeline)


def planned_steps(
    steps: Sequence[Step],
    units: int,
    policy: str = "waves",
    cuts: Sequence[int] = (),
    blocks: Sequence[int] = (1,),
) -> Planned:
    operators, graph = program(steps)
    target = device(units)
    stages = stages_of(operators, target, policy, cuts, blocks)
    return planned(operators, graph, target, policy, stages)


@cache
def optimised(model: str) -> Graph:
    dims = {"batch": 1} if model == "mlp" else {}
    return optimise(import_model(MODELS[model](), dims=dims))


@cache
def planned_model(model: str, policy: str, sms: int) -> Planned:
    target = device(sms)
    graph = optimised(model)
    lowered = lower(graph, target)
    found = search(lowered, COST).best((POLICIES[policy],))
    return Planned(found.operators, found.plan, target, found.memory, graph, found.timeline)
