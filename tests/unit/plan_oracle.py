"""What a plan may do, found by brute force: the judge of ``check_plan``, for small programs only.

Nothing is shared with the checker. Rows become entries of lanes here; happens-before is the
transitive closure of a relation over entries; memory is looked at cell by cell; and every number of
blocks is tried, each running its lanes row by row as lanes.cuh does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from program_support import Planned

from ramforge.compiler.ir import Graph
from ramforge.compiler.memory import Memory
from ramforge.compiler.plan import Kind, Launch
from ramforge.compiler.rprogram import ROperator

Task = tuple[int, int]  # an rOperator and the number of one of its tasks
CALLER: Task = (-1, 0)  # wrote the inputs before, reads the outputs afterwards
RESERVED_BYTES = 1024  # of shared memory, for each block
ELEMENT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """What one lane does at one row."""

    row: int
    lane: int
    kind: Kind
    what: int
    first: int
    units: int


@dataclass(frozen=True, slots=True)
class Demands:
    """What has to come before what, whoever runs it."""

    before: frozenset[tuple[Task, Task]]
    # (other, own writer, reader): the other one writes before the writer or after the reader
    apart: frozenset[tuple[Task, Task, Task]]


def is_safe(made: Planned) -> bool:
    """Whether every run of the plan, on any number of blocks, gives what the rOperators mean."""
    if not (_is_resident(made) and all(_is_well_formed(made, one) for one in made.plan.launches)):
        return False
    if not _every_task_once(made):
        return False
    demands = _demands(made.operators, made.memory, made.graph)
    if demands is None:
        return False
    most = max((launch.lanes for launch in made.plan.launches), default=1)
    return all(_runs_well(made, blocks, demands) for blocks in range(1, most + 1))


def entries_of(launch: Launch) -> list[Entry]:
    """Every entry of every lane, by rows and within a row by lanes."""
    found = []
    for number, row in enumerate(launch.rows):
        for i in range(row.lanes):
            first = row.first + i // row.per * row.step
            found.append(Entry(number, row.lane + i, row.kind, row.what, first, row.units))
    return found


def lanes_of(launch: Launch) -> list[list[Entry]]:
    """The entries of each lane, in order."""
    lanes: list[list[Entry]] = [[] for _ in range(launch.lanes)]
    for entry in entries_of(launch):
        lanes[entry.lane].append(entry)
    return lanes


def counters_of(size: int, group: int, first: int, units: int) -> Iterator[tuple[int, int]]:
    """(counter, amount) of a signal, as rf_signal_units: whoever does the last unit stands for
    those that the last group lacks.
    """
    end = first + units
    if end == size:
        end = -(-size // group) * group
    for counter in range(first // group, -(-end // group)):
        yield counter, min(end, (counter + 1) * group) - max(first, counter * group)


def awaited(group: int, first: int, units: int) -> range:
    """The counters of a wait, as rf_wait_units."""
    return range(first // group, (first + units - 1) // group + 1)


def past_of(blocks: Sequence[Sequence[Entry]], launch: Launch) -> dict[tuple[int, int], int] | None:
    """For each entry, named by (row, lane), what is over when it begins, as bits of ``bit_of``.

    None if some block waits for ever, or if a counter that is awaited gets more or fewer signals
    than it takes: with fewer the wait never ends, with more it is ahead in later runs and ends too
    early.
    """
    size, group = launch.events.size.tolist(), launch.events.group.tolist()
    amount: Counter[tuple[int, int]] = Counter()
    signals: dict[tuple[int, int], list[Entry]] = defaultdict(list)
    for entry in (entry for block in blocks for entry in block):
        if entry.kind is Kind.SIGNAL:
            event = entry.what
            for counter, units in counters_of(size[event], group[event], entry.first, entry.units):
                amount[event, counter] += units
                signals[event, counter].append(entry)
    bit = bit_of(blocks)
    past: dict[tuple[int, int], int] = {}
    heard: dict[tuple[int, int], int] = {}  # of each counter that is full
    at = [0] * len(blocks)
    moved = True
    while moved:
        moved = False
        for number, block in enumerate(blocks):
            while at[number] < len(block):
                entry = block[at[number]]
                known = 0
                if at[number]:
                    last = block[at[number] - 1]
                    known = past[last.row, last.lane] | 1 << bit[last.row, last.lane]
                if entry.kind is Kind.WAIT:
                    counters = awaited(group[entry.what], entry.first, entry.units)
                    keys = [(entry.what, counter) for counter in counters]
                    if any(amount[key] != group[entry.what] for key in keys):
                        return None
                    for key in keys:
                        if key not in heard and all((s.row, s.lane) in past for s in signals[key]):
                            heard[key] = 0
                            for s in signals[key]:
                                heard[key] |= past[s.row, s.lane] | 1 << bit[s.row, s.lane]
                    if any(key not in heard for key in keys):
                        break
                    for key in keys:
                        known |= heard[key]
                past[entry.row, entry.lane] = known
                at[number] += 1
                moved = True
    return past if len(past) == len(bit) else None


def bit_of(blocks: Sequence[Sequence[Entry]]) -> dict[tuple[int, int], int]:
    every = (entry for block in blocks for entry in block)
    return {(entry.row, entry.lane): number for number, entry in enumerate(every)}


def blocks_of(launch: Launch, blocks: int) -> list[list[Entry]]:
    """What each of so many blocks does: the lanes b, b + n, ... row by row."""
    found: list[list[Entry]] = [[] for _ in range(blocks)]
    for entry in entries_of(launch):
        found[entry.lane % blocks].append(entry)
    return found


def _is_resident(made: Planned) -> bool:
    target = made.target
    for launch in made.plan.launches:
        shape = launch.shape
        blocks = shape.blocks_per_sm
        shared = blocks * (shape.arena_bytes + RESERVED_BYTES)
        if launch.lanes > target.sms * blocks or blocks * shape.threads > target.threads_per_sm:
            return False
        if shared > target.shared_bytes_per_sm:
            return False
    return True


def _is_well_formed(made: Planned, launch: Launch) -> bool:
    """Whether the device finds what the rows speak of."""
    size, group = launch.events.size.tolist(), launch.events.group.tolist()
    if any(units <= 0 for units in group):
        return False
    for row in launch.rows:
        if row.lanes < 1 or row.units < 1 or row.per < 1:
            return False
        if row.lane < 0 or row.lane + row.lanes > launch.lanes or row.what < 0:
            return False
        firsts = [row.first + i // row.per * row.step for i in range(row.lanes)]
        if row.kind in (Kind.WAIT, Kind.SIGNAL):
            if row.what >= len(size):
                return False
            limit = size[row.what]
            if row.kind is Kind.WAIT:
                limit = -(-limit // group[row.what]) * group[row.what]
        else:
            if row.what >= len(made.operators):
                return False
            operator = made.operators[row.what]
            limit = operator.tasks
            needed = operator.variant.body.arena_bytes
            if row.kind is Kind.RUN and needed > launch.shape.arena_bytes:
                return False
        if min(firsts) < 0 or max(firsts) + row.units > limit:
            return False
    return True


def _every_task_once(made: Planned) -> bool:
    found: Counter[Task] = Counter()
    for launch in made.plan.launches:
        for entry in entries_of(launch):
            if entry.kind is Kind.RUN:
                tasks = range(entry.first, entry.first + entry.units)
                found.update((entry.what, task) for task in tasks)
    operators = enumerate(made.operators)
    every = {(number, task) for number, operator in operators for task in range(operator.tasks)}
    return set(found) == every and set(found.values()) <= {1}


@lru_cache(maxsize=256)
def _demands(operators: tuple[ROperator, ...], memory: Memory, graph: Graph) -> Demands | None:
    """None if some task reads what nobody wrote there, or writes where it may not."""
    writes: dict[tuple[int, int], list[tuple[Task, str]]] = defaultdict(list)
    reads: dict[tuple[int, int], list[tuple[Task, str]]] = defaultdict(list)
    spaces = (*graph.inputs, *graph.outputs)
    sizes = {0: memory.workspace_bytes}
    sizes |= {2 + k: graph.tensor(name).nbytes for k, name in enumerate(spaces)}
    for space, name in enumerate(spaces, start=2):
        table = writes if name in graph.inputs else reads
        for byte in range(0, sizes[space], ELEMENT_BYTES):
            table[space, byte].append((CALLER, name))
    for number, operator in enumerate(operators):
        for regions, table in ((operator.variant.reads, reads), (operator.variant.writes, writes)):
            for name, boxes in regions.items():
                place = memory.places[name]
                shape = graph.tensor(name).shape
                for task, (start, stop) in enumerate(zip(boxes.start, boxes.stop, strict=True)):
                    for cell in product(*map(range, start.tolist(), stop.tolist())):
                        byte = place.offset + ELEMENT_BYTES * _flat(cell, shape)
                        if place.space not in sizes or not 0 <= byte < sizes[place.space]:
                            return None
                        table[place.space, byte].append(((number, task), name))
    before: set[tuple[Task, Task]] = set()
    apart: set[tuple[Task, Task, Task]] = set()
    for cell, readers in reads.items():
        for reader, name in readers:
            own = [task for task, written in writes[cell] if written == name]
            if len(own) != 1:
                return None
            before.add((own[0], reader))
            others = {task for task, written in writes[cell] if written != name}
            apart.update((other, own[0], reader) for other in others)
    return Demands(frozenset(before), frozenset(apart))


def _flat(cell: Sequence[int], shape: Sequence[int]) -> int:
    found = 0
    for index, size in zip(cell, shape, strict=True):
        found = found * size + index
    return found


def _runs_well(made: Planned, blocks: int, demands: Demands) -> bool:
    where: dict[Task, tuple[int, int]] = {}  # the launch of each task, and the bit of its entry
    pasts: list[int] = []  # what is over when the entry of this number begins
    for number, launch in enumerate(made.plan.launches):
        own = blocks_of(launch, min(blocks, launch.lanes))
        past = past_of(own, launch)
        if past is None:
            return False
        shift, bits = len(pasts), bit_of(own)
        earlier = (1 << shift) - 1  # all launches before this one are over
        for row, lane in bits:
            pasts.append(past[row, lane] << shift | earlier)
        for entry in (entry for block in own for entry in block):
            if entry.kind is Kind.RUN:
                at = shift + bits[entry.row, entry.lane]
                for task in range(entry.first, entry.first + entry.units):
                    where[entry.what, task] = (number, at)

    def ordered(first: Task, second: Task) -> bool:
        if first == CALLER or second == CALLER:
            return False
        one, two = where[first][1], where[second][1]
        if one == two:  # tasks of one run go one after the other
            return first < second
        return bool(pasts[two] >> one & 1)

    for first, second in demands.before:
        if CALLER not in (first, second) and not ordered(first, second):
            return False
    for other, own_writer, reader in demands.apart:
        # the caller wrote before all of them, and reads after all of them
        early = own_writer != CALLER and ordered(other, own_writer)
        late = reader != CALLER and ordered(reader, other)
        if not early and not late:
            return False
    return True
