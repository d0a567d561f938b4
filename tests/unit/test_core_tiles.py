"""How a product is cut for cores, and what a core makes of it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from ramforge.kernels import contract, core_tiles
from ramforge.kernels.product import Product
from tests.helpers import check, numbers, one


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


def test_a_core_has_whole_rows_unless_columns_are_more_and_their_weights_many() -> None:
    assert not core_tiles.rows_first(product(3136, 64, k=64))
    assert not core_tiles.rows_first(product(49, 512, k=512))
    assert core_tiles.rows_first(product(49, 512, k=513))
    assert not core_tiles.rows_first(product(600, 512, k=2000))


def test_the_arena_has_a_place_for_the_rows_that_are_copied() -> None:
    text = Path(contract.__file__).with_name("contract_host.cuh").read_text()
    found = re.search(
        r"RF_CHUNK = (\d+), RF_PITCH = RF_CHUNK \+ (\d+), RF_COPIED_ROWS = (\d+)", text
    )
    assert found is not None
    chunk, gap, rows = map(int, found.groups())
    assert 4 * rows * (chunk + gap) == contract._COPIED_BYTES


def test_rows_are_copied_piece_by_piece_and_window_by_window(tmp_path: Path) -> None:
    products = [
        one("MatMul", numbers(m, k, seed=k), numbers(k, 40, seed=m))
        for m, k in [(1, 383), (2, 385), (3, 769), (13, 384), (27, 1000), (49, 5)]
    ]
    windows = [
        one("Conv", numbers(1, c, 9, 7, seed=c), numbers(33, c, size, size), pads=[size // 2] * 4)
        for c, size in [(3, 7), (5, 3), (64, 5), (400, 3)]
    ]
    check([*products, *windows], tmp_path)
