"""How a matrix product is cut for cores: into tiles of nearly the same size, as much for each core.

A core gets neighbouring tiles. These are whole rows, of which it has made itself what it reads; but
where there are more columns than rows, and too many weights for the cache of a core, they are
columns, so that each weight is read by one core.
"""

from __future__ import annotations

from collections.abc import Iterator

from ramforge.kernels.product import Product

PANEL = 32  # columns of packed weights that lie together
_ROWS = (64, 32, 16)
_MOST_ROWS = 128  # where each tile has to bring its columns in order first
_COLUMNS = (256, 128, 64, 32)
_KEPT_BYTES = 1 << 20  # of weights, in the cache of a core
_WIDE, _DEEP = 128, 512  # columns, and a K whose wider panels would not stay in a core's cache


def shapes(product: Product, cores: int) -> list[tuple[int, int]]:
    """Rows and columns of a tile, every way that makes sense."""
    return list(dict.fromkeys(_shapes(product, cores)))


def _shapes(product: Product, cores: int) -> Iterator[tuple[int, int]]:
    panels = -(-product.n // PANEL)
    for columns in _COLUMNS:
        if columns > _WIDE and product.k > _DEEP:
            continue
        across = -(-product.n // columns)
        width = PANEL * -(-panels // across)
        others = -(-product.n // width) * product.batches
        for rows in _ROWS if product.is_packable else (_MOST_ROWS, *_ROWS):
            yield _even(rows, product.m, others, cores), width


def _even(most: int, rows: int, others: int, cores: int) -> int:
    """Rows of a tile, up to ``most``, so that the core with most to do has least to do."""
    largest = -(-rows // -(-rows // most))

    def load(height: int) -> int:
        tiles = -(-rows // height) * others
        return height * -(-tiles // cores)

    return min(range(largest, 3 * largest // 4, -1), key=load)


def rows_first(product: Product) -> bool:
    """Whether tiles that are neighbours have other rows, and not other columns."""
    weights = 4 * product.k * product.n
    return product.n >= product.m and weights > _KEPT_BYTES
