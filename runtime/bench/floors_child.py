"""One network on one target: what its plan takes, and what no plan can do without.

python -m ramforge.runtime.bench.floors_child net.onnx figures.json
"""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import find_target
from ramforge.compiler.expressions.regions import Boxes
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import Graph, Tensor
from ramforge.compiler.pipeline import optimise
from ramforge.compiler.rprogram import ROperator
from ramforge.compiler.schedule import POLICIES
from ramforge.compiler.schedule.arrangement import levels
from ramforge.compiler.schedule.bounds import bounds
from ramforge.runtime import predict

TARGET = "h200"
PRECISIONS = ("fp32", "fp16")
MOST_BYTES = 16 << 30  # of a process


@dataclass(frozen=True, slots=True)
class Figures:
    """``levels`` are those of the rOperators, ``chain`` the rOperators of the critical path.

    Bytes: ``least_bytes`` has each constant, input and output once; ``moved_bytes`` what each
    rOperator touches, once for all of its rTasks; ``task_bytes`` what each rTask touches.
    """

    precision: str
    roperators: int
    bodies: int
    levels: int
    chain: int
    least_bytes: int
    moved_bytes: int
    task_bytes: int
    flops: float
    floor_us: float
    critical_path_us: float
    predicted_us: float
    policy: str
    launches: int


def figures(graph: Graph, precision: str) -> Figures:
    """Of an optimised graph: the plan that is predicted to be done first, and its bounds."""
    target = find_target(TARGET).with_precision(precision)
    searches = tuple(each for _, each in predict.searches(graph, target, AnalyticCost()))
    plans = [predict.best(searches, policy) for policy in POLICIES.values()]
    search, scheduled = min(plans, key=lambda pair: pair[1].timeline.makespan_ns)
    limits = bounds(search)
    operators = scheduled.operators
    return Figures(
        precision,
        len(operators),
        len({each.variant.body.name for each in operators}),
        len(levels(search.reads, search.writes)),
        len(limits.chain),
        limits.moved_bytes,
        sum(touched_bytes(each, search.graph) for each in operators),
        sum(_task_bytes(each) for each in operators),
        limits.flops,
        round(limits.floor_ns / 1e3, 3),
        round(limits.critical_path_ns / 1e3, 3),
        round(scheduled.timeline.makespan_ns / 1e3, 3),
        scheduled.plan.policy,
        len(scheduled.plan.launches),
    )


def touched_bytes(operator: ROperator, graph: Graph) -> int:
    """What all rTasks of an rOperator read and write, by their regions; what several of them touch
    counts once. Of a table that is looked up, no more than what is looked at.
    """
    variant = operator.variant
    read = sum(_bytes(boxes, graph.tensor(name)) for name, boxes in variant.reads.items())
    read = min(read, math.ceil(variant.tasks * variant.cost.read_bytes))
    written = sum(_bytes(boxes, graph.tensor(name)) for name, boxes in variant.writes.items())
    return read + written + sum(variant.packed_bytes.values())


def _bytes(boxes: Boxes, tensor: Tensor) -> int:
    """At most all of the boxes, and at most the box around them."""
    sizes = boxes.stop - boxes.start
    present = (sizes > 0).all(axis=1)
    if not present.any():
        return 0
    each = int(sizes[present].prod(axis=1, dtype=np.int64).sum())
    around = boxes.stop[present].max(axis=0) - boxes.start[present].min(axis=0)
    return min(each, int(around.prod(dtype=np.int64))) * tensor.dtype.itemsize


def _task_bytes(operator: ROperator) -> int:
    cost = operator.variant.cost
    return math.ceil(operator.tasks * (cost.read_bytes + cost.written_bytes))


def all_figures(model: Path) -> Iterator[Figures]:
    for precision in PRECISIONS:
        yield figures(optimise(import_model(model), precision), precision)


@click.command()
@click.argument("model", type=Path)
@click.argument("output", type=Path)
def main(model: Path, output: Path) -> None:
    """Plan MODEL and write the figures to OUTPUT."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    output.write_text(json.dumps([asdict(each) for each in all_figures(model)]))


if __name__ == "__main__":
    main()
