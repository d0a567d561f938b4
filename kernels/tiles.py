"""How a matrix product is cut into tiles, and how a block of threads makes one of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from ramforge.compiler.device import Target
from ramforge.compiler.expressions.regions import Ints
from ramforge.compiler.ir import DType
from ramforge.kernels import core_tiles
from ramforge.kernels.core_tiles import PANEL
from ramforge.kernels.product import Product

_CHUNK_BYTES = 16
MOST_FEW_ROWS = 4
# Guesses: such rTasks wait for memory.
_EFFICIENCY_OF_FEW, _REGISTERS_OF_FEW = 0.25, 96
_MOST_SUMS = 64  # of a thread
_FEWEST_SUMS = 16  # fewer, and warps rather share a place and take other parts of K


@dataclass(frozen=True, slots=True)
class Tile:
    """``stages`` of ``chunks`` x 16 bytes of K each have a place in the arena; where one factor is
    narrower, its chunks are fewer.
    """

    m: int
    n: int
    chunks: int
    stages: int


# The chunks of a stage are a multiple of the warps that share a place.
TILES = (
    Tile(128, 128, 4, 3),
    Tile(128, 64, 4, 3),
    Tile(64, 128, 4, 3),
    Tile(64, 64, 4, 4),
    Tile(64, 32, 8, 3),
    Tile(32, 64, 8, 3),
    Tile(32, 32, 8, 4),
    Tile(16, 64, 8, 4),
    Tile(16, 32, 8, 4),
)


@dataclass(frozen=True, slots=True)
class Math:
    """How products are made: the C text, and the least that one warp does at once."""

    text: str
    warp_m: int
    warp_n: int
    chunks: int = 1  # that are multiplied together
    factors: str = ""  # the kind of factors, for a device that has instructions for them


_WARP_ROWS, _WARP_COLUMNS = 4, 8  # how the 32 threads of a warp share its sums
PLAIN = Math("rf_plain", 4, 8)
WIDENED = Math("rf_widened<problem>", 4, 8)
_MATRIX = {
    "tf32": Math("rf_matrix<RF_TF32>", 16, 16, 2, "tf32"),
    "float16": Math("rf_matrix<RF_FLOAT16>", 16, 16, 2, "float16"),
    "bfloat16": Math("rf_matrix<RF_BFLOAT16>", 16, 16, 2, "bfloat16"),
}

_SIGNS = {DType.INT8: "S8", DType.UINT8: "U8"}
_BYTES = {
    (a, b): Math(f"rf_matrix<RF_{_SIGNS[a]}_{_SIGNS[b]}>", 16, 16, 2, "int8")
    for a in _SIGNS
    for b in _SIGNS
}


def math_of(product: Product, target: Target) -> Math:
    """By the types of the factors; floats lose bits only where that is asked for. Factors of two
    types are made floats and multiplied one by one.
    """
    if product.is_of_bytes:
        return _BYTES[product.a.dtype, product.b.dtype]
    return WIDENED if product.is_mixed else math_for(product.a.dtype, target)


def math_for(dtype: DType, target: Target) -> Math:
    """How factors of one type are multiplied."""
    if dtype is DType.FLOAT32:
        return _MATRIX["tf32"] if target.precision == "tf32" else PLAIN
    return _MATRIX[dtype.label]


@dataclass(frozen=True, slots=True)
class Grid:
    """The rTasks of a product and the order in which they are numbered.

    On a GPU the tiles of one block of rows are neighbours: then who reads some rows waits for a
    few neighbouring rTasks.
    """

    tile: Tile
    math: Math
    sizes: tuple[int, int]  # bytes of an element of A and of B
    warps_m: int
    warps_n: int
    tiles_m: int
    tiles_n: int
    batches: int
    threads: int
    rows_first: bool
    is_few: bool = False  # so few rows that only the weights matter
    is_on_core: bool = False

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

    @property
    def call(self) -> list[str]:
        """The primitive that makes a tile of ``problem``, and its first arguments, as C text."""
        of_bytes = "_bytes" if self.sizes == (1, 1) else ""
        if self.is_few:
            panels = self.tile.n // PANEL
            return [f"rf_contract_few{of_bytes}<problem, {panels}>(", "    arena, tile_n,"]
        return [
            f"using tile = {self._template};",
            f"rf_contract{of_bytes}<problem, tile, {self.math.text}>(",
            "    arena, tile_m, tile_n,",
        ]

    @property
    def _template(self) -> str:
        tile = self.tile
        numbers = (tile.m, tile.n, tile.chunks, tile.stages, self.warps_m, self.warps_n)
        return f"rf_tile<{', '.join(map(str, numbers))}>"

    @property
    def sharing(self) -> int:
        """Warps that make the same sums from other parts of K."""
        return self.threads // 32 // (self.warps_m * self.warps_n)

    @property
    def patch(self) -> tuple[int, int]:
        """Rows and columns of which a thread keeps the sums."""
        rows = self.tile.m // self.warps_m // _WARP_ROWS
        return rows, self.tile.n // self.warps_n // _WARP_COLUMNS

    @property
    def efficiency(self) -> float:
        """Multiplications for each load of the inner loop, as a part of both."""
        if self.is_few:
            return _EFFICIENCY_OF_FEW
        m, n = (self.tile.m / 16, self.tile.n / 16) if self.is_on_core else self.patch
        return m * n / (m * n + m + n)

    @property
    def registers(self) -> int:
        if self.is_few or self.is_on_core:
            return _REGISTERS_OF_FEW
        m, n = self.patch
        return 56 + m * n + 4 * n

    @property
    def arena_bytes(self) -> int:
        tile = self.tile
        if self.is_few:
            return 4 * self.threads // 32 * tile.m * tile.n
        if self.is_on_core:
            return 0
        padding, depth = 8 // tile.chunks, tile.chunks * _CHUNK_BYTES // max(self.sizes)
        a, b = (depth * size for size in self.sizes)
        stages = tile.stages * (a * (tile.m + padding) + b * (tile.n + padding))
        return max(stages, 4 * (self.sharing - 1) * tile.m * tile.n)


def grids(product: Product, target: Target) -> list[Grid]:
    """Every way that makes sense; the smallest tile always does."""
    math = math_of(product, target)
    if target.is_host:
        tiles = core_tiles.shapes(product, target.sms)
        return [_on_core(product, Tile(m, n, 8, 2), math, target) for m, n in tiles]
    return _few(product, target) + [
        _grid(product, tile, math, target)
        for tile in TILES
        if _fits(tile, product) and _warps(tile, math, target.threads // 32) is not None
    ]


def _few(product: Product, target: Target) -> list[Grid]:
    """For a few rows and packed weights, one panel or two for each rTask."""
    if product.m > MOST_FEW_ROWS:
        return []
    if not (product.is_packable and product.has_whole_chunks) or product.fill:
        return []
    widths = [width for width in (2 * PANEL, PANEL) if width == PANEL or product.n > width]
    return [few_rows(product, width, target) for width in widths]


def few_rows(product: Product, width: int, target: Target) -> Grid:
    """All rows at once, and so many columns for each rTask."""
    places = (1, -(-product.n // width), product.batches)
    tile = Tile(product.m, width, 1, 1)
    return Grid(tile, PLAIN, _sizes(product), 1, 1, *places, target.threads, False, True)


def _fits(tile: Tile, product: Product) -> bool:
    """Tiles much larger than the problem only waste threads."""
    fits_m = tile.m <= 16 or tile.m < 2 * product.m
    return fits_m and (tile.n <= PANEL or tile.n < 2 * product.n)


def _grid(product: Product, tile: Tile, math: Math, target: Target) -> Grid:
    warps = _warps(tile, math, target.threads // 32)
    assert warps is not None
    shape = (*warps, *_tiles(product, tile), product.batches)
    return Grid(tile, math, _sizes(product), *shape, target.threads, False)


def _on_core(product: Product, tile: Tile, math: Math, target: Target) -> Grid:
    shape = (1, 1, *_tiles(product, tile), product.batches)
    rows_first = core_tiles.rows_first(product)
    sizes = _sizes(product)
    return Grid(tile, math, sizes, *shape, target.threads, rows_first, is_on_core=True)


def _tiles(product: Product, tile: Tile) -> tuple[int, int]:
    return -(-product.m // tile.m), -(-product.n // tile.n)


def _sizes(product: Product) -> tuple[int, int]:
    return product.a.dtype.itemsize, product.b.dtype.itemsize


@functools.cache
def _warps(tile: Tile, math: Math, warps: int) -> tuple[int, int] | None:
    """How many stand along m and n. The rest shares K, so that no thread has only a few sums."""
    found = []
    for m in _powers(min(warps, tile.m // math.warp_m)):
        for n in _powers(min(warps // m, tile.n // math.warp_n)):
            sharing = warps // (m * n)
            patch_m, patch_n = tile.m // m // _WARP_ROWS, tile.n // n // _WARP_COLUMNS
            sums = patch_m * patch_n
            if sums <= _MOST_SUMS and tile.chunks % (sharing * math.chunks) == 0:
                too_few = max(0, _FEWEST_SUMS - sums)
                found.append((too_few, sharing, (patch_m + patch_n) / sums, (m, n)))
    return min(found)[-1] if found else None


def _powers(most: int) -> list[int]:
    return [1 << i for i in range(most.bit_length()) if 1 << i <= most]


def _digit(number: str, divisor: int, size: int) -> str:
    """The C text of ``number / divisor % size``; size 0 is without end."""
    if size == 1:
        return "0"
    text = number if divisor == 1 else f"{number} / {divisor}"
    return f"{text} % {size}" if size else text
