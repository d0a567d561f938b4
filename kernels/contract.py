"""The contract family: tiles of a matrix product, of floats or of bytes. MatMul, Gemm and every
convolution with real channels. Constant operands are packed into panels when the model is compiled.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ramforge.compiler.device import Target
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import interpret, terms
from ramforge.compiler.expressions.computation import Computation
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.expressions.regions import Boxes
from ramforge.compiler.expressions.terms import Load
from ramforge.compiler.expressions.text import Writer
from ramforge.compiler.ir import Array, Tensor
from ramforge.compiler.registry import Family, register_family
from ramforge.compiler.rprogram import Body, Candidate, Design, Packing, TaskCost
from ramforge.kernels import space
from ramforge.kernels.core_tiles import PANEL
from ramforge.kernels.product import Product, take_apart, vector_of
from ramforge.kernels.tiles import MOST_FEW_ROWS, Grid, grids

_COPIED_BYTES = 4 * 12 * 400  # RF_COPIED_ROWS x RF_PITCH floats in contract_host.cuh
_BYTES_OF_A_LANE = 4  # of K: what a core multiplies for one sum at once


def fits(placed: Placed) -> bool:
    return take_apart(placed) is not None


def candidates(placed: Placed, target: Target) -> tuple[Candidate, ...]:
    product = take_apart(placed)
    assert product is not None
    if target.precision == "tf32" and not target.is_host and product.m > MOST_FEW_ROWS:
        product = product.with_wide_weights()  # for the instructions that take tf32
    return tuple(_candidate(product, grid, target) for grid in grids(product, target))


def _candidate(product: Product, grid: Grid, target: Target) -> Candidate:
    tile = grid.tile
    of_a, of_b = grid.sizes
    is_constant = product.placed.constants[product.b.slot]
    weights = float(of_b * product.batches * product.n * product.k) if is_constant else 0.0
    cost = TaskCost(
        2.0 * tile.m * tile.n * product.k,
        float(product.k * (of_a * tile.m + of_b * tile.n)),
        4.0 * tile.m * tile.n,
        weights / grid.tasks,
        grid.efficiency * target.speedup(grid.math.factors),
    )
    lanes = lanes_of(product, target)
    make = functools.cache(functools.partial(_design, product, grid, cost, lanes))
    return Candidate(grid.tasks, cost, grid.arena_bytes, make, grid.registers)


def lanes_of(product: Product, target: Target) -> int:
    """How many elements of K lie together in packed weights."""
    on_a_core = _BYTES_OF_A_LANE if product.is_of_bytes else 1
    return on_a_core if target.is_host else vector_of(product.b)


def _design(product: Product, grid: Grid, cost: TaskCost, vector: int) -> Design:
    """``vector`` elements of K lie together in packed weights: what a core reads at once is a row
    of a panel, what a thread reads is 16 bytes of K.
    """
    reads, writes = _regions(product, grid)
    packings = {product.b.slot: packing(product, grid, vector)} if product.is_packable else {}
    body = _body(product, grid, vector if packings else 0)
    return Design(body, grid.tasks, reads, writes, cost, packings)


def packing(product: Product, grid: Grid, vector: int) -> Packing:
    """How B's panels are made."""
    return Packing(
        _label(product, grid, vector),
        _panel_bytes(product, vector) * product.batches * -(-product.n // PANEL),
        functools.partial(pack, product, grid, vector),
    )


def _label(product: Product, grid: Grid, vector: int) -> str:
    """Another order of a weight's elements, or other bits, is another label."""
    axes = (product.batch, product.columns, product.segments, product.run)
    order = (product.b.key, *axes, vector, grid.math.factors)
    return f"panels.{hashlib.sha256(repr(order).encode()).hexdigest()[:8]}"


def _panel_bytes(product: Product, vector: int) -> int:
    return product.b.dtype.itemsize * PANEL * -(-product.k // vector) * vector


def pack(product: Product, grid: Grid, vector: int, weight: Array) -> Array:
    """The weight as [batch][panel][k / vector][PANEL][vector], zero beyond its end."""
    axes = (*product.batch, *product.columns, *product.segments, *product.run)
    flat = _elements(product.b, axes, weight).reshape(product.batches, product.n, product.k)
    if grid.math.factors == "tf32":
        flat = rounded_to_tf32(flat.astype(np.float32, copy=False))
    panels, depth = -(-product.n // PANEL), -(-product.k // vector)
    padded = np.zeros((product.batches, panels * PANEL, depth * vector), flat.dtype)
    padded[:, : product.n, : product.k] = flat
    blocks = padded.reshape(product.batches, panels, PANEL, depth, vector)
    return np.ascontiguousarray(blocks.transpose(0, 1, 3, 2, 4))


def rounded_to_tf32(values: Array) -> Array:
    """The nearest floats of which only the upper 19 bits count, of two the one further from 0; but
    what is a number stays one.
    """
    kept = np.uint32(0xFFFFE000)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits + np.uint32(0x1000)) & kept).view(np.float32)
    cut = np.where(np.isfinite(values), (bits & kept).view(np.float32), values)
    return np.where(np.isfinite(values) & np.isfinite(rounded), rounded, cut)


def _elements(load: Load, axes: tuple[Var, ...], weight: Array) -> Array:
    """What is read over these axes; in place where that is only another order of axes."""
    offset = ix.flatten(load.indices, Tensor("", load.shape, load.dtype).strides)
    if all(atom in axes and step >= 0 for atom, step in offset.terms):
        steps = [offset.coefficient(axis) * weight.itemsize for axis in axes]
        start = np.ascontiguousarray(weight).reshape(-1)[offset.const :]
        return as_strided(start, [axis.size for axis in axes], steps, writeable=False)
    alone = terms.load(0, load.indices, load.shape, load.dtype)
    return interpret.run(Computation(axes, alone), (weight,))


def _regions(product: Product, grid: Grid) -> tuple[dict[int, Boxes], Boxes]:
    tile_m, tile_n, batch = grid.places(np.arange(grid.tasks, dtype=np.int64))
    m, n = tile_m * grid.tile.m, tile_n * grid.tile.n
    ranges = {
        **space.mixed_radix(product.batch, batch, batch + 1),
        **space.mixed_radix(product.rows, m, np.minimum(m + grid.tile.m, product.m)),
        **space.mixed_radix(product.columns, n, np.minimum(n + grid.tile.n, product.n)),
    }
    return space.regions(product.placed, ranges, grid.tasks)


def _body(product: Product, grid: Grid, vector: int) -> Body:
    """``vector`` is 0 if B is not packed."""
    tile = grid.tile
    batches = f"{product.batches} x " if product.batches > 1 else ""
    summary = f"{batches}[{product.m} x {product.k}] by [{product.k} x {product.n}], "
    summary += f"tiles of {tile.m} x {tile.n}"
    text = _text(product, grid, vector)
    prefetch = prefetch_text(product, grid, vector) if vector else ""
    host = host_arena_bytes(product, grid, vector)
    return Body("contract", summary, text, grid.arena_bytes, host, prefetch, grid.registers)


def host_arena_bytes(product: Product, grid: Grid, vector: int) -> int:
    """Sums, some rows of A, and where runs start; B where it is not read in place."""
    if product.is_of_bytes:
        return _host_arena_of_bytes(product, grid, vector)
    tile, segments = grid.tile, space.size_of(product.segments)
    needed = 4 * tile.m * tile.n + _COPIED_BYTES + 8 * segments * tile.m
    return needed if vector == 1 else needed + 4 * product.k * tile.n


def _host_arena_of_bytes(product: Product, grid: Grid, vector: int) -> int:
    """Sums, one row of what they are off by, and A gathered; B where it is not read in place."""
    tile, deep = grid.tile, -(-product.k // _BYTES_OF_A_LANE) * _BYTES_OF_A_LANE
    needed = 4 * (tile.m + 1) * tile.n + deep * tile.m
    return needed if vector == _BYTES_OF_A_LANE else needed + deep * tile.n


def prefetch_text(product: Product, grid: Grid, vector: int) -> str:
    """The first weights that a task streams, up to what is worth asking for early."""
    panel_bytes = _panel_bytes(product, vector)
    _, tile_n, batch = grid.digits
    steps = [(tile_n, grid.tile.n // PANEL)]
    if product.batch:
        steps.append((batch, -(-product.n // PANEL)))
    panels = [f"{number} * {step}" if step > 1 else number for number, step in steps]
    panel = " + ".join(text for text in panels if not text.startswith("0")) or "0"
    start = f"rf_input<char>(p, {product.b.slot})"
    if panel != "0":
        start += f" + (rf_size)({panel}) * {panel_bytes}"
    return f"rf_prefetch({start}, {min(panel_bytes, 65536)});"


def _text(product: Product, grid: Grid, vector: int) -> str:
    placed = product.placed
    tile_m, tile_n, batch_digit = grid.digits
    names: dict[Var, str] = {}
    batch = space.decode(product.batch, "batch", names) if product.batch else []
    addresses, _ = space.pointers(placed)
    kind = product.a.dtype.c_name
    lines = [
        *addresses,
        space.output_pointer(placed, len(placed.tensors)),
        *([] if grid.is_few else [f"const int tile_m = {tile_m};"]),
        f"const int tile_n = {tile_n};",
    ]
    if product.batch:
        lines.append(f"const int batch = {batch_digit};")
    lines += batch
    lines += [
        f"using problem = {problem(product)};",
        *grid.call,
        f"    RF_LAMBDA(int m, int segment) -> const {kind}* {{",
        *space.indent(row_lines(product, dict(names)), 6),
        "    },",
        *space.indent(source_lines(product, dict(names), vector), 4),
        f"    RF_LAMBDA(int m, int n, {product.sum_type} sum) {{",
        *space.indent(_store_lines(product, dict(names)), 6),
        "    });",
    ]
    return "\n".join(lines)


def problem(product: Product) -> str:
    numbers = (product.m, product.n, space.size_of(product.segments), product.length, product.step)
    parts = [product.a.dtype.c_name, *map(str, numbers), str(product.together)]
    if product.is_mixed or product.fill:
        parts.append(product.b.dtype.c_name)
    if product.fill:
        parts.append(str(product.fill))
    return f"rf_problem<{', '.join(parts)}>"


def row_lines(product: Product, names: dict[Var, str]) -> list[str]:
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


def source_lines(product: Product, names: dict[Var, str], vector: int) -> list[str]:
    slot, kind = product.b.slot, product.b.dtype.c_name
    if vector:
        start = f"x{slot}"
        if product.batch:
            panel = _panel_bytes(product, vector) // product.b.dtype.itemsize
            start += f" + (rf_size)batch * {-(-product.n // PANEL) * panel}"
        return [f"rf_packed<{kind}, {product.k}, {vector}>{{{start}}},"]
    lines = space.decode((*product.segments, *product.run), "k", names)
    lines += space.decode(product.columns, "n", names) if product.columns else []
    writer = space.writer(product.placed, names)
    offset = ix.flatten(product.b.indices, product.placed.strides[slot])
    place = writer.index(offset)
    inner = [*lines, *writer.statements, f"return x{slot} + ({place});"]
    return [
        f"rf_make_dense<{product.together_in_columns}>(RF_LAMBDA(int k, int n) -> const {kind}* {{",
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
