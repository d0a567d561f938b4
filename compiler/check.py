"""Proofs: that a graph is well formed, and that a Plan is safe whatever the vEUs' relative speed.

``check_plan`` knows nothing of policies. It goes through the rows with vector clocks: entry A
happens before entry B if B's lane has waited, directly or through others, for a signal that came
after A. Then every read must come after its write, and whatever shares memory must be over before
it is overwritten.

Rows are gone through in their order, and a wait whose signals have not all come by then is refused.
That is also the proof that no launch deadlocks, however few blocks run its lanes: a block that runs
several of them goes by the rows too, so the first row that is not done can always be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.clocks import Clock, Clocks
from ramforge.compiler.device import RESERVED_BYTES, Target
from ramforge.compiler.errors import RamforgeError
from ramforge.compiler.expressions.computation import computation_of
from ramforge.compiler.expressions.regions import Boxes, Ints
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.memory import WEIGHTS, WORKSPACE, Memory, Place, neighbours
from ramforge.compiler.packing import ALIGNMENT
from ramforge.compiler.plan import Entries, Kind, Launch, Plan
from ramforge.compiler.rprogram import ROperator


class BrokenInvariant(RamforgeError):
    """The compiler made something that is not right: a bug of ours, never of the model."""


def check_graph(graph: Graph, after: str) -> None:
    """Names, order and shapes of a graph."""
    known = {*graph.inputs, *graph.constants}
    for name in (*graph.inputs, *graph.outputs, *graph.constants):
        _require(name in graph.tensors, after, f"tensor {name!r} is not described")
    for node in graph.nodes:
        # conditions come first here: messages for all that is well would take longer than to look
        for name in node.inputs:
            if name and name not in known:
                _refuse(after, f"{node.name!r} reads {name!r} too early")
        for name in filter(None, node.outputs):
            if name in known:
                _refuse(after, f"{node.name!r} makes {name!r} a second time")
            if name not in graph.tensors:
                _refuse(after, f"{name!r} is not described")
            known.add(name)
        if "computation" in node.attrs:
            _check_computation(graph, node, after)
    missing = [name for name in graph.outputs if name not in known]
    _require(not missing, after, f"outputs {missing} are never made")
    for name, value in graph.constants.items():
        if value.shape != graph.tensor(name).shape:
            _refuse(after, f"constant {name!r} has another shape")


def _check_computation(graph: Graph, node: Node, after: str) -> None:
    computation = computation_of(node)
    output = graph.tensor(node.outputs[0])
    if computation.shape != output.shape:
        _refuse(after, f"{node.name!r} computes another shape")
    if computation.dtype is not output.dtype:
        _refuse(after, f"{node.name!r} computes another type")
    for load in computation.loads():
        tensor = graph.tensor(node.inputs[load.slot])
        if load.shape != tensor.shape or load.dtype is not tensor.dtype:
            _refuse(after, f"{node.name!r} reads {tensor.name!r} as something else")


def _require(condition: bool, where: str, message: str) -> None:
    if not condition:
        _refuse(where, message)


def _refuse(where: str, message: str) -> NoReturn:
    raise BrokenInvariant(f"after {where}: {message}")


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """All runs of one rOperator, by task: where they stand and what they cover.

    Rows are counted over all launches, so that a clock says of earlier launches that they are over.
    """

    lane: Ints
    row: Ints
    first: Ints
    count: Ints

    def unfinished(self, clock: Clock) -> NDArray[np.bool_]:
        """A matrix (clocks, runs): whether a run may not be over yet for who has this clock."""
        return np.asarray(clock[:, self.lane] <= self.row)


def check_plan(
    operators: Sequence[ROperator],
    plan: Plan,
    target: Target,
    memory: Memory,
    graph: Graph,
) -> None:
    """Raise ``BrokenInvariant`` unless the plan is complete, free of deadlock and free of races."""
    tasks = np.array([operator.tasks for operator in operators], dtype=np.int64)
    for number, launch in enumerate(plan.launches):
        _check_residency(number, launch, target)
        _check_rows(number, launch, operators, tasks)
        _check_signals(number, launch)
    runs = _runs(operators, plan)
    _check_every_task_once(operators, runs)
    _check_places(operators, memory, graph)
    _Replay(operators, plan, runs, memory, graph).check()


def _check_residency(number: int, launch: Launch, target: Target) -> None:
    where, shape = f"launch {number}", launch.shape
    _require(
        launch.lanes <= target.sms * shape.blocks_per_sm,
        where,
        f"{launch.lanes} lanes cannot all be resident on {target.name}",
    )
    same = shape.threads == target.threads
    _require(same, where, f"blocks of {shape.threads} threads, code for {target.threads}")
    if target.is_host:
        return
    shared = shape.blocks_per_sm * (shape.arena_bytes + RESERVED_BYTES)
    fits = shared <= target.shared_bytes_per_sm
    threads = shape.blocks_per_sm * shape.threads <= target.threads_per_sm
    _require(fits and threads, where, "the blocks of one SM do not fit on it")


def _check_rows(number: int, launch: Launch, operators: Sequence[ROperator], tasks: Ints) -> None:
    """Every row speaks of lanes, rOperators and events that there are."""
    where, rows, events = f"launch {number}", launch.rows, launch.events
    _require(bool((events.group > 0).all()), where, "a group of an event is empty")
    inside = (rows.lane >= 0) & (rows.lanes > 0) & (rows.lane + rows.lanes <= launch.lanes)
    _require(bool(inside.all()), where, "a row is not inside the lanes")
    plain = (rows.per > 0) & (rows.units > 0)
    _require(bool(plain.all()), where, "a row counts nothing")
    for kind in Kind:
        own = rows.of_kind(kind)
        is_event = kind in (Kind.WAIT, Kind.SIGNAL)
        known = len(events) if is_event else len(operators)
        wrong = rows.what[own][(rows.what[own] < 0) | (rows.what[own] >= known)]
        name = "event" if is_event else "rOperator"
        _require(not len(wrong), where, f"there is no {name} {wrong[:1].tolist()}")
        entries = rows.spread(own)
        if is_event:
            limit = events.groups * events.group if kind is Kind.WAIT else events.size
        else:
            limit = tasks
        within = (entries.first >= 0) & (entries.first + entries.units <= limit[entries.what])
        _require(bool(within.all()), where, f"a {kind.name} goes beyond what there is")
    for what in np.unique(rows.what[rows.of_kind(Kind.RUN)]):
        arena = operators[what].variant.body.arena_bytes
        _require(arena <= launch.shape.arena_bytes, where, "an rTask needs a larger arena")


def _check_signals(number: int, launch: Launch) -> None:
    """Every counter that is awaited becomes full with its last signal, in an earlier row: so a wait
    ends, and only when all of them have come.
    """
    where, events = f"launch {number}", launch.events
    missing, last = _signalled(launch)
    waits = launch.rows.spread(launch.rows.of_kind(Kind.WAIT))
    if not len(waits.row):
        return
    begin = (np.cumsum(events.groups) - events.groups)[waits.what]
    low, high = waits.groups(events.group[waits.what])
    spans = np.stack([begin + low, begin + high], axis=1).ravel()
    wrong = np.append(0, np.cumsum(missing != 0))[spans]
    never = waits.what[wrong[1::2] > wrong[::2]][:1].tolist()
    _require(not never, where, f"event {never} is not signalled as often as it is awaited for")
    latest = np.maximum.reduceat(np.append(last, -1), spans)[::2]
    late = waits.what[latest >= waits.row][:1].tolist()
    _require(not late, where, f"event {late} is awaited before its last signal")


def _signalled(launch: Launch) -> tuple[Ints, Ints]:
    """For each counter how many signals too few it gets, and the row of the last of them."""
    events = launch.events
    begin = np.cumsum(events.groups) - events.groups
    missing = np.repeat(events.group, events.groups)
    last = np.full(events.counters, -1, dtype=np.int64)
    signals = launch.rows.spread(launch.rows.of_kind(Kind.SIGNAL))
    group, size = events.group[signals.what], events.size[signals.what]
    low, high = signals.groups(group)
    end = signals.first + signals.units
    # whoever does the last unit of an event stands for those that its last group lacks
    end = np.where(end == size, events.groups[signals.what] * group, end)
    for place in range(int((high - low).max(initial=0))):
        some = low + place < high
        counter = low[some] + place
        from_, to = counter * group[some], (counter + 1) * group[some]
        own = np.minimum(end[some], to) - np.maximum(signals.first[some], from_)
        counter += begin[signals.what[some]]
        np.subtract.at(missing, counter, own)
        np.maximum.at(last, counter, signals.row[some])
    return missing, last


def _runs(operators: Sequence[ROperator], plan: Plan) -> list[Runs]:
    """The runs of each rOperator, in the order of their tasks."""
    parts, offset = [], 0
    for launch in plan.launches:
        entries = launch.rows.spread(launch.rows.of_kind(Kind.RUN))
        parts.append((entries.what, entries.lane, entries.row + offset, entries.first,
                      entries.units))  # fmt: skip
        offset += len(launch.rows)
    what, *columns = (
        np.concatenate([part[i] for part in parts] or [np.zeros(0, np.int64)]) for i in range(5)
    )
    columns = columns or [what] * 4
    order = np.lexsort((columns[2], what))
    cuts = np.searchsorted(what[order], np.arange(len(operators) + 1))
    ordered = [column[order] for column in columns]
    return [
        Runs(*(column[cuts[n] : cuts[n + 1]] for column in ordered)) for n in range(len(operators))
    ]


def _check_every_task_once(operators: Sequence[ROperator], runs: Sequence[Runs]) -> None:
    for operator, own in zip(operators, runs, strict=True):
        ends = own.first + own.count
        once = len(own.first) > 0 and own.first[0] == 0 and ends[-1] == operator.tasks
        once = once and bool((own.first[1:] == ends[:-1]).all())
        _require(once, "scheduling", f"{operator.name!r} does not run every task once")


def _check_places(operators: Sequence[ROperator], memory: Memory, graph: Graph) -> None:
    """What is written lies in the workspace or is an output; what is read there was written."""
    outside = {
        name: Place(WEIGHTS + 1 + number, 0)
        for number, name in enumerate((*graph.inputs, *graph.outputs))
    }
    moved = [name for name, place in outside.items() if memory.places[name] != place]
    _require(not moved, "planning memory", f"the caller looks for {moved} elsewhere")
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
                aligned = place.offset % ALIGNMENT == 0
                _require(aligned, "planning memory", f"{name!r} does not begin on a boundary")
                _require(name in written, "planning memory", f"{name!r} is read but never written")
            elif is_written:
                _require(
                    name in graph.outputs, "planning memory", f"{name!r} is written to no workspace"
                )


class _Replay:
    """Goes through all rows once, and looks at each rOperator when its last run begins."""

    def __init__(
        self,
        operators: Sequence[ROperator],
        plan: Plan,
        runs: Sequence[Runs],
        memory: Memory,
        graph: Graph,
    ) -> None:
        self._operators = operators
        self._plan = plan
        self._runs = runs
        self._lanes = max((launch.lanes for launch in plan.launches), default=1)
        # of each rOperator and lane the last row in which it runs there, -1 where it does not
        self._last = np.full((len(operators), self._lanes), -1, dtype=np.int32)
        for number, own in enumerate(runs):
            np.maximum.at(self._last[number], own.lane, own.row.astype(np.int32))
        self._writer: dict[str, int] = {}
        for number, operator in enumerate(operators):
            for name in operator.variant.writes:
                self._writer.setdefault(name, number)
        self._made: dict[str, Boxes] = {}  # what each run of the writer writes
        self._reused = self._reuse(memory, graph)

    def check(self) -> None:
        left = [len(own.row) for own in self._runs]
        seen: dict[int, list[tuple[Ints, Clock]]] = {}  # first tasks, clocks as their runs begin
        offset = 0
        for launch in self._plan.launches:
            state = _LaunchState(launch, self._lanes, offset)
            for kind, what, entries in launch.rows.batches():
                if kind is Kind.RUN:
                    clock = state.clocks.over[entries.lane]
                    seen.setdefault(what, []).append((entries.first, clock))
                    left[what] -= len(entries.lane)
                    if not left[what]:
                        self._look_at(what, seen.pop(what))
                state.do(kind, what, entries)
            offset += len(launch.rows)

    def _look_at(self, number: int, seen: list[tuple[Ints, Clock]]) -> None:
        """Everything that an rOperator touches has to be ready for it."""
        clock = seen[0][1]
        if len(seen) > 1:
            first = np.concatenate([first for first, _ in seen])
            clock = np.concatenate([part for _, part in seen])[np.argsort(first)]
        else:
            clock = clock[np.argsort(seen[0][0], kind="stable")]
        floor = clock.min(axis=0)  # what is over for all of its runs
        for name, boxes in self._operators[number].variant.reads.items():
            source = self._writer.get(name)
            if source is not None and not (floor > self._last[source]).all():
                self._check_read(number, name, boxes, clock)
        for first_tensor, second in self._reused.get(number, ()):
            users = self._last[self._users[first_tensor]].max(axis=0)
            safe = bool((floor > users).all())
            _require(
                safe, "planning memory", f"{first_tensor!r} and {second!r} share memory in use"
            )

    def _check_read(self, number: int, name: str, boxes: Boxes, clock: Clock) -> None:
        source = self._writer[name]
        own, other = self._runs[number], self._runs[source]
        written = self._operators[source].variant.writes[name]
        if name not in self._made:
            self._made[name] = written.around(other.first)
        doubtful = other.unfinished(clock)
        _meeting(doubtful, boxes.around(own.first), self._made[name])
        if not doubtful.any():
            return
        for run, behind in zip(*np.nonzero(doubtful), strict=True):
            # the boxes around whole runs meet; whether those of single tasks do decides
            mine, others = _tasks(boxes, own, int(run)), _tasks(written, other, int(behind))
            meets = np.ones((mine.tasks, others.tasks), dtype=np.bool_)
            _meeting(meets, mine, others)
            _require(
                not meets.any(),
                "scheduling",
                f"{self._operators[number].name!r} may read {name!r} before "
                f"{self._operators[source].name!r} wrote it",
            )

    def _reuse(self, memory: Memory, graph: Graph) -> dict[int, list[tuple[str, str]]]:
        """For each rOperator the pairs of tensors of which it writes the second where the first
        lay.
        """
        self._users: dict[str, list[int]] = {}
        for number, operator in enumerate(self._operators):
            for name in operator.variant.operands:
                if memory.places[name].space == WORKSPACE:
                    self._users.setdefault(name, []).append(number)
        begins = [int(own.row.min()) for own in self._runs]
        order = sorted(self._users, key=lambda name: begins[self._writer[name]])
        sizes = {name: graph.tensor(name).nbytes for name in order}
        found: dict[int, list[tuple[str, str]]] = {}
        for first, second in neighbours(order, memory.places, sizes):
            found.setdefault(self._writer[second], []).append((first, second))
        return found


class _LaunchState:
    """The clocks of one launch."""

    def __init__(self, launch: Launch, lanes: int, offset: int) -> None:
        self._events = launch.events
        self._offset = offset
        self.clocks = Clocks(lanes, offset)
        waits = launch.rows.of_kind(Kind.WAIT)
        self._last_wait = dict(zip(launch.rows.what[waits].tolist(), waits.tolist(), strict=True))

    def do(self, kind: Kind, what: int, entries: Entries) -> None:
        if kind is Kind.WAIT:
            self.clocks.wait(what, int(self._events.group[what]), entries)
            if self._last_wait[what] == entries.row[-1]:
                self.clocks.forget(what)
        elif kind is Kind.SIGNAL and what in self._last_wait:
            groups, group = int(self._events.groups[what]), int(self._events.group[what])
            self.clocks.signal(what, groups, group, entries)
        self.clocks.pass_rows(entries, self._offset)


def _tasks(boxes: Boxes, runs: Runs, run: int) -> Boxes:
    own = slice(int(runs.first[run]), int(runs.first[run] + runs.count[run]))
    return Boxes(boxes.start[own], boxes.stop[own])


def _meeting(pairs: NDArray[np.bool_], a: Boxes, b: Boxes) -> None:
    """Of the pairs (a, b) keep those that have a cell in common."""
    for axis in range(a.start.shape[1]):
        pairs &= a.start[:, axis, None] < b.stop[:, axis]
        pairs &= b.start[:, axis] < a.stop[:, axis, None]
    # nothing meets an empty box, whatever lies around it
    pairs &= np.all(a.start < a.stop, axis=1, keepdims=True) & np.all(b.start < b.stop, axis=1)
