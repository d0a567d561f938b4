"""Softmax and the normalisations: any axis, any rank, rows of any length, masks and NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.helpers import Case, Known, check, numbers, one


def softmax_cases() -> list[Case]:
    masked = numbers(4, 33)
    masked[0, 5:] = -np.inf
    masked[1] = -np.inf
    masked[2, 3] = np.nan
    masked[3, 7] = np.inf
    large = numbers(5, 65) * 200
    cases = []
    for op in ("Softmax", "LogSoftmax"):
        cases += [
            one(op, numbers(7)),
            one(op, numbers(2, 3, 65)),
            one(op, numbers(3, 63, 5), axis=1),
            one(op, numbers(4, 3, 2, 2), axis=-4),
            one(op, numbers(3, 1)),
            one(op, numbers(2, 1000)),
            one(op, large),
            one(op, large + 10000),
            one(op, numbers(0, 3)),
            one(op, masked).reference(),
        ]
    return cases


def normalisation_cases() -> list[Case]:
    x = numbers(2, 3, 4, 7) * 3 + 5
    channel = [numbers(3, seed=seed) for seed in (1, 2, 3)]
    variance = np.abs(numbers(3, seed=4)) + np.float32(0.2)
    last, two = numbers(7), numbers(4, 7)
    constant = np.full((2, 33), 4.25, np.float32)
    return [
        one("LayerNormalization", x, last, numbers(7, seed=1)),
        one("LayerNormalization", x, Known(last), Known(numbers(7, seed=1)), axis=-1),
        one("LayerNormalization", x, last),
        one("LayerNormalization", x, two, numbers(4, 7, seed=1), axis=2, epsilon=1e-3),
        one("LayerNormalization", numbers(2, 65), numbers(65), axis=1),
        one("LayerNormalization", numbers(5), numbers(5), axis=0),
        one("LayerNormalization", constant, numbers(33), numbers(33, seed=1)),
        # one pass over such numbers cancels, and older ONNX Runtimes make just one
        one("LayerNormalization", numbers(3, 64) + 1000, numbers(64)).reference(),
        one("InstanceNormalization", x, *channel[:2]),
        one("InstanceNormalization", numbers(2, 3, 65), *map(Known, channel[:2]), epsilon=0.1),
        one("BatchNormalization", x, *channel, variance),
        one("BatchNormalization", x, *map(Known, (*channel, variance)), epsilon=0.01),
        one("BatchNormalization", numbers(5, 3), *map(Known, (*channel, variance))),
        one("GroupNormalization", numbers(2, 6, 5), numbers(6), numbers(6, seed=1), num_groups=3),
        one("MeanVarianceNormalization", numbers(2, 3, 4, 5)),
    ]


CASES = [*softmax_cases(), *normalisation_cases()]


def test_softmax_along_any_axis_and_of_masks(tmp_path: Path) -> None:
    check(softmax_cases(), tmp_path)


def test_normalisations(tmp_path: Path) -> None:
    check(normalisation_cases(), tmp_path)
