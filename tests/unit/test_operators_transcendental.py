"""Trigonometric, hyperbolic and exponential operators, powers and means, in every type."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tests.helpers import Array, Case, Known, check, numbers, one

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = tuple(map(np.dtype, (np.float32, np.float64, np.float16, BFLOAT16)))
TOLERANCES = {"float64": 1e-12, "float32": 2e-6, "float16": 1e-3}
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "Tan": np.tan,
    "Asin": np.arcsin,
    "Acos": np.arccos,
    "Atan": np.arctan,
    "Sinh": np.sinh,
    "Cosh": np.cosh,
    "Asinh": np.arcsinh,
    "Acosh": lambda x: np.arccosh(x + 2),
    "Atanh": np.arctanh,
    "Elu": lambda x: np.where(x < 0, np.expm1(x), x),
    "Selu": lambda x: 1.0507010221481323 * np.where(x < 0, 1.6732631921768188 * np.expm1(x), x),
    "Celu": lambda x: np.where(x < 0, np.expm1(x), x),
    "Softplus": lambda x: np.logaddexp(x, 0),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "ThresholdedRelu": lambda x: np.where(x > 1, x, 0),
    "Swish": lambda x: x / (1 + np.exp(-x)),
    "Gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x * math.sqrt(0.5))),
    "HardSigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "LeakyRelu": lambda x: np.where(x < 0, 0.01 * x, x),
}
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 90.0, -90.0], np.float32)


def rounded(values: Any, kind: Any) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(kind)


def function_cases() -> list[Case]:
    cases = []
    for kind in FLOATS:
        x = (np.linspace(-0.95, 0.95, 24) if kind is not BFLOAT16 else np.arange(-7, 8) / 8).astype(
            kind
        )
        for op, function in FUNCTIONS.items():
            if op == "Celu" and kind != np.float32:
                continue  # before opset 28 it has no other type
            source = x if op != "Acosh" else rounded(x.astype(float) + 2, kind)
            wide = source.astype(np.float64) - (2 if op == "Acosh" else 0)
            case = one(op, source).giving(rounded(function(wide), kind))
            cases.append(replace(case, opset=24, tolerance=TOLERANCES.get(kind.name, 0)))
    return cases


def special_cases() -> list[Case]:
    inverse = np.array([-1.5, -1.0, 0.0, 1.0, 1.5, np.inf, np.nan], np.float32)
    infinite = np.array([-np.inf, -1, 0, np.inf, np.nan])
    with np.errstate(all="ignore"):
        cases = [
            one("Asin", inverse).giving(np.arcsin(inverse)),
            one("Acos", inverse).giving(np.arccos(inverse)),
            one("Acosh", inverse).giving(np.arccosh(inverse)),
            one("Atanh", inverse).giving(np.arctanh(inverse)),
            one("Atan", SPECIAL).giving(np.arctan(SPECIAL)),
            one("Softplus", SPECIAL).giving(np.logaddexp(SPECIAL, np.float32(0))),
            one("Elu", SPECIAL, alpha=2.0).giving(
                np.where(SPECIAL < 0, 2 * np.expm1(SPECIAL), SPECIAL)
            ),
            one("Celu", SPECIAL, alpha=2.0).giving(
                np.where(SPECIAL < 0, 2 * np.expm1(SPECIAL / 2), SPECIAL)
            ),
            one("ThresholdedRelu", SPECIAL, alpha=-0.5).giving(
                np.where(SPECIAL > -0.5, SPECIAL, np.float32(0))
            ),
        ]
    for kind in (*FLOATS, np.dtype(ml_dtypes.float8_e5m2)):
        x = infinite.astype(kind)
        cases += [
            one("IsInf", x).giving(np.array([True, False, False, True, False])),
            one("IsInf", x, detect_negative=0).giving(np.array([False] * 3 + [True, False])),
            one("IsInf", x, detect_positive=0).giving(np.array([True] + [False] * 4)),
            one("IsInf", x, detect_positive=0, detect_negative=0).giving(np.zeros(5, bool)),
        ]
    return cases


def shrink_cases() -> list[Case]:
    cases = [
        one("Shrink", numbers(65), lambd=0.7, bias=0.25),
        one("Shrink", numbers(9, dtype=np.float64), lambd=-0.5, bias=1.0).reference(),
    ]
    for kind in map(np.dtype, ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")):
        x = np.array([0, 1, 2, 3, 100, np.iinfo(kind).max, np.iinfo(kind).min], kind)
        whole = x - 1
        cases += [
            one("Shrink", x, lambd=1.5, bias=1.0).giving(
                np.where(x > 1.5, whole, np.where(x < -1.5, x + 1, 0)).astype(kind)
            ),
            one("Shrink", x, lambd=1e30, bias=1.0).giving(np.zeros_like(x)),
        ]
    return [*cases, one("Shrink", np.arange(-4, 5, dtype=np.int32), lambd=1.0, bias=0.5).giving(
        np.array([-3, -2, -1, 0, 0, 0, 1, 2, 3], np.int32)
    )]  # fmt: skip


def power_cases() -> list[Case]:
    base = np.array([0.5, 2.0, 3.0, 7.0], np.float32)
    signed = np.array([-0.0, 0.0, np.inf, -np.inf, np.nan, 4.0, -4.0], np.float32)
    whole = np.array([-3, -1, 2, 5], np.int64)
    cases = [
        one("Pow", signed, Known(np.float32(0.5))).giving(
            np.array([0, 0, np.inf, np.inf, np.nan, 2, np.nan], np.float32)
        ),
        one("Pow", whole, np.array([3, 2, 62, 0], np.uint64)).giving(
            np.array([-27, 1, 2**62, 1], np.int64)
        ),
        one("Pow", whole.astype(np.int32), np.array([2, -3, 40, -1], np.int64)).giving(
            np.array([9, -1, 0, 0], np.int32)
        ),
        one("Pow", base, np.array([1.5, 0.1, -2, 3], np.float64)).giving(
            (base ** np.array([1.5, 0.1, -2, 3])).astype(np.float32)
        ),
    ]
    for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        n = np.array([1, 3, 2, 0], kind)
        cases.append(one("Pow", base, n).giving(base ** n.astype(np.float32)))
    for kind in FLOATS:
        x, n = base.astype(kind), np.array([2, 3, 4, 5], BFLOAT16)
        cases.append(one("Pow", x, n).giving(rounded(base.astype(float) ** [2, 3, 4, 5], kind)))
    return cases


def several_cases() -> list[Case]:
    """Sums and means are rounded once; extremes and limits are exact in every type."""
    cases = []
    for kind in FLOATS:
        parts = [(numbers(3, 1, 5, seed=seed) * 8).astype(kind) for seed in range(3)]
        wide = [part.astype(np.float32).astype(np.float64) for part in parts]
        total = wide[0] + wide[1] + wide[2]
        exact = {"tolerance": TOLERANCES.get(kind.name, 0)}
        cases += [
            replace(one("Sum", *parts).giving(rounded(total, kind)), **exact),
            replace(one("Mean", *parts).giving(rounded(total / 3, kind)), **exact),
        ]
    kinds = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    for kind in (*map(np.dtype, kinds), *FLOATS):
        a, b = ((numbers(4, 1, seed=1) * 9).astype(np.int8), (numbers(7) * 9).astype(np.int8))
        a, b = (np.abs(x).astype(kind) for x in (a, b))
        c = np.asarray(3, kind)
        cases += [
            one("Max", a, b, c).giving(np.maximum(np.maximum(a, b), c)),
            one("Min", a, b, c).giving(np.minimum(np.minimum(a, b), c)),
            one("Clip", b, Known(np.asarray(2, kind)), Known(np.asarray(9, kind))).giving(
                np.minimum(np.maximum(b, np.asarray(2, kind)), np.asarray(9, kind))
            ),
        ]
    for kind in map(np.dtype, ("int32", "int64", "uint32", "uint64", *FLOATS)):
        x, slope = np.arange(6).astype(kind), np.asarray([3], kind)
        if kind.kind != "u":
            x = x - np.asarray(3, kind)
        cases.append(one("PRelu", x, slope).giving(np.where(x < 0, x * slope, x).astype(kind)))
    return cases


CASES = [*function_cases(), *special_cases(), *shrink_cases(), *power_cases(), *several_cases()]


def test_every_function_in_every_type(tmp_path: Path) -> None:
    check(function_cases(), tmp_path)


def test_special_values_and_types(tmp_path: Path) -> None:
    check([*special_cases(), *shrink_cases(), *power_cases(), *several_cases()], tmp_path)
