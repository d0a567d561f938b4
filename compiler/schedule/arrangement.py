"""What policies share: who depends on whom, and which vEU takes how many rTasks of what.

An Arrangement says where everything runs and in which order, and nothing about waiting; a policy
makes a Plan of it by adding the synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.device import VDevice
from ramforge.compiler.expressions.regions import Ints
from ramforge.compiler.plan import Kind, Part
from ramforge.compiler.rprogram import ROperator

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """Which lanes run an rOperator: lane ``lane[i]`` takes ``count[i]`` tasks from ``first[i]`` on.

    Lanes ascend, and so do their tasks.
    """

    lane: Ints
    first: Ints
    count: Ints

    def entries(self, kind: Kind, what: int) -> Part:
        return Part(kind, what, self.lane, self.first, self.count)


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One launch in the making: its waves of rOperators, in order, on a vDevice of its own."""

    device: VDevice
    waves: tuple[tuple[int, ...], ...]

    @property
    def operators(self) -> tuple[int, ...]:
        """All rOperators, in the order in which a lane runs them."""
        return tuple(number for wave in self.waves for number in wave)


@dataclass(frozen=True, slots=True, eq=False)
class Need:
    """What the lanes of an rOperator need of another one: for each entry of its share the tasks
    from ``span[0]`` to ``span[1]``, none where these are equal; all of it if there is no span.
    """

    source: int
    span: tuple[Ints, Ints] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Needs:
    """What rOperators need of each other where no barrier keeps their waves apart.

    ``reads`` are the sources of what each of them reads, as far as they run in the same stage, the
    latest first; ``periods`` gives sizes of groups that follow how the tasks of one of them go
    through what it writes. ``begin_ns`` and ``end_ns`` say when it should run, from the start of
    its stage.
    """

    reads: Mapping[int, Sequence[Need]]
    periods: Callable[[int], set[int]]
    stage: Sequence[int]
    begin_ns: Sequence[float]
    end_ns: Sequence[float]

    def wait_ns(self, writer: int, user: int) -> float:
        """How much longer the writer is predicted to wait if it has to for the user to be done.

        Never quite nothing, unless it waits for all of that anyway: its first tasks may be early.
        """
        if self.stage[user] != self.stage[writer]:
            return 0.0
        if any(need.source == user and need.span is None for need in self.reads[writer]):
            return 0.0
        return max(self.end_ns[user] - self.begin_ns[writer], 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """Stages one after the other, and the share of each rOperator; what they need of each other, if
    the policy does without barriers between waves.
    """

    stages: tuple[Stage, ...]
    shares: tuple[Share, ...]
    needs: Needs | None = None

    @property
    def steps(self) -> tuple[int, ...]:
        """The number of each rOperator's wave, counted over all stages."""
        found = [0] * len(self.shares)
        waves = (wave for stage in self.stages for wave in stage.waves)
        for step, wave in enumerate(waves):
            for number in wave:
                found[number] = step
        return tuple(found)


def writers(operators: Sequence[ROperator]) -> dict[str, int]:
    """The rOperator that writes each tensor."""
    return {name: i for i, operator in enumerate(operators) for name in operator.variant.writes}


def dependencies(reads: Sequence[Iterable[str]], writes: Sequence[Iterable[str]]) -> nx.DiGraph:
    """The graph of rOperators by what they read and write, an edge from the writer of a tensor to
    each reader. Computed, never declared.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(reads)))
    writer = {name: number for number, names in enumerate(writes) for name in names}
    graph.add_edges_from(
        (writer[name], number)
        for number, names in enumerate(reads)
        for name in names
        if name in writer
    )
    return graph


def levels(reads: Sequence[Iterable[str]], writes: Sequence[Iterable[str]]) -> list[list[int]]:
    """The breadth-first fringes: every rOperator as early as what it reads allows."""
    return [sorted(fringe) for fringe in nx.topological_generations(dependencies(reads, writes))]


def place(tasks: int, task_ns: float, ready: Times, not_before: float = 0.0) -> Share:
    """Give each task to the vEU that can start it earliest, the lower number first.

    ``ready`` is when each vEU is free, and is brought up to date.
    """
    start = np.maximum(ready, not_before)
    counts = _turns(tasks, task_ns, start)
    lane = np.flatnonzero(counts)
    taken = counts[lane]
    ready[lane] = start[lane] + taken * task_ns
    return Share(lane, np.cumsum(taken) - taken, taken)


def _turns(tasks: int, task_ns: float, start: Times) -> Ints:
    """How many tasks each vEU gets."""
    if tasks <= len(start):
        first = np.argsort(start, kind="stable")[:tasks]
        if start[first[-1]] < start[first[0]] + task_ns:  # nobody could start a second one sooner
            counts = np.zeros(len(start), dtype=np.int64)
            counts[first] = 1
            return counts
    counts = _level(tasks, task_ns, start)
    left = tasks - int(counts.sum())
    if left:  # the last few, one by one in the order of their starts
        rounds = -(-left // len(start)) + 2
        turns = (start + counts * task_ns)[:, None] + np.arange(rounds) * task_ns
        chosen = np.argsort(turns, axis=None, kind="stable")[:left]
        counts += np.bincount(chosen // rounds, minlength=len(start))
    return counts


def _level(tasks: int, task_ns: float, start: Times) -> Ints:
    """What each vEU gets for certain: whole tasks up to a level that all of them together fill."""
    if task_ns <= 0:
        return np.zeros(len(start), dtype=np.int64)
    ordered = np.sort(start)
    busy = np.arange(1, len(start) + 1)
    level = (tasks * task_ns + np.cumsum(ordered)) / busy
    used = int(np.flatnonzero(level >= ordered)[-1])
    whole: Ints = np.floor((level[used] - start) / task_ns).astype(np.int64)
    return np.maximum(whole - 1, 0)
