"""Reductions and pooling: which axes, which windows, and what lies outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers import Array, Case, check, ints, numbers, one

REDUCTIONS = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
)


def positive(*shape: int) -> Array:
    return np.asarray(np.abs(numbers(*shape)) + np.float32(0.5))


def reduction_cases() -> list[Case]:
    cases = []
    for op in REDUCTIONS:
        x = positive(3, 4, 7)
        cases += [
            one(op, x),
            one(op, x, ints(-1), keepdims=0),
            one(op, x, ints(0, -1)),
            one(op, x, ints(1), keepdims=0),
            one(op, positive(2, 65), ints(1)),
            one(op, x, ints(2, 0), keepdims=0),
            one(op, x, ints(), noop_with_empty_axes=1).reference(),
            one(op, positive(7), ints(), keepdims=0),
            one(op, positive()),
        ]
    nan = np.array([[1, np.nan, 3], [np.inf, 2, -np.inf], [5, 4, 6]], np.float32)
    cases += [one(op, nan, ints(1)).reference() for op in REDUCTIONS[:4]]
    cases += [
        one("ReduceSum", numbers(33, 300), ints(0), keepdims=0),
        one("ReduceMean", numbers(2, 3, 1000), ints(2)),
        one("ReduceMax", numbers(63, 2, 65), ints(0, 2)),
    ]
    return cases


def empty_cases() -> list[Case]:
    """A sum of nothing is 0, a product 1, the largest of nothing the least there is."""
    empty = np.zeros((2, 0, 3), np.float32)
    shape = (2, 1, 3)
    answers = {
        **dict.fromkeys(("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"), 0.0),
        **{"ReduceProd": 1.0, "ReduceMax": -np.inf, "ReduceMin": np.inf, "ReduceLogSum": -np.inf},
    }
    cases = [
        one(op, empty, ints(1)).giving(np.full(shape, answer, np.float32))
        for op, answer in answers.items()
    ]
    return [
        *cases,
        one("ReduceSum", empty, ints(0, 1), keepdims=0).giving(np.zeros(3, np.float32)),
        one("ReduceSum", empty, ints(0)).giving(np.zeros((1, 0, 3), np.float32)),
        one("ReduceMax", empty.astype(np.int32), ints(1)).giving(
            np.full(shape, -(2**31), np.int32)
        ),
    ]


def pool(op: str, x: Array, **attributes: Any) -> Case:
    return one(op, x, **attributes)


def pooling_cases() -> list[Case]:
    x = numbers(2, 3, 9, 11) - 3
    cases = []
    for op in ("MaxPool", "AveragePool"):
        cases += [
            pool(op, x, kernel_shape=[2, 3]),
            pool(op, x, kernel_shape=[3, 3], strides=[2, 3], pads=[1, 0, 0, 2]),
            pool(op, x, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
            pool(op, x, kernel_shape=[4, 2], strides=[3, 1], auto_pad="SAME_LOWER"),
            pool(op, x, kernel_shape=[4, 2], strides=[3, 3], auto_pad="VALID"),
            pool(op, x, kernel_shape=[2, 3], strides=[2, 3], ceil_mode=1),
            pool(op, x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1),
            pool(op, numbers(1, 2, 65), kernel_shape=[7], strides=[3], pads=[3, 2]),
            pool(op, numbers(1, 2, 5, 4, 6), kernel_shape=[2, 3, 2], pads=[0, 1, 1, 1, 0, 0]),
            pool(op, numbers(1, 1, 1, 1), kernel_shape=[1, 1]),
        ]
    padded = {"count_include_pad": 1, "kernel_shape": [3, 3]}
    return [
        *cases,
        pool("MaxPool", x, kernel_shape=[2, 2], dilations=[3, 2], pads=[1, 0, 1, 1]),
        # the last ONNX Runtime for Python 3.10 divides these by other counts
        pool("AveragePool", x, **padded, pads=[1, 0, 2, 1]).reference(),
        pool("AveragePool", x, **padded, strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1),
        pool("AveragePool", x, **padded, auto_pad="SAME_UPPER"),
        *(one(op, numbers(2, 3, *rest)) for op in GLOBAL for rest in ((5,), (7, 9), (2, 3, 4))),
    ]


GLOBAL = ("GlobalAveragePool", "GlobalMaxPool")
CASES = [*reduction_cases(), *empty_cases(), *pooling_cases()]


def test_every_choice_of_axes(tmp_path: Path) -> None:
    check(reduction_cases(), tmp_path)


def test_folds_of_nothing(tmp_path: Path) -> None:
    check(empty_cases(), tmp_path)


def test_windows_with_padding_strides_and_ceilings(tmp_path: Path) -> None:
    check(pooling_cases(), tmp_path)
