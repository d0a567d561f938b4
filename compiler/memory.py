"""Where every tensor lives: one workspace for all that lives between rOperators, by lifetimes.

A buffer belongs to an alias set of tensors (today always one; a cache that is input and output at
once will be two). Two buffers may share memory if one is dead in every step in which the other
lives. Where steps are not kept apart by barriers the writer of the later one has to wait for the
users of the earlier one: ``conflicts`` says for whom. Offsets are chosen so that it seldom waits
for longer than it would anyway, as far as the workspace stays within ``SPARE`` of what lives at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ramforge.compiler.ir import Graph
from ramforge.compiler.packing import Buffer, Delay, live_peak, pack
from ramforge.compiler.rprogram import ROperator

WORKSPACE, WEIGHTS = 0, 1
# How much more than what lives at once a workspace may take, in percent.
SPARE = 10

# How much longer an rOperator waits if it may not begin before a user, the other one, is done.
Wait = Callable[[int, int], float]


@dataclass(frozen=True, slots=True)
class Place:
    """A space (0 workspace, 1 weights, then the inputs and the outputs) and a byte offset in it."""

    space: int
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """The finished plan of memory."""

    places: Mapping[str, Place]
    buffers: tuple[Buffer, ...]
    workspace_bytes: int
    peak_live_bytes: int
    weight_offsets: Mapping[str, int]
    weight_bytes: int


def plan_memory(
    graph: Graph,
    operators: Sequence[ROperator],
    steps: Sequence[int],
    weights: Mapping[str, int],
    wait: Wait | None = None,
) -> Memory:
    """Place all tensors; ``steps`` is when each rOperator runs, ``weights`` gives the size in bytes
    of each constant operand, in file order. ``wait(writer, user)`` is for plans that do not keep
    steps apart.
    """
    places: dict[str, Place] = {}
    for number, name in enumerate((*graph.inputs, *graph.outputs)):
        places[name] = Place(2 + number, 0)
    weight_offsets, weight_bytes = _weights(weights)
    for name, offset in weight_offsets.items():
        places[name] = Place(WEIGHTS, offset)
    buffers = _lifetimes(graph, operators, steps, places)
    peak = live_peak(buffers)
    delay = _delay(buffers, operators, steps, wait) if wait else None
    packed = pack(buffers, peak * (100 + SPARE) // 100, delay)
    for buffer, offset in zip(buffers, packed.offsets, strict=True):
        for name in buffer.tensors:
            places[name] = Place(WORKSPACE, offset)
    return Memory(places, tuple(buffers), packed.size, peak, weight_offsets, weight_bytes)


def _delay(
    buffers: Sequence[Buffer], operators: Sequence[ROperator], steps: Sequence[int], wait: Wait
) -> Delay:
    """How much longer the writer of one buffer waits if it has to for the last users of another."""
    number_of = {name: n for n, buffer in enumerate(buffers) for name in buffer.tensors}
    last_users: list[set[int]] = [set() for _ in buffers]
    first_writers: list[set[int]] = [set() for _ in buffers]
    for number, operator in enumerate(operators):
        for name in operator.variant.operands:
            if name in number_of:
                buffer = number_of[name]
                if steps[number] == buffers[buffer].last_step:
                    last_users[buffer].add(number)
                if steps[number] == buffers[buffer].first_step:
                    first_writers[buffer].add(number)

    def delay(before: int, after: int) -> float:
        return max(wait(one, other) for one in first_writers[after] for other in last_users[before])

    return delay


def _weights(sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    offsets, end = {}, 0
    for name, nbytes in sizes.items():
        offsets[name] = end
        end += -(-nbytes // 64) * 64
    return offsets, end


def _lifetimes(
    graph: Graph,
    operators: Sequence[ROperator],
    steps: Sequence[int],
    external: Mapping[str, Place],
) -> list[Buffer]:
    """A buffer for each tensor that an rOperator writes and that is not the caller's."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for operator, step in zip(operators, steps, strict=True):
        for name in operator.variant.operands:
            if name in external:
                continue
            first[name] = min(first.get(name, step), step)
            last[name] = max(last.get(name, step), step)
    return [Buffer((name,), graph.tensor(name).nbytes, first[name], last[name]) for name in first]


def conflicts(
    memory: Memory, operators: Sequence[ROperator], steps: Sequence[int]
) -> dict[int, list[int]]:
    """For each rOperator those that use what lay before in the memory that it writes.

    In each piece of memory the tensors are taken in the order of their steps, and only neighbours
    matter: a tensor's writer is one of its users, so the rest follows.
    """
    users: dict[str, list[int]] = {}
    writers: dict[str, int] = {}
    for number, operator in enumerate(operators):
        for name in operator.variant.operands:
            if memory.places[name].space == WORKSPACE:
                users.setdefault(name, []).append(number)
        for name in operator.variant.writes:
            writers.setdefault(name, number)
    sizes = {name: buffer.nbytes for buffer in memory.buffers for name in buffer.tensors}
    order = sorted(users, key=lambda name: steps[writers[name]])
    found: dict[int, list[int]] = {}
    for first, second in neighbours(order, memory.places, sizes):
        found.setdefault(writers[second], []).extend(users[first])
    return {number: sorted(set(those)) for number, those in found.items()}


def neighbours(
    order: Sequence[str], places: Mapping[str, Place], sizes: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Pairs of tensors of which the second is the next one, in this order, to take some byte of the
    first.
    """
    spans = [(places[name].offset, sizes[name]) for name in order]
    cuts = np.unique([edge for start, size in spans for edge in (start, start + size)])
    last = np.full(max(len(cuts), 1), -1, dtype=np.int64)
    for number, (start, size) in enumerate(spans):
        pieces = slice(*np.searchsorted(cuts, (start, start + size)))
        for before in np.unique(last[pieces]):
            if before >= 0:
                yield order[before], order[number]
        last[pieces] = number
