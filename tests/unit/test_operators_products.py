"""Matrix products and convolutions of every rank, with weights known and unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.helpers import Array, Case, Known, check, numbers, one

MATMULS: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((7,), (7,)),
    ((63,), (63, 65)),
    ((65, 7), (7,)),
    ((1, 1), (1, 1)),
    ((63, 65), (65, 7)),
    ((2, 3, 7), (7, 5)),
    ((7,), (2, 7, 3)),
    ((3, 5, 7), (7,)),
    ((5, 7), (3, 7, 4)),
    ((2, 1, 5, 7), (3, 7, 4)),
    ((1, 3, 5, 7), (2, 3, 7, 33)),
    ((2, 3, 4, 5), (1, 1, 5, 6)),
    ((0, 3), (3, 2)),
    ((2, 3, 1, 65), (2, 1, 65, 1)),
)


def matmul_cases() -> list[Case]:
    cases = []
    for left, right in MATMULS:
        a, b = numbers(*left), numbers(*right, seed=1)
        cases += [one("MatMul", a, b), one("MatMul", a, Known(b)), one("MatMul", Known(a), b)]
    nothing = one("MatMul", np.zeros((3, 0), np.float32), np.zeros((0, 5), np.float32))
    return [*cases, nothing.giving(np.zeros((3, 5), np.float32))]


def gemm_cases() -> list[Case]:
    cases = []
    sides = ((0, 0), (0, 1), (1, 0), (1, 1))
    addends: tuple[tuple[int, ...], ...] = ((65,), (7, 1), (1, 65), (7, 65), (), (1,))
    for number, addend in enumerate(addends):
        trans_a, trans_b = sides[number % 4]
        a = numbers(*((33, 7) if trans_a else (7, 33)))
        b = numbers(*((65, 33) if trans_b else (33, 65)), seed=1)
        c = numbers(*addend, seed=2)
        flags = {"transA": trans_a, "transB": trans_b}
        cases += [
            one("Gemm", a, b, c, **flags),
            one("Gemm", a, Known(b), Known(c), **flags, alpha=0.5, beta=-2.0),
            one("Gemm", a, b, alpha=1.5, **flags),
        ]
    return [*cases, one("Gemm", numbers(1, 7), Known(numbers(7, 1)))]


def weights(*shape: int) -> Array:
    return np.asarray(numbers(*shape, seed=5) / np.float32(np.sqrt(np.prod(shape[1:]))))


def convolution_cases() -> list[Case]:
    image = numbers(2, 6, 9, 7)
    bias = Known(numbers(8))
    full, grouped, depthwise = weights(8, 6, 3, 2), weights(8, 3, 3, 3), weights(12, 1, 3, 2)
    cases = []
    for known in (True, False):
        w = [Known(value) if known else value for value in (full, grouped, depthwise)]
        cases += [
            one("Conv", image, w[0]),
            one("Conv", image, w[0], bias, strides=[2, 3], pads=[2, 0, 1, 1]),
            one("Conv", image, w[0], auto_pad="SAME_UPPER", strides=[2, 2]),
            one("Conv", image, w[0], auto_pad="SAME_LOWER"),
            one("Conv", image, w[0], auto_pad="VALID", strides=[1, 2]),
            one("Conv", image, w[0], bias, dilations=[3, 2], pads=[3, 1, 2, 0]),
            one("Conv", image, w[1], bias, group=2, pads=[1, 1, 1, 1]),
            one("Conv", image, w[2], group=6, pads=[1, 0, 0, 1], strides=[1, 2]),
        ]
    line, block = numbers(2, 4, 65), numbers(1, 3, 5, 6, 4)
    return [
        *cases,
        one("Conv", line, Known(weights(5, 4, 7)), strides=[3], pads=[3, 2]),
        one("Conv", line, weights(4, 2, 3), numbers(4), group=2, dilations=[5]),
        one("Conv", block, Known(weights(4, 3, 2, 3, 2)), pads=[0, 1, 1, 1, 0, 0]),
        one("Conv", numbers(1, 1, 8, 8), Known(weights(3, 1, 3, 3)), pads=[1, 1, 1, 1]),
        one("Conv", numbers(2, 3, 1, 1), Known(weights(65, 3, 1, 1))),
        one("Conv", image, Known(weights(33, 6, 1, 1)), strides=[2, 2]),
        one("Conv", image, Known(weights(4, 6, 1, 1)), pads=[1, 0, 0, 2]),
        one("Conv", image, Known(weights(6, 1, 1, 1)), group=6),
        one("Conv", numbers(1, 64, 5, 5), Known(weights(64, 32, 3, 3)), group=2),
        one("Conv", numbers(1, 3, 2, 2), Known(weights(2, 3, 5, 5)), pads=[2, 2, 2, 2]),
        one("Conv", Known(image), weights(8, 6, 3, 2)),
    ]


CASES = [*matmul_cases(), *gemm_cases(), *convolution_cases()]


def test_matrix_products_of_all_ranks(tmp_path: Path) -> None:
    check(matmul_cases(), tmp_path)


def test_gemm_with_every_flag_and_addend(tmp_path: Path) -> None:
    check(gemm_cases(), tmp_path)


def test_convolutions(tmp_path: Path) -> None:
    check(convolution_cases(), tmp_path)
