"""Reductions in every type, of nothing, of infinities, and of numbers that overflow on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tests.helpers import Array, Case, check, ints, numbers, one

FLOATS = tuple(map(np.dtype, (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)))
INTEGERS = tuple(map(np.dtype, ("int32", "int64", "uint32", "uint64")))
TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-3}
EMPTY = {
    "ReduceSum": 0,
    "ReduceProd": 1,
    "ReduceL1": 0,
    "ReduceL2": 0,
    "ReduceSumSquare": 0,
    "ReduceMax": -np.inf,
    "ReduceMin": np.inf,
    "ReduceLogSum": -np.inf,
    "ReduceLogSumExp": -np.inf,
    "ReduceMean": np.nan,
}


def log_sum_exp(x: Array, axis: Any) -> Any:
    return np.logaddexp.reduce(x, axis)


ORACLES: dict[str, Callable[[Array, Any], Any]] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceL1": lambda x, axis: np.abs(x).sum(axis),
    "ReduceL2": lambda x, axis: np.sqrt(np.square(x).sum(axis)),
    "ReduceSumSquare": lambda x, axis: np.square(x).sum(axis),
    "ReduceLogSum": lambda x, axis: np.log(x.sum(axis)),
    "ReduceLogSumExp": log_sum_exp,
}


def type_cases() -> list[Case]:
    """Sums of small numbers: what is rounded is rounded once."""
    cases = []
    for kind in FLOATS:
        x = (np.abs(numbers(3, 33, 2)) + 0.25).astype(kind)
        for op, oracle in ORACLES.items():
            wanted = np.asarray(oracle(x.astype(np.float64), 1)).astype(kind)
            if kind.kind != "f":  # compared to the bit, so nothing may be near the middle of two
                x = np.ones((3, 8, 2), kind)
                wanted = np.asarray(oracle(x.astype(np.float64), 1)).astype(kind)
            case = one(op, x, ints(1), keepdims=0).giving(wanted)
            cases.append(replace(case, tolerance=TOLERANCES.get(kind.name, 0)))
    for kind in INTEGERS:
        x = np.arange(1, 13).reshape(3, 4).astype(kind)
        for op, oracle in list(ORACLES.items())[:8]:
            wanted = np.asarray(oracle(x.astype(np.float64), 1))
            cases.append(one(op, x, ints(-1), keepdims=0).giving(wanted.astype(kind)))
    for kind in map(np.dtype, ("int8", "uint8", "bool")):
        x = numbers(4, 40, dtype=kind)
        cases += [
            one("ReduceMax", x, ints(1)).giving(x.max(1, keepdims=True)),
            one("ReduceMin", x, ints(0), keepdims=0).giving(x.min(0)),
        ]
    return cases


def empty_cases() -> list[Case]:
    cases = []
    for op, answer in EMPTY.items():
        for kind in FLOATS[:3]:
            x = np.zeros((2, 0, 3), kind)
            cases.append(one(op, x, ints(1)).giving(np.full((2, 1, 3), answer, kind)))
    limits = np.iinfo(np.int32)
    x = np.zeros((0, 2), np.int32)
    return [
        *cases,
        one("ReduceMax", x, ints(0), keepdims=0).giving(np.full(2, limits.min, np.int32)),
        one("ReduceMin", x, ints(0), keepdims=0).giving(np.full(2, limits.max, np.int32)),
        one("ReduceMax", x > 0, ints(0), keepdims=0).giving(np.zeros(2, bool)),
        one("ReduceMin", x > 0, ints(0), keepdims=0).giving(np.ones(2, bool)),
        one("ReduceLogSumExp", np.zeros((0, 3), np.float32), ints(1)).giving(
            np.zeros((0, 1), np.float32)
        ),
    ]


def extreme_cases() -> list[Case]:
    inf, nan = np.inf, np.nan
    rows = np.array(
        [[1000, 1000, 999], [-inf, -inf, -inf], [inf, 1, 2], [inf, -inf, 0], [nan, 1, inf]],
        np.float32,
    )
    sums = np.array([1000.8619948, -inf, inf, inf, nan], np.float32)
    half = np.full((2, 64), 300, np.float16)
    whole = np.array([[46341, 46341]], np.int32)
    x = np.abs(numbers(2, 3)) + 1
    cases = [
        one("ReduceLogSumExp", rows, ints(1), keepdims=0).giving(sums),
        one("ReduceLogSumExp", rows[:2].astype(np.float64), ints(1), keepdims=0).giving(
            np.array([1000.861994842647, -inf])
        ),
        one("ReduceL2", half, ints(1), keepdims=0).giving(np.full(2, 2400, np.float16)),
        one("ReduceMean", half * 10, ints(1), keepdims=0).giving(np.full(2, 3000, np.float16)),
        one("ReduceL2", whole, ints(1), keepdims=0).giving(np.array([65536], np.int32)),
        one("ReduceMean", np.array([[-7, 2]], np.int32), ints(1)).giving(
            np.array([[-2]], np.int32)
        ),
    ]
    kept: dict[str, Array] = {
        **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceProd", "ReduceL1"), x),
        **{"ReduceL2": x, "ReduceLogSumExp": x, "ReduceSumSquare": x * x},
        "ReduceLogSum": np.log(x),
    }
    for op, wanted in kept.items():
        cases.append(one(op, x, ints(), noop_with_empty_axes=1).giving(wanted))
        cases.append(one(op, x, noop_with_empty_axes=1).giving(wanted))
    return cases


CASES = [*type_cases(), *empty_cases(), *extreme_cases()]


def test_every_type(tmp_path: Path) -> None:
    check(type_cases(), tmp_path)


def test_nothing_and_the_extremes(tmp_path: Path) -> None:
    check([*empty_cases(), *extreme_cases()], tmp_path)
