"""Proofs: that a graph is well formed, and that a Plan is safe whatever the vEUs' relative speed.

``check_plan`` knows nothing of policies. It replays the lanes with vector clocks: entry A happens
before entry B if B's lane has waited, directly or through others, for a signal that came after A.
Then every read must come after its write, and whatever shares memory must be over before it is
overwritten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.device import VDevice
from ramforge.compiler.errors import RamforgeError
from ramforge.compiler.expressions.regions import Boxes, Ints
from ramforge.compiler.ir import Graph
from ramforge.compiler.memory import WORKSPACE, Memory
from ramforge.compiler.rprogram import Launch, Plan, ROperator, Run, Signal, Wait


class BrokenInvariant(RamforgeError):
    """The compiler made something that is not right: a bug of ours, never of the model."""


def check_graph(graph: Graph, after: str) -> None:
    """Names, order and shapes of a graph."""
    known = {*graph.inputs, *graph.constants}
    for name in (*graph.inputs, *graph.outputs, *graph.constants):
        _require(name in graph.tensors, after, f"tensor {name!r} is not described")
    for node in graph.nodes:
        for name in node.inputs:
            _require(not name or name in known, after, f"{node.name!r} reads {name!r} too early")
        for name in node.outputs:
            _require(name not in known, after, f"{node.name!r} makes {name!r} a second time")
            _require(not name or name in graph.tensors, after, f"{name!r} is not described")
            known.add(name)
        _check_computation(graph, node, after)
    missing = [name for name in graph.outputs if name not in known]
    _require(not missing, after, f"outputs {missing} are never made")
    for name, value in graph.constants.items():
        tensor = graph.tensor(name)
        _require(value.shape == tensor.shape, after, f"constant {name!r} has another shape")


def _check_computation(graph: Graph, node: object, after: str) -> None:
    from ramforge.compiler.expressions.computation import computation_of
    from ramforge.compiler.ir import Node

    assert isinstance(node, Node)
    if "computation" not in node.attrs:
        return
    computation = computation_of(node)
    output = graph.tensor(node.outputs[0])
    _require(computation.shape == output.shape, after, f"{node.name!r} computes another shape")
    _require(computation.dtype is output.dtype, after, f"{node.name!r} computes another type")
    for load in computation.loads():
        tensor = graph.tensor(node.inputs[load.slot])
        same = load.shape == tensor.shape and load.dtype is tensor.dtype
        _require(same, after, f"{node.name!r} reads {tensor.name!r} as something else")


def _require(condition: bool, where: str, message: str) -> None:
    if not condition:
        raise BrokenInvariant(f"after {where}: {message}")


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """All runs of one rOperator: where they stand, what they cover, what happened before them."""

    launch: Ints
    lane: Ints
    position: Ints
    first: Ints
    count: Ints
    clock: Ints  # (runs, lanes): how many entries of each lane are over
    latest: Ints  # (lanes): the last position on each lane, -1 where there is none
    floor: Ints  # (lanes): what at least is over when any of them starts

    def before(self, later: Runs) -> NDArray[np.bool_]:
        """A matrix (runs of self, runs of later): whether the one is over when the other starts."""
        waited = self.position[:, None] < later.clock[:, self.lane].T
        same_launch = self.launch[:, None] == later.launch[None, :]
        return np.where(same_launch, waited, self.launch[:, None] < later.launch[None, :])

    def all_before(self, later: Runs) -> bool:
        if self.launch.max() < later.launch.min():
            return True
        if self.launch.min() == later.launch.max():  # one launch, by its extremes
            return bool((self.latest < later.floor).all())
        return bool(self.before(later).all())


def check_plan(
    operators: Sequence[ROperator],
    plan: Plan,
    device: VDevice,
    memory: Memory,
    graph: Graph,
) -> None:
    """Raise ``BrokenInvariant`` unless the plan is complete, free of deadlock and free of races."""
    for number, launch in enumerate(plan.launches):
        _check_residency(number, launch, device)
        _check_entries(number, launch, operators)
    runs = _replay(operators, plan)
    _check_every_task_once(operators, runs)
    _check_reads(operators, runs)
    _check_places(operators, memory, graph)
    _check_reuse(operators, runs, _starts(plan, len(operators)), memory, graph)


def _check_residency(number: int, launch: Launch, device: VDevice) -> None:
    where = f"launch {number}"
    _require(
        len(launch.lanes) <= device.target.sms * launch.blocks_per_sm,
        where,
        f"{len(launch.lanes)} lanes cannot all be resident on {device.target.name}",
    )
    if device.target.is_host:
        return
    shared = launch.blocks_per_sm * (launch.arena_bytes + 1024)
    fits = shared <= device.target.shared_bytes_per_sm
    threads = launch.blocks_per_sm * launch.threads <= device.target.threads_per_sm
    _require(fits and threads, where, "the blocks of one SM do not fit on it")


def _check_entries(number: int, launch: Launch, operators: Sequence[ROperator]) -> None:
    """The text lists entries by rank, and a block may run several lanes: ranks must keep the order
    of each lane and put every signal before the waits for it. Then no merge of lanes can deadlock.
    """
    where = f"launch {number}"
    signalled = dict.fromkeys(range(launch.counters), -1)
    awaited: dict[int, int] = {}
    for lane_id, lane in enumerate(launch.lanes):
        rank = 0
        for entry in lane:
            _require(entry.rank >= rank, where, f"the ranks of lane {lane_id} go back")
            rank = entry.rank
            if isinstance(entry, Wait | Signal):
                known = entry.counter in signalled
                _require(known, where, f"there is no counter {entry.counter}")
                if isinstance(entry, Signal):
                    signalled[entry.counter] = max(signalled[entry.counter], rank)
                else:
                    awaited[entry.counter] = min(awaited.get(entry.counter, rank), rank)
            else:
                known = 0 <= entry.operator < len(operators)
                _require(known, where, f"there is no rOperator {entry.operator}")
                arena = operators[entry.operator].variant.body.arena_bytes
                _require(arena <= launch.arena_bytes, where, "an rTask needs a larger arena")
    late = [counter for counter, rank in awaited.items() if signalled[counter] >= rank]
    _require(not late, where, f"counters {late[:8]} are awaited before their last signal by rank")


def _replay(operators: Sequence[ROperator], plan: Plan) -> list[Runs]:
    """Run all lanes as far as they go; the clocks of every run."""
    found: list[list[tuple[int, int, int, int, int, Ints]]] = [[] for _ in operators]
    lanes = max(len(launch.lanes) for launch in plan.launches) if plan.launches else 1
    for number, launch in enumerate(plan.launches):
        _replay_launch(number, launch, lanes, found)
    return [_as_runs(rows, lanes) for rows in found]


def _replay_launch(
    number: int,
    launch: Launch,
    lanes: int,
    found: list[list[tuple[int, int, int, int, int, Ints]]],
) -> None:
    full = np.zeros(launch.counters, dtype=np.int64)
    for lane in launch.lanes:
        for entry in lane:
            if isinstance(entry, Signal):
                full[entry.counter] += 1
    done = np.zeros(launch.counters, dtype=np.int64)
    published = np.zeros((launch.counters, lanes), dtype=np.int64)
    clocks = np.zeros((len(launch.lanes), lanes), dtype=np.int64)
    positions = [0] * len(launch.lanes)
    waiting = set(range(len(launch.lanes)))
    while waiting:
        moved = False
        for lane_id in sorted(waiting):
            entries = launch.lanes[lane_id]
            clock = clocks[lane_id]
            while positions[lane_id] < len(entries):
                entry = entries[positions[lane_id]]
                if isinstance(entry, Wait):
                    whole = entry.full == full[entry.counter]
                    _require(whole, f"launch {number}", f"counter {entry.counter} is awaited "
                             f"at {entry.full} of {full[entry.counter]} signals")  # fmt: skip
                    if done[entry.counter] < entry.full:
                        break
                    np.maximum(clock, published[entry.counter], out=clock)
                elif isinstance(entry, Run):
                    row = (number, lane_id, positions[lane_id], entry.first, entry.count)
                    found[entry.operator].append((*row, clock.copy()))
                positions[lane_id] += 1
                clock[lane_id] = positions[lane_id]
                if isinstance(entry, Signal):
                    done[entry.counter] += 1
                    np.maximum(published[entry.counter], clock, out=published[entry.counter])
                moved = True
            if positions[lane_id] == len(entries):
                waiting.discard(lane_id)
        _require(
            moved or not waiting, f"launch {number}", f"lanes {sorted(waiting)[:8]} wait for ever"
        )


def _as_runs(rows: list[tuple[int, int, int, int, int, Ints]], lanes: int) -> Runs:
    table = np.array([row[:5] for row in rows], dtype=np.int64).reshape(len(rows), 5)
    clocks = np.array([row[5] for row in rows], dtype=np.int64).reshape(len(rows), lanes)
    latest = np.full(lanes, -1, dtype=np.int64)
    np.maximum.at(latest, table[:, 1], table[:, 2])
    floor = clocks.min(axis=0) if rows else np.zeros(lanes, dtype=np.int64)
    launch, lane, position, first, count = table.T
    return Runs(launch, lane, position, first, count, clocks, latest, floor)


def _check_every_task_once(operators: Sequence[ROperator], runs: Sequence[Runs]) -> None:
    for operator, own in zip(operators, runs, strict=True):
        seen = np.zeros(operator.tasks + 1, dtype=np.int64)
        inside = (own.first >= 0) & (own.count > 0) & (own.first + own.count <= operator.tasks)
        _require(bool(inside.all()), "scheduling", f"{operator.name!r} runs tasks it does not have")
        np.add.at(seen, own.first, 1)
        np.add.at(seen, own.first + own.count, -1)
        once = bool((np.cumsum(seen)[:-1] == 1).all())
        _require(once, "scheduling", f"{operator.name!r} does not run every task once")


def _check_reads(operators: Sequence[ROperator], runs: Sequence[Runs]) -> None:
    writer: dict[str, int] = {}
    for number, operator in enumerate(operators):
        for name, boxes in operator.variant.reads.items():
            if name not in writer:
                continue
            source = writer[name]
            made = operators[source].variant.writes[name]
            if runs[source].all_before(runs[number]):
                continue
            touching = _overlap(_per_run(made, runs[source]), _per_run(boxes, runs[number]))
            safe = runs[source].before(runs[number]) | ~touching
            _require(
                bool(safe.all()),
                "scheduling",
                f"{operator.name!r} may read {name!r} before {operators[source].name!r} wrote it",
            )
        for name in operator.variant.writes:
            writer[name] = number


def _per_run(boxes: Boxes, runs: Runs) -> Boxes:
    """The box around all tasks of each run."""
    order = np.argsort(runs.first)
    cuts = runs.first[order]
    start = np.minimum.reduceat(boxes.start, cuts, axis=0)
    stop = np.maximum.reduceat(boxes.stop, cuts, axis=0)
    back = np.argsort(order)
    return Boxes(start[back], stop[back])


def _overlap(a: Boxes, b: Boxes) -> NDArray[np.bool_]:
    meet = (a.start[:, None, :] < b.stop[None, :, :]) & (b.start[None, :, :] < a.stop[:, None, :])
    return np.asarray(meet.all(axis=2))


def _check_places(operators: Sequence[ROperator], memory: Memory, graph: Graph) -> None:
    """What is written lies in the workspace or is an output; what is read there was written."""
    written: set[str] = set()
    for operator in operators:
        for name in operator.variant.operands:
            place = memory.places[name]
            is_written = name in operator.variant.writes
            written.update([name] if is_written else [])
            if place.space == WORKSPACE:
                end = place.offset + graph.tensor(name).nbytes
                inside = place.offset >= 0 and end <= memory.workspace_bytes
                _require(inside, "planning memory", f"{name!r} is not inside the workspace")
                _require(name in written, "planning memory", f"{name!r} is read but never written")
            elif is_written:
                _require(
                    name in graph.outputs, "planning memory", f"{name!r} is written to no workspace"
                )


def _starts(plan: Plan, operators: int) -> list[tuple[int, int]]:
    """(launch, rank) at which each rOperator begins."""
    starts = [(len(plan.launches), 0)] * operators
    for number, launch in enumerate(plan.launches):
        for lane in launch.lanes:
            for entry in lane:
                if isinstance(entry, Run):
                    starts[entry.operator] = min(starts[entry.operator], (number, entry.rank))
    return starts


def _check_reuse(
    operators: Sequence[ROperator],
    runs: Sequence[Runs],
    starts: Sequence[tuple[int, int]],
    memory: Memory,
    graph: Graph,
) -> None:
    """Of two tensors that share bytes, all uses of the one come before the other is written.

    In each piece of memory the tensors are taken in the order in which they begin, and only
    neighbours are compared: a tensor's writer is one of its users, so the rest follows.
    """
    users: dict[str, list[int]] = {}
    writers: dict[str, int] = {}
    for number, operator in enumerate(operators):
        for name in operator.variant.operands:
            if memory.places[name].space == WORKSPACE:
                users.setdefault(name, []).append(number)
        for name in operator.variant.writes:
            writers.setdefault(name, number)
    order = sorted(users, key=lambda name: starts[writers[name]])
    for first, second in _neighbours(order, memory, graph):
        safe = all(runs[user].all_before(runs[writers[second]]) for user in users[first])
        _require(safe, "planning memory", f"{first!r} and {second!r} share memory in use")


def _neighbours(order: Sequence[str], memory: Memory, graph: Graph) -> Iterator[tuple[str, str]]:
    """Pairs of tensors of which the second is the next one to take some byte of the first."""
    spans = [(memory.places[name].offset, graph.tensor(name).nbytes) for name in order]
    cuts = np.unique([edge for start, size in spans for edge in (start, start + size)])
    last = np.full(max(len(cuts), 1), -1, dtype=np.int64)
    for number, (start, size) in enumerate(spans):
        pieces = slice(*np.searchsorted(cuts, (start, start + size)))
        for before in np.unique(last[pieces]):
            if before >= 0:
                yield order[before], order[number]
        last[pieces] = number
