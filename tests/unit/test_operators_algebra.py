"""Einsum and Det."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ramforge
from ramforge.compiler.errors import UnsupportedModel
from ramforge.kernels.operators.einsum import Malformed, parse
from tests.helpers import Array, Case, Known, check, model_of, numbers, one


def einsum(equation: str, *operands: Array | Known) -> Case:
    arrays = [value.value if isinstance(value, Known) else value for value in operands]
    case = one("Einsum", *operands, equation=equation)
    wanted = np.asarray(np.einsum(equation.replace(" ", ""), *arrays))
    return replace(case.giving(wanted.astype(np.asarray(arrays[0]).dtype)), tolerance=1e-5)


def products() -> list[Case]:
    a, b = numbers(3, 4, 5), numbers(3, 5, 6)
    square, cube = numbers(4, 4), numbers(3, 3, 3)
    return [
        einsum("bij,bjk->bik", a, b),
        einsum("bij,bjk->kbi", a, b),
        einsum("bij, bjk", a, b),
        einsum("bij,bjk->k", a, b),
        einsum("ij,jk", numbers(65, 33), Known(numbers(33, 40))),
        einsum("ij,jk", Known(numbers(20, 33)), numbers(33, 40)),
        einsum("bhqd,bhkd->bhqk", numbers(2, 2, 5, 8), numbers(2, 2, 7, 8)),
        einsum("abcd,cdef->abef", numbers(2, 3, 4, 5), numbers(4, 5, 3, 2)),
        einsum("ki,kj->ji", numbers(9, 4), numbers(9, 3)),
        einsum("i,j->ij", numbers(4), numbers(5)),
        einsum("i,i->", numbers(70), numbers(70, seed=1)),
        einsum("ij,i->ij", square, numbers(4)),
        einsum("ii", square),
        einsum("ii->i", square),
        einsum("iij->ji", numbers(3, 3, 2)),
        einsum("ii,ij->j", square, numbers(4, 4, seed=1)),
        einsum("iii,ij->", cube, numbers(3, 2)),
        einsum("Ab,bA->Ab", numbers(2, 3), numbers(3, 2)),
        einsum("bA", numbers(2, 3)),
        einsum("ij->", numbers(5, 9)),
        einsum("->", numbers()),
        einsum(",i->i", numbers(), numbers(4)),
    ]


def several() -> list[Case]:
    return [
        einsum("ij,jk,kl->il", numbers(3, 4), numbers(4, 5), numbers(5, 2)),
        einsum("ij,jk,kl,lm->im", numbers(2, 9), numbers(9, 3), numbers(3, 9), numbers(9, 2)),
        einsum("a,b,c->cab", numbers(2), numbers(3), numbers(4)),
        einsum("i,i,i->", numbers(6), numbers(6, seed=1), numbers(6, seed=2)),
        einsum("ij,kl->i", numbers(3, 4), numbers(2, 5)),
        einsum("...ij,...jk->...ik", numbers(2, 1, 3, 4), numbers(1, 5, 4, 2)),
        einsum("...ij,...jk", numbers(2, 3, 4), numbers(2, 4, 2)),
        einsum("i...->...", numbers(3, 4, 5)),
        einsum("...i->i...", numbers(3, 4, 5)),
        einsum("b...,b...->...b", numbers(3, 1, 5), numbers(3, 4, 5)),
        einsum("ij,jk->ik", numbers(3, 1), numbers(1, 4)),
        einsum("ij,jk->ik", np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32)),
        einsum("ij,jk->ik", np.zeros((0, 2), np.float32), np.zeros((2, 3), np.float32)),
        *(
            einsum("ij,jk->ki", numbers(3, 4, dtype=kind), numbers(4, 2, dtype=kind))
            for kind in ("int32", "int64", "uint8", "float64")
        ),
        einsum("ij,jk,kl->il", *(numbers(3, 3, dtype="int8", seed=n) for n in range(3))),
        replace(einsum("ij,jk->ik", *(numbers(3, 3, dtype="float16"),) * 2), tolerance=2e-3),
        replace(einsum("ij,jk,kl->il", *(numbers(3, 3, dtype="float16"),) * 3), tolerance=5e-3),
    ]


def determinants() -> list[Case]:
    cases = []
    for size in (1, 2, 3, 4, 7):
        x = numbers(2, 3, size, size)
        cases.append(one("Det", x).giving(np.linalg.det(x)))
    needs_pivots = np.array([[0, 1, 2, 3], [1, 0, 0, 2], [2, 5, 0, 1], [0, 0, 3, 1]], np.float32)
    singular = np.ones((4, 4), np.float32)
    wide = numbers(6, 6, dtype="float64")
    return [
        *(replace(case, tolerance=1e-5) for case in cases),
        one("Det", needs_pivots).giving(np.linalg.det(needs_pivots)),
        one("Det", singular).giving(np.float32(0)),
        one("Det", np.zeros((2, 5, 5), np.float32)).giving(np.zeros(2, np.float32)),
        one("Det", np.zeros((3, 0, 0), np.float32)).giving(np.ones(3, np.float32)),
        replace(one("Det", wide).giving(np.linalg.det(wide)), tolerance=1e-12),
        one("Det", np.full((4, 4), np.nan, np.float32)).giving(np.float32(np.nan)),
    ]


def test_two_operands_are_contracted(tmp_path: Path) -> None:
    check(products(), tmp_path)


def test_several_operands_broadcast_and_keep_their_type(tmp_path: Path) -> None:
    check(several(), tmp_path)


def test_determinants(tmp_path: Path) -> None:
    check(determinants(), tmp_path)


@pytest.mark.parametrize(
    ("equation", "ranks"),
    [
        ("ij,jk->ik", (2,)),
        ("ij->ik", (2,)),
        ("ij->ii", (2,)),
        ("ijk->i", (2,)),
        ("i->i", (2,)),
        ("...i->i", (2,)),
        ("i1->i", (2,)),
        ("...i...->i", (2,)),
    ],
)
def test_an_equation_that_says_nothing_is_told(equation: str, ranks: tuple[int, ...]) -> None:
    with pytest.raises(Malformed):
        parse(equation, ranks)


def test_large_determinants_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="more than"):
        ramforge.compile(model_of([one("Det", numbers(65, 65))]), target="h200")
