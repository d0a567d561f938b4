"""The second IR: rOperators made of rTasks.

An rOperator's rTasks are homogeneous: they share one body and differ by a task index; what they
read and write is kept in columns (``Boxes``), never as a Python object for each task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ramforge.compiler.expressions.regions import Boxes
from ramforge.compiler.ir import Array

# The overhead of a task that goes straight from its loads to its stores, without the arena; a guess
# until it is measured.
SHORT_START = 0.7
FEW_REGISTERS = 48  # what a body without a register tile makes do with


@dataclass(frozen=True, slots=True)
class Body:
    """The code of one rTask, specialised for shapes but not for tensors.

    ``text`` is C++ (the members of a struct); equal texts are one body however many layers use it.
    The arena is the scratch memory of a block: shared memory on a GPU, a private buffer on the
    host. ``registers`` is what a thread wants, as estimated before anything is assembled.
    """

    family: str
    summary: str
    text: str
    arena_bytes: int
    host_arena_bytes: int
    prefetch: str = ""
    registers: int = FEW_REGISTERS

    @property
    def name(self) -> str:
        content = f"{self.family}\n{self.text}\n{self.prefetch}"
        digest = hashlib.sha256(content.encode()).hexdigest()
        return f"{self.family}_{digest[:10]}"


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What one rTask does, for the cost model.

    ``read_bytes`` counts what comes through the caches, ``constant_bytes`` the task's part of the
    weights, which come from memory once. ``efficiency`` is the part of the peak rate that the inner
    loop could reach, ``overhead`` what starting such a task takes of the device's own figure.
    """

    flops: float
    read_bytes: float
    written_bytes: float
    constant_bytes: float = 0.0
    efficiency: float = 0.5
    overhead: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """The order in which a body wants a constant operand; ``label`` tells it from other orders."""

    label: str
    nbytes: int
    pack: Callable[[Array], Array]


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """One way to carry out a computation, for all nodes that have it: everything but names.

    Inputs go by their slots, as the body numbers them; the output comes after the last of them.
    """

    body: Body
    tasks: int
    reads: Mapping[int, Boxes]
    writes: Boxes
    cost: TaskCost
    packings: Mapping[int, Packing] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """A design for one node: ``operands`` are tensor names in the order of the body's slots.

    ``packed`` makes the weights that it wants in an order of its own; they are operands too, and
    take ``packed_bytes``.
    """

    body: Body
    tasks: int
    operands: tuple[str, ...]
    reads: Mapping[str, Boxes]
    writes: Mapping[str, Boxes]
    cost: TaskCost
    packed: Mapping[str, Callable[[], Array]] = field(default_factory=dict)
    packed_bytes: Mapping[str, int] = field(default_factory=dict)

    @property
    def arena_bytes(self) -> int:
        return self.body.arena_bytes

    @property
    def registers(self) -> int:
        return self.body.registers


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A design that could be chosen: what choosing needs to know, and how to make it."""

    tasks: int
    cost: TaskCost
    arena_bytes: int
    make: Callable[[], Design]
    registers: int = FEW_REGISTERS

    @property
    def body(self) -> Body:
        return self.make().body


@dataclass(frozen=True, slots=True, eq=False)
class ROperator:
    """A node of the graph with its chosen variant: ``variant.tasks`` rTasks that may run in any
    order.
    """

    name: str
    op: str
    origin: tuple[str, ...]
    variant: Variant

    @property
    def tasks(self) -> int:
        return self.variant.tasks
