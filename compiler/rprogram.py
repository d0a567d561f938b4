"""The second IR: rOperators made of rTasks, and the Plan that says which vEU runs what, when.

An rOperator's rTasks are homogeneous: they share one body and differ by a task index; what they
read and write is kept in columns (``Boxes``), never as a Python object for each task. A Plan is a
row of Launches; a Launch gives each vEU a lane, and a lane is a list of Prefetch, Wait, Run and
Signal entries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ramforge.compiler.expressions.regions import Boxes
from ramforge.compiler.ir import Array


@dataclass(frozen=True, slots=True)
class Body:
    """The code of one rTask, specialised for shapes but not for tensors.

    ``text`` is C++ (the members of a struct); equal texts are one body however many layers use it.
    The arena is the scratch memory of a block: shared memory on a GPU, a private buffer on the
    host.
    """

    family: str
    summary: str
    text: str
    arena_bytes: int
    host_arena_bytes: int
    prefetch: str = ""

    @property
    def name(self) -> str:
        content = f"{self.family}\n{self.text}\n{self.prefetch}"
        digest = hashlib.sha256(content.encode()).hexdigest()
        return f"{self.family}_{digest[:10]}"


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What one rTask does, for the cost model."""

    flops: float
    read_bytes: float
    written_bytes: float


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """The order in which a body wants a constant operand; ``label`` tells it from other orders."""

    label: str
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

    ``packed`` makes the weights that it wants in an order of its own; they are operands too.
    """

    body: Body
    tasks: int
    operands: tuple[str, ...]
    reads: Mapping[str, Boxes]
    writes: Mapping[str, Boxes]
    cost: TaskCost
    packed: Mapping[str, Callable[[], Array]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A design that could be chosen: what choosing needs to know, and how to make it."""

    tasks: int
    cost: TaskCost
    arena_bytes: int
    make: Callable[[], Design]


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


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Ask for what the coming tasks need and no running task makes (the weights of the first of
    them).
    """

    rank: int
    operator: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Go on when ``counter`` has had all its ``full`` signals of this run."""

    rank: int
    counter: int
    full: int


@dataclass(frozen=True, slots=True)
class Run:
    """Run tasks ``first .. first + count`` of an operator, one after the other."""

    rank: int
    operator: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Signal:
    """Say that everything this lane ran before is done and visible."""

    rank: int
    counter: int


Entry = Prefetch | Wait | Run | Signal
Lane = tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Launch:
    """One persistent kernel launch: a lane for each vEU, and how much of an SM each takes."""

    lanes: tuple[Lane, ...]
    threads: int
    blocks_per_sm: int
    arena_bytes: int
    counters: int

    @property
    def waves(self) -> int:
        return 1 + self.counters


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The launches of a program, in order; a launch sees everything the one before it wrote.

    ``steps`` gives each rOperator a number: everything of one step happens before anything of a
    later one. The planner of memory relies on it, and the checker proves it.
    """

    policy: str
    launches: tuple[Launch, ...]
    steps: tuple[int, ...]

    @property
    def waves(self) -> int:
        """How many times all vEUs come together: the dependency levels of the plan."""
        return sum(launch.waves for launch in self.launches)

    @property
    def counters(self) -> int:
        """The counters of all launches; none serves two launches."""
        return sum(launch.counters for launch in self.launches)
