"""Remainders, shifts and bits of every integer type, and remainders of every float."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.helpers import Array, Case, Known, check, numbers, one

OPSET = 28  # the first with shifts of signed integers
SIGNED = tuple(np.dtype(f"int{bits}") for bits in (8, 16, 32, 64))
UNSIGNED = tuple(np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64))
FLOATS = tuple(map(np.dtype, (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)))


def pairs(*values: float, kind: np.dtype) -> tuple[Array, Array]:
    left, right = zip(*itertools.product(values, repeat=2), strict=True)
    return np.array(left).astype(kind), np.array(right).astype(kind)


def edges(kind: np.dtype) -> tuple[Array, Array]:
    limits = np.iinfo(kind)
    values = [0, 1, 2, 3, 7, limits.max - 1, limits.max]
    if kind.kind == "i":
        values += [limits.min, limits.min + 1, -1, -2, -7]
    left, right = zip(*itertools.product(values, repeat=2), strict=True)
    return np.array(left, kind), np.array(right, kind)


def integer_remainder(a: int, b: int, truncates: bool) -> int:
    """x mod 0, which the standard leaves open, is 0."""
    if b == 0:
        return 0
    rest = abs(a) % abs(b) * (-1 if a < 0 else 1)
    return rest if truncates or rest == 0 or (rest < 0) == (b < 0) else rest + b


def float_remainder(a: float, b: float, truncates: bool) -> float:
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or b == 0:
        return math.nan
    rest = math.fmod(a, b)
    if truncates:
        return rest
    if rest == 0:
        return math.copysign(0.0, b)
    return rest if (rest < 0) == (b < 0) else rest + b


def remainder_cases() -> list[Case]:
    cases = []
    for kind, truncates in itertools.product((*SIGNED, *UNSIGNED), (0, 1)):
        a, b = edges(kind)
        wanted = [
            integer_remainder(*pair, bool(truncates))
            for pair in zip(a.tolist(), b.tolist(), strict=True)
        ]
        cases.append(one("Mod", a, b, fmod=truncates).giving(np.array(wanted, kind)))
    values = (0.0, -0.0, 1, -1, 2.5, -2.5, 7, -0.3, 1e4, math.inf, -math.inf, math.nan)
    for kind, truncates in itertools.product(FLOATS, (0, 1)):
        a, b = pairs(*values, kind=kind)
        wanted = [
            float_remainder(float(x), float(y), bool(truncates)) for x, y in zip(a, b, strict=True)
        ]
        case = one("Mod", a, b, fmod=truncates).giving(np.array(wanted).astype(kind))
        cases.append(replace(case, tolerance=1e-7))
    cases.append(
        one("Mod", numbers(2, 3, 4), Known(np.array([0.5], np.float32)), fmod=1).reference()
    )
    return cases


def shift_cases() -> list[Case]:
    cases = []
    for kind, direction in itertools.product((*SIGNED, *UNSIGNED), ("LEFT", "RIGHT")):
        bits = 8 * kind.itemsize
        x = edges(kind)[0]
        counts = [0, 1, 3, bits - 1, bits, bits + 1, np.iinfo(kind).max]
        count = np.resize(np.array(counts, kind), x.shape)
        wanted = []
        for value, by in zip(x.tolist(), count.tolist(), strict=True):
            moved = value << min(by, 64) if direction == "LEFT" else value >> min(by, 64)
            wanted.append(moved % 2**bits)
        result = np.array(wanted, f"uint{bits}").view(kind)
        cases.append(one("BitShift", x, count, direction=direction).giving(result))
    few = np.array([1, 2, 255], np.uint8)
    three = np.array([[1], [2], [0]], np.uint8)
    cases.append(one("BitShift", few, three, direction="LEFT").giving(few << three))
    return cases


def bit_cases() -> list[Case]:
    cases = []
    for kind in (*SIGNED, *UNSIGNED):
        x, y, z = numbers(3, 5, dtype=kind), numbers(5, dtype=kind), numbers(2, 1, 1, dtype=kind)
        cases += [
            one("BitwiseAnd", x, y).giving(x & y),
            one("BitwiseOr", x, z).giving(x | z),
            one("BitwiseXor", y, Known(x)).giving(y ^ x),
            one("BitwiseNot", x).giving(~x),
            one("BitwiseAnd", x, Known(y[:1])).giving(x & y[:1]),
        ]
    return cases


@pytest.mark.parametrize("make", [remainder_cases, shift_cases, bit_cases])
def test_integers(make: object, tmp_path: Path) -> None:
    assert callable(make)
    check([replace(case, opset=OPSET) for case in make()], tmp_path)


def test_the_sign_of_a_zero_remainder(tmp_path: Path) -> None:
    a = np.array([6, -6, 0.0, -0.0, 6, -6], np.float32)
    b = np.array([3, 3, -2, 2, -3, -3], np.float32)
    sign = np.array([1, 1, -1, 1, -1, -1], np.float32)
    # 1 / 0 tells which zero it is
    rest = one("Mod", a, b, fmod=0)
    inverse = one("Reciprocal", a).nodes[0]
    inverse.input[0], inverse.output[0] = "y0", "y1"
    case = replace(rest, nodes=(*rest.nodes, inverse), outputs=("y1",))
    check(replace(case, opset=OPSET).giving(sign * np.float32(np.inf)), tmp_path)
