"""The contract family: tiles of a matrix product. MatMul, Gemm and every convolution with real
channels.

A convolution is a product whose rows of A are runs of input channels: one run for each position of
the kernel window. Constant operands are packed into panels when the model is compiled.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

from ramforge.compiler.device import Target
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import interpret, terms
from ramforge.compiler.expressions.computation import Computation, Roles
from ramforge.compiler.expressions.index import Index, Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.expressions.regions import Boxes, Ints
from ramforge.compiler.expressions.terms import Apply, Load
from ramforge.compiler.expressions.text import Writer
from ramforge.compiler.ir import Array, DType
from ramforge.compiler.registry import Family, register_family
from ramforge.compiler.rprogram import Body, Candidate, Design, Packing, TaskCost
from ramforge.kernels import space

PANEL = 32
DEPTH = 16
TILES = ((64, 64), (64, 32), (32, 64), (32, 32), (16, 64), (16, 32))


@dataclass(frozen=True, slots=True)
class Product:
    """A computation taken apart into what the tile loop needs."""

    placed: Placed
    a: Load
    b: Load
    batch: tuple[Var, ...]
    rows: tuple[Var, ...]
    columns: tuple[Var, ...]
    segments: tuple[Var, ...]
    run: tuple[Var, ...]
    step: int

    @property
    def m(self) -> int:
        return space.size_of(self.rows)

    @property
    def n(self) -> int:
        return space.size_of(self.columns)

    @property
    def k(self) -> int:
        return space.size_of((*self.segments, *self.run))

    @property
    def batches(self) -> int:
        return space.size_of(self.batch)


def fits(placed: Placed) -> bool:
    return take_apart(placed) is not None


@dataclass(frozen=True, slots=True)
class Grid:
    """How a product is cut into rTasks, and in which order they are numbered.

    On a GPU the tiles of one block of rows are neighbours: then who reads some rows waits for a
    few neighbouring rTasks. One core that works off many tiles keeps a panel of weights instead.
    """

    tile_m: int
    tile_n: int
    tiles_m: int
    tiles_n: int
    batches: int
    rows_first: bool
    threads: int

    @property
    def tasks(self) -> int:
        return self.batches * self.tiles_m * self.tiles_n

    @property
    def digits(self) -> tuple[str, str, str]:
        """The C text of the number of the tile along m and n, and of the batch."""
        whole = self.tiles_m * self.tiles_n
        if self.rows_first:
            m, n = _digit("task", 1, self.tiles_m), _digit("task", self.tiles_m, self.tiles_n)
        else:
            m, n = _digit("task", self.tiles_n, self.tiles_m), _digit("task", 1, self.tiles_n)
        return m, n, _digit("task", whole, 0)

    def places(self, task: Ints) -> tuple[Ints, Ints, Ints]:
        """The same as numbers."""
        inner = self.tiles_m if self.rows_first else self.tiles_n
        fast, slow = task % inner, task // inner % (self.tiles_m * self.tiles_n // inner)
        m, n = (fast, slow) if self.rows_first else (slow, fast)
        return m, n, task // (self.tiles_m * self.tiles_n)


def candidates(placed: Placed, target: Target) -> tuple[Candidate, ...]:
    product = take_apart(placed)
    assert product is not None
    tiles = [tile for tile in TILES if _is_sensible(tile, product)]
    return tuple(_candidate(product, _grid(product, tile, target)) for tile in tiles)


def _grid(product: Product, tile: tuple[int, int], target: Target) -> Grid:
    tile_m, tile_n = tile
    tiles = -(-product.m // tile_m), -(-product.n // tile_n)
    return Grid(tile_m, tile_n, *tiles, product.batches, target.is_host, target.threads)


@functools.lru_cache(maxsize=4096)
def take_apart(placed: Placed) -> Product | None:
    computation = placed.computation
    loads = product_loads(computation)
    if loads is None or computation.roles is None:
        return None
    if computation.reduction_size == 0:
        return None
    placed, roles = _without_groups(placed, computation.roles)
    merged: dict[str, tuple[Var, ...]] = {}
    for name, axes in (("b", roles.batch), ("m", roles.rows), ("n", roles.columns)):
        placed, merged[name] = space.merge(placed, _ordered(placed, axes), name)
    folded = tuple(var for var in computation.reduction if var.size != 1)
    placed, folded = space.merge(placed, folded, "k")
    again = product_loads(placed.computation)
    assert again is not None
    a, b = again
    offset = ix.flatten(a.indices, placed.strides[a.slot])
    run = folded[-1:]
    step = offset.coefficient(run[0]) if run else 1
    if run and not _is_plain(a, offset, run[0], step):
        return None
    if a.loose_axes() and step != 1:
        return None
    return Product(placed, a, b, merged["b"], merged["m"], merged["n"], folded[:-1], run, step)


def _without_groups(placed: Placed, roles: Roles) -> tuple[Placed, Roles]:
    """Make the groups of a grouped convolution a batch axis of their own."""
    if roles.groups == 1:
        return placed, roles
    (channel,) = roles.columns
    group = Var("group", roles.groups)
    inner = Var("channel", channel.size // roles.groups)
    whole = ix.of(group) * inner.size + ix.of(inner)
    placed = placed.substitute({channel: whole})
    return placed, Roles((group, *roles.batch), roles.rows, (inner,))


def _ordered(placed: Placed, axes: tuple[Var, ...]) -> tuple[Var, ...]:
    """Output axes in memory order, before them those that are no output axes."""
    extra = tuple(var for var in axes if var not in placed.computation.axes and var.size != 1)
    return (*extra, *placed.memory_order(axes))


def product_loads(computation: Computation) -> tuple[Load, Load] | None:
    """The two factors of a float32 sum of products, A first; None if it is anything else."""
    value = computation.value
    if computation.kind != comp.SUM or computation.roles is None:
        return None
    if not isinstance(value, Apply) or value.name != "mul" or value.dtype is not DType.FLOAT32:
        return None
    a, b = value.args
    if not isinstance(a, Load) or not isinstance(b, Load) or b.loose_axes():
        return None
    return a, b


def _is_plain(a: Load, offset: Index, run: Var, step: int) -> bool:
    """Whether the run variable only ever adds ``step`` to the address."""
    rest = offset - ix.of(run) * step
    guards = [a.indices[axis] for axis in a.loose_axes()]
    return step > 0 and not any(run in ix.variables(index) for index in (rest, *guards))


def _is_sensible(tile: tuple[int, int], product: Product) -> bool:
    """Tiles much larger than the problem only waste threads; the smallest one always stays."""
    tile_m, tile_n = tile
    fits_m = tile_m <= 16 or tile_m < 2 * product.m
    return fits_m and (tile_n <= PANEL or tile_n < 2 * product.n)


def _candidate(product: Product, grid: Grid) -> Candidate:
    tile_m, tile_n = grid.tile_m, grid.tile_n
    is_constant = product.placed.constants[product.b.slot]
    weights = 4.0 * product.batches * product.n * product.k if is_constant else 0.0
    cost = TaskCost(
        2.0 * tile_m * tile_n * product.k,
        4.0 * product.k * (tile_m + tile_n),
        4.0 * tile_m * tile_n,
        weights / grid.tasks,
        _efficiency(grid),
    )
    make = functools.cache(functools.partial(_design, product, grid, cost))
    return Candidate(grid.tasks, cost, _arena_bytes(grid), make, _registers(grid))


def _patch(grid: Grid) -> tuple[int, int]:
    """What each thread keeps in registers."""
    return grid.tile_m // (grid.threads // 16), grid.tile_n // 16


def _efficiency(grid: Grid) -> float:
    """Multiplications for each load of the inner loop, as a part of both."""
    m, n = _patch(grid)
    return m * n / (m * n + m + n)


def _registers(grid: Grid) -> int:
    m, n = _patch(grid)
    return 48 + m * n + m + n


def _arena_bytes(grid: Grid) -> int:
    return 4 * DEPTH * (grid.tile_m + 1 + grid.tile_n)


def _design(product: Product, grid: Grid, cost: TaskCost) -> Design:
    reads, writes = _regions(product, grid)
    packings = {}
    if _is_packable(product):
        packings[product.b.slot] = Packing(
            _label(product), _packed_bytes(product), functools.partial(pack, product)
        )
    body = _body(product, grid, bool(packings))
    return Design(body, grid.tasks, reads, writes, cost, packings)


def _is_packable(product: Product) -> bool:
    """A constant that is read as B and nowhere else; an epilogue that reads it too wants it as it
    is.
    """
    slot = product.b.slot
    readers = [load for load in product.placed.computation.loads() if load.slot == slot]
    return product.placed.constants[slot] and len(readers) == 1


def _label(product: Product) -> str:
    """Another order of a weight's elements is another label."""
    order = (product.b.key, product.batch, product.columns, product.segments, product.run)
    return f"panels.{hashlib.sha256(repr(order).encode()).hexdigest()[:8]}"


def _packed_bytes(product: Product) -> int:
    return 4 * product.batches * -(-product.n // PANEL) * PANEL * product.k


def pack(product: Product, weight: Array) -> Array:
    """The weight as [batch][panel][k][PANEL], the columns beyond N zero."""
    axes = (*product.batch, *product.columns, *product.segments, *product.run)
    table = Computation(axes, _alone(product.b))
    flat = interpret.run(table, (weight,)).reshape(product.batches, product.n, product.k)
    panels = -(-product.n // PANEL)
    padded = np.zeros((product.batches, panels * PANEL, product.k), dtype=np.float32)
    padded[:, : product.n] = flat
    blocks = padded.reshape(product.batches, panels, PANEL, product.k)
    return np.ascontiguousarray(blocks.transpose(0, 1, 3, 2))


def _alone(load: Load) -> Load:
    return terms.load(0, load.indices, load.shape, load.dtype)


def _regions(product: Product, grid: Grid) -> tuple[dict[int, Boxes], Boxes]:
    tile_m, tile_n, batch = grid.places(np.arange(grid.tasks, dtype=np.int64))
    m, n = tile_m * grid.tile_m, tile_n * grid.tile_n
    ranges = {
        **space.mixed_radix(product.batch, batch, batch + 1),
        **space.mixed_radix(product.rows, m, np.minimum(m + grid.tile_m, product.m)),
        **space.mixed_radix(product.columns, n, np.minimum(n + grid.tile_n, product.n)),
    }
    return space.regions(product.placed, ranges, grid.tasks)


def _body(product: Product, grid: Grid, is_packed: bool) -> Body:
    tile_m, tile_n = grid.tile_m, grid.tile_n
    host = 4 * tile_m * tile_n + 8 * space.size_of(product.segments) * tile_m
    if not is_packed:
        host += 4 * product.k * tile_n
    batches = f"{product.batches} x " if product.batches > 1 else ""
    summary = f"{batches}[{product.m} x {product.k}] by [{product.k} x {product.n}], "
    summary += f"tiles of {tile_m} x {tile_n}"
    text = _text(product, grid, is_packed)
    prefetch = _prefetch_text(product, grid) if is_packed else ""
    return Body("contract", summary, text, _arena_bytes(grid), host, prefetch, _registers(grid))


def _prefetch_text(product: Product, grid: Grid) -> str:
    """The first weights that a task streams, up to what is worth asking for early."""
    panel_bytes = 4 * product.k * PANEL
    _, tile_n, batch = grid.digits
    steps = [(tile_n, grid.tile_n // PANEL)]
    if product.batch:
        steps.append((batch, -(-product.n // PANEL)))
    panels = [f"{number} * {step}" if step > 1 else number for number, step in steps]
    panel = " + ".join(text for text in panels if not text.startswith("0")) or "0"
    start = f"rf_input<char>(p, {product.b.slot})"
    if panel != "0":
        start += f" + (rf_size)({panel}) * {panel_bytes}"
    return f"rf_prefetch({start}, {min(panel_bytes, 65536)});"


def _text(product: Product, grid: Grid, is_packed: bool) -> str:
    placed = product.placed
    tile_m, tile_n, batch_digit = grid.digits
    names: dict[Var, str] = {}
    batch = space.decode(product.batch, "batch", names) if product.batch else []
    addresses, _ = space.pointers(placed)
    length = space.size_of(product.run)
    segments = space.size_of(product.segments)
    problem = f"rf_problem<{product.m}, {product.n}, {segments}, {length}, {product.step}>"
    lines = [
        *addresses,
        space.output_pointer(placed, len(placed.tensors)),
        f"const int tile_m = {tile_m};",
        f"const int tile_n = {tile_n};",
    ]
    if product.batch:
        lines.append(f"const int batch = {batch_digit};")
    lines += batch
    lines += [
        f"rf_contract<{problem}, {grid.tile_m}, {grid.tile_n}>(",
        "    arena, tile_m, tile_n,",
        "    RF_LAMBDA(int m, int segment) -> const float* {",
        *space.indent(_row_lines(product, dict(names)), 6),
        "    },",
        *space.indent(_source_lines(product, dict(names), is_packed), 4),
        "    RF_LAMBDA(int m, int n, float sum) {",
        *space.indent(_store_lines(product, dict(names)), 6),
        "    });",
    ]
    return "\n".join(lines)


def _digit(number: str, divisor: int, size: int) -> str:
    """The C text of ``number / divisor % size``; size 0 is without end."""
    if size == 1:
        return "0"
    text = number if divisor == 1 else f"{number} / {divisor}"
    return f"{text} % {size}" if size else text


def _row_lines(product: Product, names: dict[Var, str]) -> list[str]:
    lines = space.decode(product.rows, "m", names) if product.rows else []
    lines += space.decode(product.segments, "segment", names) if product.segments else []
    for var in product.run:
        names[var] = "0"
    writer = space.writer(product.placed, names)
    a = product.a
    loose = a.loose_axes()
    guard = terms.conjunction([terms.inside(a.indices[axis], 0, a.shape[axis]) for axis in loose])
    offset = ix.flatten(a.indices, product.placed.strides[a.slot])
    start = {var: ix.constant(0) for var in product.run}
    place = writer.index(
        ix.rewrite(offset, lambda atom: start.get(atom, ix.of(atom)))  # type: ignore[arg-type]
    )
    if loose:
        condition = writer.value(guard)
        lines += [*writer.statements, f"if (!{condition}) return nullptr;"]
    else:
        lines += writer.statements
    return [*lines, f"return x{a.slot} + ({place});"]


def _source_lines(product: Product, names: dict[Var, str], is_packed: bool) -> list[str]:
    slot = product.b.slot
    if is_packed:
        panels = -(-product.n // PANEL)
        start = f"x{slot}"
        if product.batch:
            start += f" + (rf_size)batch * {panels * product.k * PANEL}"
        return [f"rf_packed<{product.k}>{{{start}}},"]
    lines = space.decode((*product.segments, *product.run), "k", names)
    lines += space.decode(product.columns, "n", names) if product.columns else []
    writer = space.writer(product.placed, names)
    value = writer.value(product.b)
    inner = [*lines, *writer.statements, f"return {value};"]
    return [
        "rf_make_dense(RF_LAMBDA(int k, int n) -> float {",
        *space.indent(inner, 2),
        "}),",
    ]


def _store_lines(product: Product, names: dict[Var, str]) -> list[str]:
    lines = space.decode(product.rows, "m", names) if product.rows else []
    lines += space.decode(product.columns, "n", names) if product.columns else []
    writer: Writer = space.writer(product.placed, names, filled="sum")
    result = writer.value(product.placed.computation.result)
    place = writer.index(product.placed.output_offset)
    return [*lines, *writer.statements, f"y[{place}] = {result};"]


register_family(Family("contract", 10, fits, candidates))
