"""The cell family: a few rows by packed weights, and what several of the sums become together."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from ramforge.compiler.device import Target
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Cell, Computation, Roles
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.ir import Tensor
from ramforge.compiler.registry import Family, register_family
from ramforge.compiler.rprogram import Body, Candidate, Design, TaskCost
from ramforge.kernels import contract, space
from ramforge.kernels.core_tiles import PANEL
from ramforge.kernels.product import Product, take_apart
from ramforge.kernels.tiles import MOST_FEW_ROWS, Grid, few_rows

_FLOPS_OF_A_RESULT = 60.0  # mostly exponentials
_WIDTHS = (32, 64, 96, 128, 192, 256, 512)
_WIDEST_OF_A_BLOCK = 96


@dataclass(frozen=True, slots=True)
class Cells:
    """A computation taken apart: its sums as a product whose columns are (tile, part, result)."""

    placed: Placed
    product: Product
    cell: Cell
    column: Var
    width: int  # columns of a tile

    @property
    def parts(self) -> int:
        return self.cell.part.size

    @property
    def results(self) -> int:
        """Results of a tile, for each state and row."""
        return self.width // self.parts


@functools.lru_cache(maxsize=1024)
def cells_of(placed: Placed, width: int) -> Cells | None:
    found, cell = placed.computation, placed.computation.cell
    if cell is None or found.roles is None or len(found.roles.columns) != 1:
        return None
    (column,) = found.roles.columns
    results = width // cell.part.size
    if width % cell.part.size or column.size % results:
        return None
    outer = tuple(axis for axis in found.axes[1:] if axis != column)
    tile, inner = Var("tile", column.size // results), Var("inner", results)
    columns = (tile, cell.part, inner)
    value = terms.rewrite(found.value, {column: ix.of(tile) * results + ix.of(inner)})
    roles = Roles((), found.roles.rows, columns)
    axes = (*outer, *columns)
    sums = Computation(axes, value, comp.SUM, found.reduction, roles=roles)
    target = Tensor("", sums.shape, sums.dtype)
    plain = replace(placed, computation=sums, target=target, output=comp.positions(axes))
    product = take_apart(plain)
    if product is None or len(product.rows) > 1 or not set(product.rows) <= set(outer):
        return None
    return Cells(placed, product, cell, column, width)


def fits(placed: Placed) -> bool:
    if placed.computation.cell is None:
        return False
    return any(_can_do(cells_of(placed, width)) for width in _WIDTHS)


def _can_do(cells: Cells | None) -> bool:
    if cells is None or cells.product.is_of_bytes:
        return False
    product, slot = cells.product, cells.product.b.slot
    readers = [load for load in cells.placed.computation.loads() if load.slot == slot]
    few = product.m <= MOST_FEW_ROWS and product.batches == 1
    return few and len(readers) == 1 and product.is_packable and product.has_whole_chunks


def candidates(placed: Placed, target: Target) -> tuple[Candidate, ...]:
    found = [cells for width in _WIDTHS if (cells := cells_of(placed, width)) and _can_do(cells)]
    if target.is_host:  # the widest tiles that leave nobody idle, and some narrower ones
        wide = [cells for cells in found if cells.product.n >= target.sms * cells.width]
        found = (wide or found[:1])[-3:]
    else:
        found = [cells for cells in found if cells.width <= _WIDEST_OF_A_BLOCK] or found[:1]
    return tuple(_candidate(cells, target) for cells in reversed(found))


def _candidate(cells: Cells, target: Target) -> Candidate:
    product, width = cells.product, cells.width
    grid = few_rows(product, width, target)
    of_a, of_b = grid.sizes
    cost = TaskCost(
        2.0 * product.m * width * product.k + _stored(cells) * _FLOPS_OF_A_RESULT,
        float(product.k * (of_a * product.m + of_b * width)),
        4.0 * _stored(cells),
        float(of_b * product.n * product.k) / grid.tasks,
        grid.efficiency,
    )
    lanes = contract.lanes_of(product, target)
    arena = 0 if target.is_host else grid.arena_bytes + _sums_bytes(grid)
    make = functools.cache(functools.partial(_design, cells, grid, cost, lanes, arena))
    return Candidate(grid.tasks, cost, arena, make, grid.registers)


def _stored(cells: Cells) -> int:
    return cells.product.m * cells.results * len(cells.cell.results)


def _sums_bytes(grid: Grid) -> int:
    return 4 * grid.tile.m * grid.tile.n


def _design(cells: Cells, grid: Grid, cost: TaskCost, lanes: int, arena: int) -> Design:
    product = cells.product
    first = np.arange(grid.tasks, dtype=np.int64) * cells.results
    ranges = {cells.column: (first, first + cells.results - 1)}
    reads, writes = space.regions(cells.placed, ranges, grid.tasks)
    sizes = f"[{product.m} x {product.k}] by [{product.k} x {product.n}]"
    summary = f"{sizes}, results of {cells.parts} sums, {grid.tile.n} columns"
    body = Body(
        "cell",
        summary,
        _text(cells, grid, lanes),
        arena,
        contract.host_arena_bytes(product, grid, lanes) + _sums_bytes(grid),
        contract.prefetch_text(product, grid, lanes),
        grid.registers,
    )
    packings = {product.b.slot: contract.packing(product, grid, lanes)}
    return Design(body, grid.tasks, reads, writes, cost, packings)


def _text(cells: Cells, grid: Grid, lanes: int) -> str:
    placed, product = cells.placed, cells.product
    addresses, _ = space.pointers(placed)
    panels = grid.tile.n // PANEL
    lines = [
        *addresses,
        space.output_pointer(placed, len(placed.tensors)),
        f"using problem = {contract.problem(product)};",
        f"rf_contract_cells<problem, {panels}, {cells.parts}>(",
        "    arena, task,",
        f"    RF_LAMBDA(int m, int segment) -> const {product.a.dtype.c_name}* {{",
        *space.indent(contract.row_lines(product, {}), 6),
        "    },",
        *space.indent(contract.source_lines(product, {}, lanes), 4),
        "    RF_LAMBDA(int m, int n, const float* sums) {",
        *space.indent(_store_lines(cells), 6),
        "    });",
    ]
    return "\n".join(lines)


def _store_lines(cells: Cells) -> list[str]:
    names: dict[Var, str] = {cells.column: "n"}
    lines = space.decode(cells.product.rows, "m", names) if cells.product.rows else []
    lines += [
        f"const float sum{number} = sums[{number * cells.results}];"
        for number in range(cells.parts)
    ]
    placed = cells.placed
    writer = space.writer(placed, names)
    stores = []
    state = placed.computation.axes[0]
    for number, result in enumerate(cells.cell.results):
        value = writer.declare(result.dtype.c_name, writer.value(result))
        offset = ix.rewrite(
            placed.output_offset,
            lambda atom, state=state, number=number: (  # type: ignore[misc]
                ix.constant(number) if atom == state else ix.of(atom)
            ),
        )
        stores.append(f"y[{writer.index(offset)}] = {value};")
    return [*lines, *writer.statements, *stores]


register_family(Family("cell", 4, fits, candidates))
