"""Where every tensor lives: one workspace for all that lives between rOperators, by lifetimes.

A buffer belongs to an alias set of tensors (today always one; a cache that is input and output at
once will be two). Two buffers may share memory if one is dead in every step of the plan in which
the other lives. Steps are what all vEUs agree on: everything of one step happens before anything of
the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ramforge.compiler.ir import Graph
from ramforge.compiler.rprogram import Plan, ROperator

ALIGNMENT = 256
WORKSPACE, WEIGHTS = 0, 1


@dataclass(frozen=True, slots=True)
class Buffer:
    """A piece of the workspace and the steps during which it holds something."""

    tensors: tuple[str, ...]
    nbytes: int
    first_step: int
    last_step: int

    def overlaps(self, other: Buffer) -> bool:
        return self.first_step <= other.last_step and other.first_step <= self.last_step


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
    operators: tuple[ROperator, ...],
    plan: Plan,
    weights: Mapping[str, int],
) -> Memory:
    """Place all tensors; ``weights`` gives the size in bytes of each constant operand, in file
    order.
    """
    places: dict[str, Place] = {}
    for number, name in enumerate((*graph.inputs, *graph.outputs)):
        places[name] = Place(2 + number, 0)
    weight_offsets, weight_bytes = _weights(weights)
    for name, offset in weight_offsets.items():
        places[name] = Place(WEIGHTS, offset)
    buffers = _lifetimes(graph, operators, plan, places)
    offsets, size = _pack(buffers)
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
    operators: tuple[ROperator, ...],
    plan: Plan,
    external: Mapping[str, Place],
) -> list[Buffer]:
    """A buffer for each tensor that an rOperator writes and that is not the caller's."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for operator, step in zip(operators, plan.steps, strict=True):
        for name in operator.variant.operands:
            if name in external:
                continue
            first[name] = min(first.get(name, step), step)
            last[name] = max(last.get(name, step), step)
    return [Buffer((name,), graph.tensor(name).nbytes, first[name], last[name]) for name in first]


def _pack(buffers: list[Buffer]) -> tuple[list[int], int]:
    """Largest first, each at the lowest offset that is free during all of its steps."""
    order = sorted(
        range(len(buffers)), key=lambda i: (-buffers[i].nbytes, buffers[i].first_step, i)
    )
    offsets = [0] * len(buffers)
    placed: list[int] = []
    size = 0
    for number in order:
        buffer = buffers[number]
        taken = sorted(
            (offsets[other], offsets[other] + _aligned(buffers[other].nbytes))
            for other in placed
            if buffer.overlaps(buffers[other])
        )
        offset = 0
        for start, end in taken:
            if offset + buffer.nbytes <= start:
                break
            offset = max(offset, end)
        offsets[number] = offset
        placed.append(number)
        size = max(size, offset + _aligned(buffer.nbytes))
    return offsets, size


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
