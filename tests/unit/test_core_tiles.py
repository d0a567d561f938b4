"""How a product is cut for cores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from ramforge.kernels import core_tiles
from ramforge.kernels.product import Product


def product(m: int, n: int, k: int = 64, batches: int = 1, is_packable: bool = True) -> Product:
    fake = SimpleNamespace(m=m, n=n, k=k, batches=batches, is_packable=is_packable)
    return cast(Product, fake)


@pytest.mark.parametrize("cores", [1, 2, 4])
@pytest.mark.parametrize(("m", "n"), [(784, 128), (3136, 64), (49, 512), (196, 1024), (12544, 16)])
def test_no_core_has_much_more_to_do_than_others(m: int, n: int, cores: int) -> None:
    for rows, columns in core_tiles.shapes(product(m, n), cores):
        tiles = -(-m // rows) * -(-n // columns)
        if tiles >= 3 * cores:
            share = -(-n // core_tiles.PANEL) * core_tiles.PANEL * m / cores
            assert -(-tiles // cores) * rows * columns <= 1.07 * share


@pytest.mark.parametrize(("m", "n"), [(1, 1), (7, 33), (65, 320), (1000, 1000), (196, 577)])
def test_tiles_are_of_nearly_the_same_size(m: int, n: int) -> None:
    for rows, columns in core_tiles.shapes(product(m, n), 2):
        assert columns % core_tiles.PANEL == 0 and rows <= 64 and columns <= 256
        down, across = -(-m // rows), -(-n // columns)
        assert (down - 1) * rows < m <= down * rows
        assert across * columns - n < core_tiles.PANEL * across
        assert down * rows - m < rows


def test_deep_products_have_narrow_tiles_and_loose_columns_tall_ones() -> None:
    assert max(n for _, n in core_tiles.shapes(product(512, 512, k=4096), 2)) == 128
    assert max(n for _, n in core_tiles.shapes(product(512, 512, k=128), 2)) == 256
    assert max(m for m, _ in core_tiles.shapes(product(512, 512, is_packable=False), 2)) == 128


def test_neighbours_are_rows_where_there_are_more_columns() -> None:
    assert core_tiles.rows_first(product(49, 512)) and not core_tiles.rows_first(product(3136, 64))
