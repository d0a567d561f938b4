"""Every element type that C computes in: integers wrap, divide towards zero and never trap;
booleans stay booleans.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from ramforge.compiler.ir import DType
from tests.helpers import Array, Case, Known, check, ints, numbers, one

ALL = tuple(dtype.numpy for dtype in DType if not dtype.is_stored_only)
INTEGERS = tuple(kind for kind in ALL if kind.kind in "iu")
SIGNED = tuple(kind for kind in ALL if kind.kind == "i")
WIDE = tuple(np.dtype(name) for name in ("int32", "int64", "uint32", "uint64"))


def edges(kind: np.dtype) -> tuple[Array, Array]:
    """Every pair of the extremes and the small numbers of an integer type."""
    limits = np.iinfo(kind)
    values = [limits.min, limits.min + 1, 0, 1, 2, 3, 7, limits.max - 1, limits.max]
    row = np.array(values if kind.kind == "u" else [*values, -1, -2, -7], kind)
    return np.repeat(row, len(row)), np.tile(row, len(row))


def quotient(a: Array, b: Array) -> Array:
    """Towards zero; left open by the standard: x / 0 is 0, the least number over -1 wraps."""
    values = []
    for left, right in zip(a.tolist(), b.tolist(), strict=True):
        size = abs(left) // abs(right) if right else 0
        values.append(size if (left < 0) == (right < 0) else -size)
    bits = 8 * a.dtype.itemsize
    return np.array([value % 2**bits for value in values], f"uint{bits}").view(a.dtype)


def integer_cases() -> list[Case]:
    cases = []
    for kind in INTEGERS:
        a, b = edges(kind)
        with np.errstate(all="ignore"):
            cases += [
                one("Add", a, b).giving(a + b),
                one("Sub", a, b).giving(a - b),
                one("Mul", a, b).giving(a * b),
                one("Div", a, b).giving(quotient(a, b)),
                one("Max", a, b, a[:1]).reference(),
                one("Min", a, b).giving(np.minimum(a, b)),
                one("Sign", a).giving(np.sign(a)),
                one("Abs", a).giving(np.abs(a)),
                *(one(op, a, b).reference() for op in ("Equal", "Less", "GreaterOrEqual")),
            ]
            low, high = np.array(3, kind), np.array(np.iinfo(kind).max - 1, kind)
            cases.append(one("Clip", a, Known(low), Known(high)).giving(np.clip(a, low, high)))
            cases.append(one("Clip", a, low, high).giving(np.clip(a, low, high)))
            if kind.kind == "i":
                cases += [one("Neg", a).giving(-a), one("Relu", a).giving(np.maximum(a, 0))]
    return cases


def power_cases() -> list[Case]:
    base = np.array([-3, -1, 0, 1, 2, 7, 10], np.int32)
    exponent = np.array([3, 5, 2, 0, 10, 1, 9], np.int32)
    large = np.array([123456789, 3, -5], np.int64)
    return [
        one("Pow", base, exponent),
        one("Pow", large, Known(np.array([2], np.int64))),
        one("Pow", large, np.array([1.0, 2.0, 3.0], np.float32)).giving(
            np.array([123456789, 9, -125], np.int64)
        ),
        one("Pow", numbers(5), np.array([2, 3, 0, 1, 5], np.int32)),
        one("PRelu", base, Known(np.array([2], np.int32))).giving(
            np.where(base < 0, base * 2, base)
        ),
    ]


def cast_cases() -> list[Case]:
    cases = []
    for source in ALL:
        x = np.array([0, 1, 2, 63, 100], source) if source.kind != "b" else np.array([True, False])
        if source.kind in "if":
            x = np.concatenate([x, np.array([-1, -7, -100], source)])
        for target in ALL:
            if source.kind == "f" and target.kind == "u":
                continue  # a negative float as unsigned is undefined
            kind = helper.np_dtype_to_tensor_dtype(target)
            cases.append(one("Cast", x, to=kind).giving(x.astype(target)))
    fractions = np.array([0.1, -0.9, 2.5, 99.99, np.nan, np.inf], np.float32)
    whole = helper.np_dtype_to_tensor_dtype(np.dtype(np.int32))
    truth = helper.np_dtype_to_tensor_dtype(np.dtype(np.bool_))
    return [
        *cases,
        one("Cast", fractions[:4], to=whole),
        one("Cast", fractions, to=truth).reference(),
    ]


def moving_cases() -> list[Case]:
    cases = []
    for kind in ALL:
        x, y = numbers(3, 5, dtype=kind), numbers(3, 2, dtype=kind)
        cases += [
            one("Transpose", x),
            one("Concat", x, y, axis=1),
            one("Pad", x, ints(1, 0, -1, 2)).giving(np.pad(x[:-1], ((1, 0), (0, 2)))),
            one("Gather", x, ints(2, -3), axis=0).reference(),
            one("Where", numbers(3, 1, dtype=np.bool_), x, x[:1]).reference(),
            one("Identity", x),
            one("Slice", x, ints(4), ints(-9), ints(1), ints(-2)).reference(),
            one("Split", x, outputs=2, num_outputs=2),
        ]
    return cases


def folding_cases() -> list[Case]:
    cases = []
    for kind in (*WIDE, np.dtype(np.float64)):
        x = (np.abs(numbers(3, 40, 4).astype(np.float64)) * 9 + 1).astype(kind)
        flat = x.reshape(-1, 4)
        few = flat[:8]
        total = flat.sum(axis=1, dtype=kind)
        norm = np.sqrt((flat.astype(np.float64) ** 2).sum(axis=1)).astype(kind)
        mean = (flat.sum(axis=1) / 4).astype(kind)
        cases += [
            one("ReduceSum", x, ints(1), keepdims=0).giving(x.sum(axis=1, dtype=kind)),
            one("ReduceMean", flat, ints(1), keepdims=0).giving(mean),
            one("ReduceL1", flat, ints(1), keepdims=0).giving(total),
            one("ReduceL2", flat, ints(1), keepdims=0).giving(norm),
            one("ReduceLogSum", flat, ints(1), keepdims=0).giving(np.log(total).astype(kind)),
            one("ReduceProd", few, ints(0, 1), keepdims=0).giving(np.prod(few, dtype=kind)),
            one("ReduceMax", x, ints(1)).giving(x.max(axis=1, keepdims=True)),
            one("MatMul", flat[:7], flat.T[:, :9]).giving(flat[:7] @ flat.T[:, :9]),
        ]
    for kind in map(np.dtype, (np.int8, np.uint8)):
        x = numbers(1, 2, 5, 40, dtype=kind)
        cases += [
            one("MaxPool", x, kernel_shape=[3, 2], pads=[1, 1, 0, 0]),
            one("ReduceMin", x, ints(-1)),
            one("ReduceMax", x, ints(1), keepdims=0),
        ]
    truth = numbers(3, 40, dtype=np.bool_)
    cases += [one("ReduceMax", truth, ints(1)).giving(truth.any(axis=1, keepdims=True))]
    return [*cases, one("ReduceMin", truth, ints(0)).giving(truth.all(axis=0, keepdims=True))]


def double_cases() -> list[Case]:
    x = numbers(3, 7, dtype=np.float64)
    w = numbers(4, 3, 3, 3, dtype=np.float64)
    image = numbers(1, 3, 6, 6, dtype=np.float64)
    unary = ("Exp", "Tanh", "Sigmoid", "Sin", "Cos", "Abs", "Floor", "Round", "Ceil")
    channel = [np.abs(numbers(3, seed=seed)) for seed in range(4)]
    cases = [
        *(one(op, x).reference() for op in unary),
        one("BatchNormalization", image, *channel).reference(),
        one("Erf", x).giving(np.vectorize(math.erf)(x)),
        one("Softmax", x),
        one("LayerNormalization", x, x[0]).reference(),
        one("Gemm", x, x.T.copy(), x[:, :3].copy(), alpha=0.3),
        one("Conv", image, Known(w)).reference(),
        one("AveragePool", image, kernel_shape=[2, 2]).reference(),
        one("GlobalAveragePool", image).reference(),
        one("Pow", np.abs(x), x),
    ]
    return [
        replace(
            case,
            tolerance=1e-9
            if not case.operators & {"LayerNormalization", "BatchNormalization"}
            else 1e-5,
        )
        for case in cases
    ]


CASES = [
    *(*integer_cases(), *power_cases(), *cast_cases()),
    *(*moving_cases(), *folding_cases(), *double_cases()),
]


@pytest.mark.parametrize(
    "cases", [integer_cases, power_cases, cast_cases, moving_cases, folding_cases, double_cases]
)
def test_element_types(cases: object, tmp_path: Path) -> None:
    assert callable(cases)
    check(cases(), tmp_path)
