"""Operators that sort, compare or add up along an axis: ties, NaN, types, and long axes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tests.helpers import Array, Case, Known, check, ints, numbers, one

NAN = np.float32(np.nan)


def few(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Small whole numbers, so that many are equal."""
    random = np.random.default_rng([seed, *shape])
    return np.asarray(random.integers(0, 5, shape)).astype(dtype)


def lost(x: Array, *places: int) -> Array:
    x = x.copy()
    x.reshape(-1)[list(places)] = NAN
    return x


def largest(x: Array, count: int) -> tuple[Array, Array]:
    """NumPy's order turned round: NaN first, then falling, equal ones as they stand."""
    order = np.argsort(np.where(np.isnan(x), -np.inf, -x), axis=-1, kind="stable")[..., :count]
    return np.take_along_axis(x, order, -1), order


def top_k_cases() -> list[Case]:
    x = few(3, 40, 2)
    odd = lost(few(2, 9), 3, 7, 11)
    long = few(2, 300, seed=1)
    cases = [
        one("TopK", x, ints(7), outputs=2, axis=1),
        one("TopK", x, ints(40), outputs=2, axis=-2, largest=0),
        one("TopK", x, ints(1), outputs=2),
        one("TopK", long, ints(10), outputs=2),
        one("TopK", long, ints(300), outputs=2, largest=0),
        one("TopK", numbers(129), ints(129), outputs=2),
        one("TopK", odd, ints(5), outputs=2).giving(*largest(odd, 5)),
        one("TopK", lost(long, 5, 200, 450), ints(9), outputs=2).giving(
            *largest(lost(long, 5, 200, 450), 9)
        ),
        one("TopK", x, ints(0), outputs=2),
    ]
    kinds = (np.int8, np.int64, np.uint64, np.float64, np.float16)
    for kind in kinds:
        y = numbers(2, 20, dtype=kind)
        cases += [one("TopK", y, ints(8), outputs=2, largest=0).reference()]
    return cases


def extreme_cases() -> list[Case]:
    cases = []
    for op in ("ArgMax", "ArgMin"):
        for last in (0, 1):
            key: dict[str, Any] = {"select_last_index": last}
            cases += [
                one(op, few(3, 50, 2), axis=1, **key),
                one(op, few(3, 50, 2), axis=-1, keepdims=0, **key),
                one(op, few(70), **key),
                one(op, lost(few(4, 9), 5, 8, 20), axis=1, **key).reference(),
            ]
        for kind in (np.int8, np.uint8, np.int32, np.int64, np.float64):
            cases.append(one(op, numbers(4, 40, dtype=kind), axis=1).reference())
        cases.append(one(op, few(3, 40, dtype=ml_dtypes.bfloat16), axis=1).reference())
        infinite = np.full((2, 3), -np.inf if op == "ArgMax" else np.inf, np.float32)
        cases.append(one(op, infinite, axis=1))
    return [
        *cases,
        one("Hardmax", few(3, 7, 5), axis=1),
        one("Hardmax", few(3, 7, 5)),
        one("Hardmax", few(2, 70, dtype=np.float64)).reference(),
    ]


def running_cases() -> list[Case]:
    cases = []
    for exclusive in (0, 1):
        for reverse in (0, 1):
            key = {"exclusive": exclusive, "reverse": reverse}
            cases += [
                one("CumSum", numbers(3, 7, 2), Known(np.array(1, np.int64)), **key),
                one("CumSum", numbers(65, 3, dtype=np.int64), Known(np.array(0)), **key),
                one("CumSum", np.array([1, np.inf, -1, -np.inf], np.float32), ints(0), **key),
            ]
    long = numbers(2, 2100)
    cases += [
        one("CumSum", long, Known(np.array(-1, np.int32))),
        one("CumSum", long, Known(np.array(1, np.int64)), exclusive=1, reverse=1),
    ]
    short = few(5, 90) % 3 / 2 + 0.5
    for kind in (np.float32, np.int32):
        x = short.astype(kind) if kind is np.float32 else few(5, 90, dtype=kind) + 1
        product = np.cumprod(x, axis=1, dtype=kind)
        back = np.cumprod(x[:, ::-1], axis=1, dtype=kind)[:, ::-1]
        one_before = np.concatenate([back[:, 1:], np.ones((5, 1), kind)], axis=1)
        axis = Known(np.array(1, np.int64))
        cases += [
            replace(one("CumProd", x, axis).giving(product), opset=26),
            replace(one("CumProd", x, axis, exclusive=1, reverse=1).giving(one_before), opset=26),
        ]
    return cases


def test_the_largest_come_first(tmp_path: Path) -> None:
    check(top_k_cases(), tmp_path)


def test_the_extreme_is_where_it_is(tmp_path: Path) -> None:
    check(extreme_cases(), tmp_path)


def test_totals_run_along_an_axis(tmp_path: Path) -> None:
    cases = running_cases()
    newer = [case for case in cases if case.opset > 21]
    check([case for case in cases if case not in newer], tmp_path)
    (tmp_path / "newer").mkdir()
    check(newer, tmp_path / "newer")
