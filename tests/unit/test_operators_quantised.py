"""Quantised numbers: every type, scales for all, for each index of an axis, for blocks; products
and convolutions with zero points.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto

import ramforge
from ramforge.compiler.errors import UnsupportedModel
from ramforge.compiler.ir import DType
from tests.helpers import Array, Case, Known, check, expected_of, model_of, numbers, one

OPSET = 25  # the first with all types
FLOATS = ("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float4e2m1")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int4", "uint4", "int2", "uint2")
EIGHT = (np.int8, np.uint8)


def kind_of(label: str) -> np.dtype:
    return DType.named(label).numpy


def whole(kind: np.dtype, *shape: int, seed: int = 0) -> Array:
    """Integers over the whole range of a type."""
    facts = ml_dtypes.iinfo(kind)
    random = np.random.default_rng([seed, *shape])
    return random.integers(int(facts.min), int(facts.max) + 1, shape).astype(kind)


def quantised(x: Array, scale: Array, zero: Array, kind: np.dtype) -> Array:
    """The formula of the standard, for operands that broadcast."""
    facts = ml_dtypes.iinfo(kind)
    number = np.rint((x / scale).astype(np.float64)) + zero.astype(np.float64)
    return np.clip(number, int(facts.min), int(facts.max)).astype(kind)


def scales(*shape: int) -> Array:
    return (np.abs(numbers(*shape, seed=7)) + 0.1).astype(np.float32)


def quantize_cases() -> list[Case]:
    cases = []
    x = numbers(3, 4, 5) * np.float32(40)
    x[0, 0, :4] = [np.inf, -np.inf, 1e30, -1e30]
    halves = np.arange(-5, 6, dtype=np.float32) / 2  # of two equally near the even
    for label in INTEGERS:
        kind = kind_of(label)
        scale, zero = scales(4), whole(kind, 4)
        along = (scale[:, None], zero[:, None])
        cases.append(one("QuantizeLinear", x, scale, zero).giving(quantised(x, *along, kind)))
        one_zero = whole(kind, 1)[0]
        cases.append(
            one("QuantizeLinear", halves, Known(np.float32(1)), Known(np.array(one_zero))).giving(
                quantised(halves, np.float32(1), np.array(one_zero), kind)
            )
        )
        blocks, zeros = scales(3, 2, 5), whole(kind, 3, 2, 5)
        wide = [np.repeat(value, 3, axis=1)[:, :4] for value in (blocks, zeros)]
        case = one("QuantizeLinear", x, blocks, zeros, axis=-2, block_size=3)
        cases.append(case.giving(quantised(x, *wide, kind)))
    for label in FLOATS:
        kind = kind_of(label)
        most = float(ml_dtypes.finfo(kind).max)
        zero, scale = np.zeros(5, kind), scales(5)
        case = one("QuantizeLinear", x, scale, zero, axis=2)
        with np.errstate(all="ignore"):
            cases.append(case.giving(np.clip(x / scale, -most, most).astype(kind)))
            free = one("QuantizeLinear", x, scale, zero, axis=2, saturate=0)
            cases.append(free.giving((x / scale).astype(kind)))
            shifted = one("QuantizeLinear", x, np.float32(3), np.array(1, kind))
            cases.append(shifted.giving(np.clip(x / 3 + 1, -most, most).astype(kind)))
    return [
        *cases,
        one("QuantizeLinear", x, np.float32(0.5)).giving(
            quantised(x, np.float32(0.5), np.uint8(0), np.dtype(np.uint8))
        ),
        one(
            "QuantizeLinear", x, np.array([0.5], np.float32), output_dtype=TensorProto.INT16
        ).giving(quantised(x, np.float32(0.5), np.int16(0), np.dtype(np.int16))),
        one("QuantizeLinear", x[1, 0], scales(5), whole(np.dtype(np.int8), 5), axis=0).reference(),
        one("QuantizeLinear", np.zeros((0, 3), np.float32), np.float32(1)).giving(
            np.zeros((0, 3), np.uint8)
        ),
    ]


def precision_cases() -> list[Case]:
    x = numbers(200) * np.float32(30)
    scale = np.float32(0.37)
    cases = []
    for kind, number in (
        (np.float16, TensorProto.FLOAT16),
        (ml_dtypes.bfloat16, TensorProto.BFLOAT16),
    ):
        rounded = x.astype(kind) / scale.astype(kind)
        wanted = np.clip(np.rint(rounded.astype(np.float32)), -128, 127).astype(np.int8)
        zero = np.int8(0)
        cases.append(one("QuantizeLinear", x, scale, zero, precision=number).giving(wanted))
        half = one("QuantizeLinear", x.astype(kind), scale.astype(kind), zero)
        cases.append(half.giving(wanted))
        cases.append(one("QuantizeLinear", x, scale.astype(kind), zero).giving(wanted))
    small = np.array([-100, -7, -5, -1, 0, 1, 3, 5, 2**31 - 1], np.int32)
    cases.append(one("QuantizeLinear", small, np.int32(2), np.int8(3)).giving(
        np.clip(np.rint(small / 2) + 3, -128, 127).astype(np.int8)))  # fmt: skip
    power = np.array([0.25, 4], ml_dtypes.float8_e8m0fnu)
    cases.append(one("QuantizeLinear", x.reshape(100, 2), power, np.zeros(2, np.int16)).giving(
        np.rint(x.reshape(100, 2) / power.astype(np.float32)).astype(np.int16)))  # fmt: skip
    return cases


def dequantize_cases() -> list[Case]:
    cases = []
    for label in (*INTEGERS, *FLOATS, "int32"):
        kind = kind_of(label)
        is_float = DType.named(label).is_float
        x = numbers(3, 4, 5).astype(kind) if is_float else whole(kind, 3, 4, 5)
        zero = np.zeros(4, kind) if is_float or label == "int32" else whole(kind, 4)
        scale = scales(4)
        wide = x.astype(np.float32) - zero.astype(np.float32)[:, None]
        cases.append(one("DequantizeLinear", x, scale, zero).giving(wide * scale[:, None]))
        blocks = scales(3, 4, 3)
        spread = np.repeat(blocks, 2, axis=2)[:, :, :5]
        case = one("DequantizeLinear", x, blocks, axis=2, block_size=2)
        cases.append(case.giving(x.astype(np.float32) * spread))
        half = np.float16(0.3)
        with np.errstate(over="ignore"):
            exact = (x.astype(np.float32) * half.astype(np.float32)).astype(np.float16)
        cases.append(one("DequantizeLinear", x, half).giving(exact))
    x = whole(np.dtype(np.int8), 2, 3)
    power = np.array(2**-3, ml_dtypes.float8_e8m0fnu)
    case = one("DequantizeLinear", x, power, output_dtype=TensorProto.FLOAT)
    return [*cases, case.giving(x.astype(np.float32) / 8)]


def dynamic_cases() -> list[Case]:
    rows = [
        np.array([0, 2, -3, -2.5, 1.34, 0.5], np.float32),
        np.array([-1.0, -2.1, -1.3, -2.5, -3.34, -4.0], np.float32),
        numbers(3, 4, 5) * np.float32(7),
        np.abs(numbers(7)),
    ]
    return [one("DynamicQuantizeLinear", row, outputs=3) for row in rows]


def product_cases() -> list[Case]:
    cases = []
    for a_kind in EIGHT:
        for b_kind in EIGHT:
            a, b = numbers(2, 3, 40, dtype=a_kind), numbers(40, 6, dtype=b_kind)
            a_zero, b_zero = numbers(1, dtype=a_kind)[0], numbers(6, dtype=b_kind)
            wanted = (a.astype(np.int32) - a_zero) @ (b.astype(np.int32) - b_zero)
            cases.append(one("MatMulInteger", a, b, a_zero, b_zero).giving(wanted))
            case = one("MatMulInteger", a, b, Known(np.array(a_zero)), Known(b_zero))
            cases.append(case.giving(wanted))
    plain = a.astype(np.int32) @ b.astype(np.int32)
    cases.append(one("MatMulInteger", a, b).giving(plain))
    cases.append(one("MatMulInteger", a[0, 0], b).giving(plain[0, 0]))
    cases.append(one("MatMulInteger", a, b[:, 0]).giving(plain[..., 0]))
    cases.append(one("MatMulInteger", a[:, :, :0], b[:0]).giving(np.zeros((2, 3, 6), np.int32)))
    rows = numbers(3, dtype=np.uint8)
    wanted = (a[0].astype(np.int32) - rows[:, None]) @ b.astype(np.int32)
    cases.append(one("MatMulInteger", a[0], b, rows).giving(wanted))
    many = numbers(2, 40, 4, dtype=np.int8)
    zeros = (numbers(2, 3, 1, dtype=np.uint8), numbers(2, 1, 4, dtype=np.int8))
    wanted = (a.astype(np.int32) - zeros[0]) @ (many.astype(np.int32) - zeros[1])
    cases.append(one("MatMulInteger", a, many, *zeros).giving(wanted))
    return [*cases, *quantised_products()]


def quantised_products() -> list[Case]:
    cases = []
    for kind in EIGHT:
        a, b = numbers(3, 20, dtype=kind), numbers(20, 5, dtype=np.int8)
        zeros = numbers(1, dtype=kind)[0], numbers(5, seed=3, dtype=np.int8), np.int8(-7)
        steps = np.float32(0.03), scales(5), np.float32(3.1)
        exact = (a.astype(np.int64) - zeros[0]) @ (b.astype(np.int64) - zeros[1])
        ratio = (steps[0] * steps[1] / steps[2]).astype(np.float64)
        wanted = np.clip(np.rint(exact * ratio) + zeros[2], -128, 127).astype(np.int8)
        operands = (a, steps[0], zeros[0], b, steps[1], zeros[1], steps[2], zeros[2])
        cases.append(one("QLinearMatMul", *operands).giving(wanted))
        half = [value.astype(np.float16) for value in steps]
        ratio = (half[0].astype(np.float32) * half[1] / half[2]).astype(np.float64)
        wanted = np.clip(np.rint(exact * ratio) + zeros[2], -128, 127).astype(np.int8)
        operands = (a, half[0], zeros[0], b, half[1], zeros[1], half[2], zeros[2])
        cases.append(one("QLinearMatMul", *operands).giving(wanted))
    eight = np.dtype(ml_dtypes.float8_e4m3fn)
    a, b = numbers(3, 20).astype(eight), numbers(20, 5, seed=2).astype(eight)
    zero, step = np.zeros((), eight), np.float32(0.5)
    exact = a.astype(np.float32) @ b.astype(np.float32) * np.float32(0.5)
    wanted = np.clip(exact, -448, 448).astype(eight)
    case = one("QLinearMatMul", a, step, zero, b, step, zero, step, zero).giving(wanted)
    return [*cases, replace(case, tolerance=0.1)]  # a sum in another order rounds elsewhere


def convolved(x: Array, w: Array, **attributes: object) -> Array:
    """By onnx.reference, in doubles: exact."""
    case = one("Conv", x.astype(np.float64), w.astype(np.float64), **attributes)
    (result,) = expected_of(case.reference())
    return np.rint(result).astype(np.int64)


def convolution_cases() -> list[Case]:
    cases = []
    for kind in EIGHT:
        x, w = numbers(2, 4, 7, 6, dtype=kind), numbers(6, 2, 3, 2, dtype=kind)
        x_zero, w_zero = numbers(1, dtype=kind)[0], numbers(6, seed=4, dtype=kind)
        moved = x.astype(np.int64) - x_zero, w.astype(np.int64) - w_zero[:, None, None, None]
        options = {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}
        exact = convolved(*moved, **options)
        case = one("ConvInteger", x, w, x_zero, w_zero, **options)
        cases.append(case.giving(exact.astype(np.int32)))
        known = one("ConvInteger", x, Known(w), Known(np.array(x_zero)), Known(w_zero), **options)
        cases.append(known.giving(exact.astype(np.int32)))
        bias = numbers(6, dtype=np.int16).astype(np.int32)
        steps, y_zero = (np.float32(0.02), scales(6), np.float32(9)), kind(17)
        ratio = (steps[0] * steps[1] / steps[2]).astype(np.float64)[:, None, None]
        total = exact + bias[:, None, None]
        limits = np.iinfo(kind)
        wanted = np.clip(np.rint(total * ratio) + 17, limits.min, limits.max).astype(kind)
        operands = (x, steps[0], x_zero, w, steps[1], w_zero, steps[2], y_zero, bias)
        cases.append(one("QLinearConv", *operands, **options).giving(wanted))
    row = numbers(1, 2, 9, dtype=np.uint8)
    kernel = numbers(3, 2, 4, dtype=np.int8)
    exact = convolved(row, kernel, auto_pad="SAME_UPPER")
    case = one("ConvInteger", row, kernel, auto_pad="SAME_UPPER")
    return [*cases, case.giving(exact.astype(np.int32))]


GROUPS = (
    quantize_cases,
    precision_cases,
    dequantize_cases,
    dynamic_cases,
    product_cases,
    convolution_cases,
)


@pytest.mark.parametrize("make", GROUPS)
def test_quantised(make: object, tmp_path: Path) -> None:
    assert callable(make)
    check([replace(case, opset=OPSET) for case in make()], tmp_path)


def test_scales_of_other_shapes_are_refused(tmp_path: Path) -> None:
    x = numbers(3, 4)
    for case, text in (
        (one("QuantizeLinear", x, scales(3)), r"shape \(3,\), expected \(4,\)"),
        (one("QuantizeLinear", x, scales(3, 3), axis=1, block_size=3), r"expected \(3, 2\)"),
        (one("MatMulInteger", x.astype(np.int8), x.T.astype(np.int8), np.zeros(4, np.int8)),
         r"shape \(4,\)"),
    ):  # fmt: skip
        with pytest.raises(UnsupportedModel, match=text):
            ramforge.compile(model_of([case]), target="h200", output=tmp_path / "a.cu")
