"""Pointwise operators: values, broadcasting, scalars, and what NaN and infinity become."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.helpers import Array, Case, Known, check, numbers, one

NAN, INFINITY = np.nan, np.inf
SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-40, 3e38, INFINITY, -INFINITY, NAN],
    dtype=np.float32,
)
UNARY = (
    *("Relu", "Abs", "Neg", "Exp", "Tanh", "Sigmoid", "Erf", "Floor", "Ceil", "Round", "Sin"),
    *("Cos", "Sign", "Log", "Sqrt", "Reciprocal", "LeakyRelu", "HardSigmoid", "Gelu", "Identity"),
)
BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min")
COMPARISONS = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
SHAPES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((), ()),
    ((7,), ()),
    ((), (63,)),
    ((65,), (1,)),
    ((2, 3, 5), (5,)),
    ((5,), (2, 3, 5)),
    ((2, 1, 5), (3, 1)),
    ((3, 1, 1), (1, 4, 7)),
    ((1, 1), (2, 1, 3, 65)),
    ((4, 1, 1, 7), (3, 1, 7)),
    ((2, 1, 3, 1, 2), (4, 1, 5, 1)),
)


def positive(*shape: int) -> Array:
    return np.asarray(np.abs(numbers(*shape)) + np.float32(0.1))


def few(*shape: int, seed: int = 0) -> Array:
    """Small whole numbers, so that some are equal."""
    return np.asarray(np.rint(numbers(*shape, seed=seed)))


def masked_pairs() -> tuple[Array, Array]:
    """Every pair of some special values."""
    values = np.array([1.0, -1.0, INFINITY, -INFINITY, NAN], dtype=np.float32)
    return np.repeat(values, 5), np.tile(values, 5)


def unary_cases() -> list[Case]:
    cases = []
    for op in UNARY:
        source = positive(9, 7) if op in ("Log", "Sqrt") else numbers(9, 7) * 3
        cases += [one(op, source), one(op, np.float32(0.7).reshape(()))]
        cases.append(one(op, SPECIAL).reference())
    cases += [
        one("LeakyRelu", numbers(65), alpha=0.3),
        one("HardSigmoid", numbers(65) * 4, alpha=0.4, beta=0.25),
        one("Gelu", numbers(65) * 3, approximate="tanh"),
        one("Not", numbers(65, dtype=np.bool_)),
        one("IsNaN", SPECIAL),
        one("Softplus", numbers(65) * 5),
        one("Elu", numbers(65), alpha=0.7),
        one("HardSwish", numbers(65) * 4),
        one("Selu", numbers(65)),
        one("Mish", numbers(65)),
        one("Softsign", numbers(65)),
        one("ThresholdedRelu", numbers(65), alpha=0.5),
    ]
    return cases


def binary_cases() -> list[Case]:
    cases = []
    for number, (left, right) in enumerate(SHAPES):
        for op in (BINARY[number % len(BINARY)], COMPARISONS[number % len(COMPARISONS)]):
            cases.append(one(op, few(*left), few(*right, seed=1) + np.float32(0.25 * number % 1)))
    for op in (*BINARY, *COMPARISONS, "Pow"):
        cases.append(one(op, *masked_pairs()).reference())
        cases.append(one(op, positive(4, 7), Known(positive(1))))
        cases.append(one(op, Known(positive(7)), positive(4, 7)))
    for op in ("And", "Or", "Xor"):
        truths = numbers(3, 1, 7, dtype=np.bool_), numbers(5, 1, dtype=np.bool_, seed=1)
        cases.append(one(op, *truths))
    x = numbers(3, 4, 5)
    cases += [
        one("Pow", positive(65), numbers(65)),
        one("Pow", x, Known(np.float32(2).reshape(()))),
        one("Pow", positive(9), Known(np.array([0.5], np.float32))),
        one("Pow", x, Known(np.array([3], np.int64))),
        one("PRelu", x, positive(5)),
        one("PRelu", x, Known(positive(4, 1))),
        one("PRelu", x, Known(np.array([0.2], np.float32))),
    ]
    return cases


def several_operand_cases() -> list[Case]:
    parts = [numbers(3, 1, 5), numbers(4, 1), numbers(5), numbers(1, 1, 1, seed=3)]
    cases = [one(op, *parts) for op in ("Sum", "Mean", "Max", "Min")]
    cases += [one(op, numbers(7)) for op in ("Sum", "Mean", "Max", "Min")]
    x = numbers(63) * 2
    low, high = np.float32(-0.5).reshape(()), np.float32(0.75).reshape(())
    cases += [
        one("Clip", x),
        one("Clip", x, Known(low), Known(high)),
        one("Clip", x, low, high),
        one("Clip", x, low),
        one("Clip", x, None, Known(high)),
        one("Clip", x, high, low).reference(),
        one("Clip", SPECIAL, Known(low), Known(high)).reference(),
        one("Where", numbers(4, 1, dtype=np.bool_), numbers(7), numbers(2, 1, 1)),
        one("Where", Known(np.array(True)), numbers(1, 7), numbers(3, 1)),
        one("Where", numbers(4, dtype=np.bool_), Known(numbers(1)), Known(numbers(3, 4))),
        one("Where", numbers(dtype=np.bool_), numbers(3), Known(np.array([NAN], np.float32))),
    ]
    return cases


CASES = [*unary_cases(), *binary_cases(), *several_operand_cases()]


def test_unary_and_their_attributes(tmp_path: Path) -> None:
    check(unary_cases(), tmp_path)


def test_broadcasting_and_special_values(tmp_path: Path) -> None:
    check(binary_cases(), tmp_path)


def test_one_to_four_operands(tmp_path: Path) -> None:
    check(several_operand_cases(), tmp_path)
