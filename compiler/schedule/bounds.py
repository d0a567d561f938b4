"""What plans are measured against: a floor that none can beat, and the longest chain of rOperators.

Input: a Search, output: figures in nanoseconds. Nothing here looks at a plan.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from ramforge.compiler.device import vdevices
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Cell, Computation, Scores, computation_of
from ramforge.compiler.expressions.rows import as_row
from ramforge.compiler.expressions.terms import Apply, Expr
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.schedule.arrangement import dependencies
from ramforge.compiler.schedule.search import Search
from ramforge.compiler.schedule.selection import Options

_FACTORS = {"tf32": "tf32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """``chain`` are the rOperators of the critical path, the first of them first."""

    flops: float
    moved_bytes: int
    flops_ns: float
    bytes_ns: float
    launch_ns: float
    critical_path_ns: float
    chain: tuple[int, ...]

    @property
    def floor_ns(self) -> float:
        """All arithmetic at the peak rate of the device's products, or each constant, input and
        output once through its memory, whatever takes longer; and one launch. It knows nothing of
        an L2 that is still warm from the run before.
        """
        return self.launch_ns + max(self.flops_ns, self.bytes_ns)


def bounds(search: Search) -> Bounds:
    target = search.target
    flops, moved = useful_flops(search.graph), moved_bytes(search.graph)
    rate = target.sms * target.fp32_flops_per_cycle_per_sm * target.clock_mhz * 1e-3
    rate *= target.speedup(_FACTORS.get(target.precision, ""))
    path_ns, chain = _critical_path(search)
    return Bounds(
        flops,
        moved,
        flops / rate,
        moved / target.memory_gb_per_s,
        target.launch_ns,
        path_ns,
        chain,
    )


def useful_flops(graph: Graph) -> float:
    """Floating-point operations of all computations, without those that fill up tiles."""
    found = 0.0
    for node in graph.nodes:
        computation = computation_of(node)
        size = graph.tensor(node.outputs[0]).size
        if computation.is_row:
            found += size * _row_operations(as_row(computation))
            continue
        if computation.cell is not None:
            found += _cell_flops(computation, computation.cell, size)
            continue
        finish = 0 if computation.finish is None else _operations(computation.finish)
        combine = 0 if computation.is_map else 1
        found += _positions(computation, size) * (_operations(computation.value) + combine)
        found += size * finish
        if computation.scores is not None:
            found += _scores_flops(computation, computation.scores)
    return found


def _cell_flops(computation: Computation, cell: Cell, size: int) -> float:
    places = size // len(cell.results)
    sums = cell.part.size * 2 * computation.reduction_size
    return float(places * (sums + sum(map(_operations, cell.results))))


def _row_operations(row: Computation) -> int:
    """For each element: what several folds have in common is worked out once."""
    parts = {part for expr in row.expressions() for part in expr.walk()}
    return len(row.folds) + sum(isinstance(p, Apply) and p.dtype.is_float for p in parts)


def _scores_flops(computation: Computation, scores: Scores) -> float:
    """Scores are worked out once for all columns; a weight takes another two operations."""
    assert computation.roles is not None
    count = computation.reduction_size
    for var in computation.axes:
        count *= 1 if var in computation.roles.columns else var.size
    depth = math.prod(var.size for var in scores.reduction)
    each = depth * (_operations(scores.value) + 1) + _operations(scores.finish) + 2
    return float(count * each)


def moved_bytes(graph: Graph) -> int:
    """What has to come from memory or go there: the constants and inputs, as far as something reads
    them, and the outputs.
    """
    touched: Counter[str] = Counter()
    for node in graph.nodes:
        computation = computation_of(node)
        positions = _positions(computation, graph.tensor(node.outputs[0]).size)
        for load in computation.loads():
            name = node.inputs[load.slot]
            touched[name] += positions * graph.tensor(name).dtype.itemsize
    sources = [name for name in touched if name in graph.constants or name in graph.inputs]
    read = sum(min(graph.tensor(name).nbytes, touched[name]) for name in sources)
    return read + sum(graph.tensor(name).nbytes for name in graph.outputs)


def _positions(computation: Computation, size: int) -> int:
    """How often the value is worked out; the rows of a row kind are axes of the output already."""
    return size if computation.is_row else size * computation.reduction_size


def _operations(expr: Expr) -> int:
    """Without those that widen or narrow a number."""
    return sum(
        isinstance(part, Apply) and part.dtype.is_float and part.name != "cast"
        for part in expr.walk()
    )


def _critical_path(search: Search) -> tuple[float, tuple[int, ...]]:
    """The longest chain of rOperators on a device with any number of vEUs: one rTask of each, in
    its quickest variant, and an event between two of them.

    Who reads what a single rTask writes, or reads it without folding over it, may stay on the vEU
    and is spared the event. Even so it is no strict bound: tiles so wide that a fold needs but one
    of them are spared the event as well.
    """
    sync = search.cost.sync(search.target)
    quickest: dict[Options, float] = {}
    for options in search.choices:
        if options not in quickest:
            quickest[options] = _quickest_ns(search, options)
    graph = dependencies(search.reads, search.writes)
    producers = search.graph.producers()
    folded = [_folded(producers[names[0]]) for names in search.writes]
    ends: list[float] = []
    came: list[int] = []
    for number, options in enumerate(search.choices):
        latest, source = 0.0, -1
        for other in graph.predecessors(number):
            stays = folded[number].isdisjoint(search.writes[other]) or any(
                option.tasks == 1 for option in search.choices[other]
            )
            there = ends[other] + (0.0 if stays else sync.event_ns)
            if there > latest:
                latest, source = there, other
        ends.append(latest + quickest[options])
        came.append(source)
    chain = [max(range(len(ends)), key=ends.__getitem__)] if ends else []
    while chain and came[chain[-1]] >= 0:
        chain.append(came[chain[-1]])
    return sync.launch_ns + max(ends, default=0.0), tuple(reversed(chain))


def _folded(node: Node) -> set[str]:
    """The tensors of which one element of the output needs many."""
    computation = computation_of(node)
    return {
        node.inputs[load.slot]
        for expr in computation.summed
        for load in terms.loads_of(expr)
        if any(set(computation.folded) & ix.variables(index) for index in load.indices)
    }


def _quickest_ns(search: Search, options: Options) -> float:
    """One rTask with the device to itself."""
    return min(
        search.cost.task_ns(option, device, 1)
        for option in options
        for device in vdevices(search.target)
        if device.holds(option.arena_bytes, option.registers)
    )
