"""The attention family: blocks of queries go over all keys, and no score leaves a block."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from ramforge.compiler.device import Target
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index, Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.expressions.terms import Expr, Load
from ramforge.compiler.ir import DType
from ramforge.compiler.registry import Family, register_family
from ramforge.compiler.rprogram import Body, Candidate, Design, TaskCost
from ramforge.kernels import space
from ramforge.kernels.core_tiles import PANEL
from ramforge.kernels.tiles import MOST_FEW_ROWS, PLAIN, Math, math_for

_WEIGHT_FLOPS = 16.0  # the exponential of a score and what goes with it
_MOST_LANES = 32
# A few queries have one rTask for each head, which goes over all keys by itself.
_MOST_KEYS_OF_FEW = 4096
_EFFICIENCY_OF_FEW, _REGISTERS_OF_FEW = 0.25, 96  # guesses, as of products with few rows


@dataclass(frozen=True, slots=True)
class Rows:
    """The queries, keys or values of one batch: ``start`` is where a row begins, with its elements
    ``step`` apart, of which ``together`` can be copied at once.
    """

    load: Load
    start: Index
    step: int
    together: int


@dataclass(frozen=True, slots=True)
class Heads:
    """A computation taken apart into what the body needs."""

    placed: Placed
    queries: Rows
    keys: Rows
    values: Rows
    batch: tuple[Var, ...]
    rows: tuple[Var, ...]
    key: Var
    depth: Var
    column: Var

    @property
    def m(self) -> int:
        return space.size_of(self.rows)

    @property
    def batches(self) -> int:
        return space.size_of(self.batch)

    @property
    def dtype(self) -> DType:
        return self.queries.load.dtype

    @property
    def vector(self) -> int:
        return 16 // self.dtype.itemsize

    @property
    def is_few(self) -> bool:
        """Whether one warp can hold a key and all queries."""
        sides = (self.queries, self.keys, self.values)
        chunks = max(self.depth.size, self.column.size) // self.vector
        in_chunks = all(side.together == self.vector for side in sides)
        return self.m <= MOST_FEW_ROWS and in_chunks and chunks <= _MOST_LANES


@functools.lru_cache(maxsize=1024)
def take_apart(placed: Placed) -> Heads | None:
    computation = placed.computation
    scores, roles = computation.scores, computation.roles
    if scores is None or roles is None:
        return None
    placed, batch = space.merge(placed, placed.memory_order(roles.batch), "b")
    placed, rows = space.merge(placed, placed.memory_order(roles.rows), "m")
    placed, columns = space.merge(placed, placed.memory_order(roles.columns), "c")
    placed, depths = space.merge(placed, scores.reduction, "d")
    if len(columns) != 1 or len(depths) != 1 or len(computation.reduction) != 1:
        return None
    (column,), (depth,), (key,) = columns, depths, computation.reduction
    found = placed.computation
    assert found.scores is not None
    factors = _factors(found.scores.value)
    values = comp.loaded(found.value)
    if factors is None or values is None:
        return None
    queries, keys = factors
    if queries.dtype is not keys.dtype or keys.dtype is not values.dtype:
        return None
    if max(column.size, depth.size) * keys.dtype.itemsize > _MOST_BYTES_OF_A_ROW:
        return None
    of_queries, of_keys = _rows(placed, queries, depth), _rows(placed, keys, depth)
    of_values = _rows(placed, values, column)
    if of_queries is None or of_keys is None or of_values is None:
        return None
    heads = Heads(placed, of_queries, of_keys, of_values, batch, rows, key, depth, column)
    return heads if _reads_only_its_own(heads) else None


def _factors(value: Expr) -> tuple[Load, Load] | None:
    if not isinstance(value, terms.Apply) or value.name != "mul":
        return None
    left, right = (comp.loaded(factor) for factor in value.args)
    return None if left is None or right is None else (left, right)


def _rows(placed: Placed, load: Load, along: Var) -> Rows | None:
    """The rows of a load, if the elements of one stand a fixed distance apart."""
    offset = ix.flatten(load.indices, placed.strides[load.slot])
    step = offset.coefficient(along)
    start = offset - ix.of(along) * step
    if load.loose_axes() or step <= 0 or along in ix.variables(start):
        return None
    parts = (along.size, start.const, *(factor for _, factor in start.terms))
    together = math.gcd(16 // load.dtype.itemsize, *parts) if step == 1 else 1
    return Rows(load, start, step, together)


def _reads_only_its_own(heads: Heads) -> bool:
    """Queries depend on the row and not on the key, keys and values the other way round."""
    rows, key = set(heads.rows), {heads.key}
    apart = not ix.variables(heads.queries.start) & key
    return apart and not any(ix.variables(side.start) & rows for side in (heads.keys, heads.values))


def fits(placed: Placed) -> bool:
    heads = take_apart(placed)
    if heads is None:
        return False
    return not heads.is_few or heads.key.size <= _MOST_KEYS_OF_FEW


@dataclass(frozen=True, slots=True)
class Tile:
    """A block of queries and of keys, and how the warps share the scores (``m`` x ``n``) and the
    ``out`` columns of sums (``out_m`` x ``out_n``).
    """

    queries: int
    keys: int
    m: int
    n: int
    out: int
    out_m: int
    out_n: int

    def template(self) -> str:
        parts = (self.queries, self.keys, self.m, self.n, self.out, self.out_m, self.out_n)
        return f"rf_attention_tile<{', '.join(map(str, parts))}>"


BLOCKS = ((64, 64), (64, 32), (32, 64), (32, 32), (16, 64))
_BLOCKS_ON_A_CORE = (64, 32, 16)
_MOST_KEYS_ON_A_CORE = 256
_FEW_KEYS_ON_A_CORE = 128  # as in attention_host.cuh
_PITCH_ON_A_CORE = 400  # as in contract_host.cuh
# Bytes of a query, a key or a value: of longer ones no block fits the smaller devices.
_MOST_BYTES_OF_A_ROW = 512


def tiles_of(heads: Heads, target: Target, how: Math) -> list[Tile]:
    """Every way that makes sense, the largest first."""
    if target.is_host:
        keys = min(-(-heads.key.size // PANEL) * PANEL, _MOST_KEYS_ON_A_CORE)
        out = -(-heads.column.size // PANEL) * PANEL
        return [
            Tile(queries, keys, 1, 1, out, 1, 1)
            for queries in _BLOCKS_ON_A_CORE
            if queries < 2 * heads.m or queries == _BLOCKS_ON_A_CORE[-1]
        ]
    found = [_tile(heads, *block, target.threads // 32, how) for block in BLOCKS]
    made = [tile for tile in found if tile is not None]
    sensible = [tile for tile in made if tile.queries < 2 * heads.m]
    return sensible or made[-1:]


def _tile(heads: Heads, queries: int, keys: int, warps: int, how: Math) -> Tile | None:
    across = 32 if how is PLAIN else how.warp_n  # columns of sums that a warp makes at once
    scores = _shared(warps, queries // how.warp_m, keys // how.warp_n)
    sums = [
        (-(-heads.column.size // (across * n)) * across * n, abs(m - n), m, n)
        for m, n in _shared(warps, queries // how.warp_m, warps)
    ]
    if not scores or not sums:
        return None
    _, m, n = min((abs(queries // m - keys // n), m, n) for m, n in scores)
    out, _, out_m, out_n = min(sums)
    return Tile(queries, keys, m, n, out, out_m, out_n)


def _shared(warps: int, most_m: int, most_n: int) -> list[tuple[int, int]]:
    """The ways in which warps can stand along m and n."""
    ways = [(1 << i, warps >> i) for i in range(warps.bit_length())]
    return [(m, n) for m, n in ways if m <= most_m and n <= most_n]


def candidates(placed: Placed, target: Target) -> tuple[Candidate, ...]:
    heads = take_apart(placed)
    assert heads is not None
    if heads.is_few and not target.is_host:
        return (_few(heads, target),)
    how = math_for(heads.dtype, target)
    return tuple(_candidate(heads, tile, how, target) for tile in tiles_of(heads, target, how))


def _candidate(heads: Heads, tile: Tile, how: Math, target: Target) -> Candidate:
    arena = 0 if target.is_host else _arena_bytes(heads, tile)
    host = _host_arena_bytes(heads, tile.queries, tile.keys)
    registers = 84 + 7 * tile.queries * (tile.keys + tile.out) // (4 * target.threads)
    rate = _efficiency(tile) * target.speedup(how.factors)
    cost = _cost(heads, tile.queries, tile.out, rate)
    call = [
        f"using tile = {tile.template()};",
        f"rf_attend<heads, tile, {how.text}>(",
        "    arena, tile_m,",
    ]
    what = f"tiles of {tile.queries} queries by {tile.keys} keys"
    make = functools.partial(
        _design, heads, cost, tile.queries, call, (what, arena, host, registers)
    )
    return Candidate(_tasks(heads, tile.queries), cost, arena, functools.cache(make), registers)


def _few(heads: Heads, target: Target) -> Candidate:
    chunks = max(heads.depth.size, heads.column.size) // heads.vector
    lanes = max(4, 1 << (chunks - 1).bit_length())
    arena = 4 * (target.threads // lanes) * heads.m * (heads.column.size + 2)
    cost = _cost(heads, heads.m, heads.column.size, _EFFICIENCY_OF_FEW)
    call = ["rf_attend_few<heads>(", "    arena,"]
    host = _host_arena_bytes(heads, heads.m, _FEW_KEYS_ON_A_CORE)
    shape = ("each key once", arena, host, _REGISTERS_OF_FEW)
    make = functools.partial(_design, heads, cost, heads.m, call, shape)
    return Candidate(heads.batches, cost, arena, functools.cache(make), _REGISTERS_OF_FEW)


def _tasks(heads: Heads, queries: int) -> int:
    return heads.batches * -(-heads.m // queries)


def _efficiency(tile: Tile) -> float:
    """Multiplications for each load of the inner loop, as a part of both, and what the weights
    between them cost.
    """
    rows, columns = tile.queries // tile.out_m / 4, tile.out // tile.out_n / 8
    return 0.8 * rows * columns / (rows * columns + rows + columns)


def _cost(heads: Heads, queries: int, out: int, rate: float) -> TaskCost:
    keys, depth, size = heads.key.size, heads.depth.size, heads.dtype.itemsize
    products = 2.0 * queries * keys * (depth + out)
    return TaskCost(
        products + _WEIGHT_FLOPS * rate * queries * keys,
        float(size * (queries * depth + keys * (depth + heads.column.size))),
        float(heads.placed.target.dtype.itemsize * queries * heads.column.size),
        efficiency=rate,
    )


def _arena_bytes(heads: Heads, tile: Tile) -> int:
    """Queries, keys, values and scores, each row of chunks with another one behind it."""
    vector = heads.vector
    deep, wide = -(-heads.depth.size // (2 * vector)) * 2, tile.out // vector
    queries, keys = tile.queries + 1, tile.keys + 1
    chunks = deep * queries + deep * keys + wide * keys + tile.keys // 4 * queries
    return 16 * chunks + 4 * tile.queries


def _host_arena_bytes(heads: Heads, queries: int, keys: int) -> int:
    out = -(-heads.column.size // PANEL) * PANEL
    panels = keys * max(heads.depth.size, out)
    return 4 * (panels + queries * (2 * _PITCH_ON_A_CORE + out))


def _design(
    heads: Heads,
    cost: TaskCost,
    queries: int,
    call: list[str],
    shape: tuple[str, int, int, int],
) -> Design:
    what, arena, host, registers = shape
    tasks, across = _tasks(heads, queries), -(-heads.m // queries)
    task = np.arange(tasks, dtype=np.int64)
    batch, first = task // across, task % across * queries
    ranges = {
        **space.mixed_radix(heads.batch, batch, batch + 1),
        **space.mixed_radix(heads.rows, first, np.minimum(first + queries, heads.m)),
    }
    reads, writes = space.regions(heads.placed, ranges, tasks)
    summary = f"{heads.batches} x [{heads.m} x {heads.depth.size}] by {heads.key.size} keys, {what}"
    text = _text(heads, across, call)
    body = Body("attention", summary, text, arena, host, registers=registers)
    return Design(body, tasks, reads, writes, cost)


def _text(heads: Heads, across: int, call: list[str]) -> str:
    placed, kind = heads.placed, heads.dtype.c_name
    names: dict[Var, str] = {}
    batch = space.decode(heads.batch, "batch", names) if heads.batch else []
    sizes = (heads.m, heads.key.size, heads.depth.size, heads.column.size)
    addresses, _ = space.pointers(placed)
    lines = [*addresses, space.output_pointer(placed, len(placed.tensors))]
    if any("tile_m" in line for line in call):
        lines.append(f"const int tile_m = {f'task % {across}' if across > 1 else '0'};")
    if heads.batch:
        lines.append(f"const int batch = {f'task / {across}' if across > 1 else 'task'};")
    lines += [*batch, f"using heads = rf_heads<{kind}, {', '.join(map(str, sizes))}>;", *call]
    lines += space.indent(_rows_lines(heads, heads.queries, "m", names), 4)
    lines += space.indent(_rows_lines(heads, heads.keys, "n", names), 4)
    lines += space.indent(_rows_lines(heads, heads.values, "n", names), 4)
    lines += space.indent(_score_lines(heads, dict(names)), 4)
    lines += space.indent(_store_lines(heads, dict(names)), 4)
    return "\n".join(lines)


def _rows_lines(heads: Heads, side: Rows, number: str, outer: dict[Var, str]) -> list[str]:
    names, lines = dict(outer), []
    if number == "m" and heads.rows:
        lines = space.decode(heads.rows, "m", names)
    names[heads.key] = "n"
    writer = space.writer(heads.placed, names)
    place = writer.index(side.start)
    slot, kind = side.load.slot, heads.dtype.c_name
    return [
        f"rf_make_rows<{side.step}, {side.together}>(RF_LAMBDA(int {number}) -> const {kind}* {{",
        *space.indent([*lines, *writer.statements, f"return x{slot} + ({place});"], 2),
        "}),",
    ]


def _score_lines(heads: Heads, names: dict[Var, str]) -> list[str]:
    lines = space.decode(heads.rows, "m", names) if heads.rows else []
    names[heads.key] = "n"
    writer = space.writer(heads.placed, names, filled="sum")
    scores = heads.placed.computation.scores
    assert scores is not None
    result = writer.value(scores.finish)
    return [
        "RF_LAMBDA(int m, int n, float sum) -> float {",
        *space.indent([*lines, *writer.statements, f"return {result};"], 2),
        "},",
    ]


def _store_lines(heads: Heads, names: dict[Var, str]) -> list[str]:
    lines = space.decode(heads.rows, "m", names) if heads.rows else []
    names[heads.column] = "c"
    writer = space.writer(heads.placed, names, filled="sum")
    result = writer.value(heads.placed.computation.result)
    place = writer.index(heads.placed.output_offset)
    return [
        "RF_LAMBDA(int m, int c, float sum) {",
        *space.indent([*lines, *writer.statements, f"y[{place}] = {result};"], 2),
        "});",
    ]


register_family(Family("attention", 5, fits, candidates))
