"""Where every tensor lives: one workspace for all that lives between rOperators, by lifetimes.

A buffer belongs to an alias set of tensors (today always one; a cache that is input and output at
once will be two). Two buffers may share memory if one is dead in every step in which the other
lives. Where steps are not kept apart by barriers the writer of the later one has to wait for the
users of the earlier one: ``conflicts`` says for whom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ramforge.compiler.expressions.regions import Ints
from ramforge.compiler.ir import Graph
from ramforge.compiler.rprogram import ROperator

ALIGNMENT = 256
WORKSPACE, WEIGHTS = 0, 1


@dataclass(frozen=True, slots=True)
class Buffer:
    """A piece of the workspace and the steps during which it holds something."""

    tensors: tuple[str, ...]
    nbytes: int
    first_step: int
    last_step: int


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
    slack: int = 0,
) -> Memory:
    """Place all tensors; ``steps`` is when each rOperator runs, ``weights`` gives the size in bytes
    of each constant operand, in file order. Memory is taken again ``slack`` steps later than it
    could be.
    """
    places: dict[str, Place] = {}
    for number, name in enumerate((*graph.inputs, *graph.outputs)):
        places[name] = Place(2 + number, 0)
    weight_offsets, weight_bytes = _weights(weights)
    for name, offset in weight_offsets.items():
        places[name] = Place(WEIGHTS, offset)
    buffers = _lifetimes(graph, operators, steps, places)
    offsets, size = _pack(buffers, slack)
    for buffer, offset in zip(buffers, offsets, strict=True):
        for name in buffer.tensors:
            places[name] = Place(WORKSPACE, offset)
    return Memory(places, tuple(buffers), size, _peak(buffers), weight_offsets, weight_bytes)


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


def _pack(buffers: list[Buffer], slack: int = 0) -> tuple[list[int], int]:
    """Largest first, each at the lowest offset that is free during all of its steps."""
    order = sorted(
        range(len(buffers)), key=lambda i: (-buffers[i].nbytes, buffers[i].first_step, i)
    )
    first, last, start, end = np.zeros((4, len(buffers)), dtype=np.int64)
    offsets = [0] * len(buffers)
    for placed, number in enumerate(order):
        buffer = buffers[number]
        alive = first[:placed] <= buffer.last_step + slack
        alive &= last[:placed] + slack >= buffer.first_step
        offsets[number] = _lowest_gap(start[:placed][alive], end[:placed][alive], buffer.nbytes)
        first[placed], last[placed] = buffer.first_step, buffer.last_step
        start[placed] = offsets[number]
        end[placed] = offsets[number] + _aligned(buffer.nbytes)
    return offsets, int(end.max(initial=0))


def _lowest_gap(start: Ints, end: Ints, nbytes: int) -> int:
    """The lowest offset at which this many bytes meet none of the spans."""
    if not len(start):
        return 0
    order = np.argsort(start, kind="stable")
    reached = np.concatenate([[0], np.maximum.accumulate(end[order])])
    fits = reached[:-1] + nbytes <= start[order]
    return int(reached[np.argmax(fits)] if fits.any() else reached[-1])


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _peak(buffers: list[Buffer]) -> int:
    """The most bytes that are alive in one step: no plan of memory can need less."""
    change: dict[int, int] = {}
    for buffer in buffers:
        change[buffer.first_step] = change.get(buffer.first_step, 0) + _aligned(buffer.nbytes)
        change[buffer.last_step + 1] = change.get(buffer.last_step + 1, 0) - _aligned(buffer.nbytes)
    peak = live = 0
    for step in sorted(change):
        live += change[step]
        peak = max(peak, live)
    return peak


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
