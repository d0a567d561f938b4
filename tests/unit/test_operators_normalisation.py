"""Softmax and the normalisations: any axis, any rank, rows of any length, masks and NaN."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.helpers import Array, Case, Known, check, numbers, one


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


def training_cases() -> list[Case]:
    cases = []
    fixed = {"training_mode": 1, "outputs": 3}
    for x in (numbers(3, 4, 5, 2) * 3 + 5, numbers(6, 4), numbers(2, 4, 3)):
        channel = [numbers(4, seed=seed) for seed in (1, 2, 3)]
        variance = np.abs(numbers(4, seed=4)) + np.float32(0.2)
        cases += [
            one("BatchNormalization", x, *channel, variance, **fixed, momentum=0.7),
            one("BatchNormalization", x, *channel, variance, epsilon=0.1, **fixed),
        ]
    ones = [np.ones(1, np.float32)] * 4
    line = numbers(7) + 3
    centred = (line - line.mean()) / np.sqrt(line.var() + np.float32(1e-5)) + 1
    moved = np.float32(0.9) + np.stack([line.mean(), line.var()])[:, None] * np.float32(0.1)
    return [*cases, one("BatchNormalization", line, *ones, **fixed).giving(centred, *moved)]


def statistics_cases() -> list[Case]:
    x = numbers(2, 3, 4, 7) * 3 + 5
    cases = [
        one("LayerNormalization", x, numbers(*x.shape[axis:]), outputs=outputs, axis=axis)
        for axis, outputs in ((-1, 3), (2, 3), (1, 2), (-4, 3))
    ]
    wide = x.astype(np.float64)
    mean = wide.mean(3, keepdims=True)
    normal = (wide - mean) / np.sqrt(wide.var(3, keepdims=True) + 1e-5)
    # squares beyond float16: the statistics are of float32
    half = (numbers(2, 64) * 500).astype(np.float16)
    scale = np.ones(64, np.float16)
    loose = half.astype(np.float64)
    expected = (loose - loose.mean(1, keepdims=True)) / loose.std(1, keepdims=True)
    inverse = 1 / loose.std(1, keepdims=True)
    return [
        *cases,
        one("LayerNormalization", wide, np.ones(7), outputs=2).giving(
            normal, mean.astype(np.float32)
        ),
        replace(
            one("LayerNormalization", half, scale, outputs=3).giving(
                expected.astype(np.float16),
                loose.mean(1, keepdims=True).astype(np.float32),
                inverse.astype(np.float32),
            ),
            tolerance=2e-3,
        ),
        replace(
            one(
                "GroupNormalization", half.reshape(2, 8, 8), scale[:8], scale[:8] * 0, num_groups=1
            ).giving(expected.reshape(2, 8, 8).astype(np.float16)),
            tolerance=2e-3,
        ),
        replace(
            one("InstanceNormalization", half.reshape(2, 1, 64), scale[:1], scale[:1] * 0).giving(
                expected.reshape(2, 1, 64).astype(np.float16)
            ),
            tolerance=2e-3,
        ),
        replace(
            one("MeanVarianceNormalization", half, axes=[-1]).giving(expected.astype(np.float16)),
            tolerance=2e-3,
        ),
        one("MeanVarianceNormalization", x, axes=[1, -1]),
    ]


def length_cases() -> list[Case]:
    x = numbers(3, 4, 6)
    x[1, :, 2] = 0
    x[:, 3, 0] = 0
    cases = [
        one("LpNormalization", x, axis=axis, p=p).giving(_of_length_one(x, axis, p))
        for axis in (0, 1, -1)
        for p in (1, 2)
    ]
    image = numbers(2, 7, 3, 4)
    return [
        *cases,
        one("LpNormalization", x.astype(np.float64)).giving(
            _of_length_one(x.astype(np.float64), -1, 2)
        ),
        *(one("LRN", image, size=size, alpha=0.5, beta=0.6, bias=1.5) for size in (1, 3, 5)),
        one("LRN", image, size=4, alpha=0.5).giving(_local(image, 4, 0.5)),
        one("LRN", image[..., 0], size=9, alpha=0.5).giving(_local(image[..., 0], 9, 0.5)),
    ]


def _of_length_one(x: Array, axis: int, p: int) -> Array:
    length = np.linalg.norm(x, p, axis=axis, keepdims=True)
    return np.asarray(x / np.where(length == 0, 1, length)).astype(x.dtype)


def _local(x: Array, size: int, alpha: float) -> Array:
    padding = [(0, 0)] * x.ndim
    padding[1] = ((size - 1) // 2, size // 2)
    squares = np.pad(x.astype(np.float64) ** 2, padding)
    windows = np.lib.stride_tricks.sliding_window_view(squares, size, axis=1).sum(-1)
    return np.asarray(x / (1 + alpha / size * windows) ** 0.75).astype(x.dtype)


def root_mean_square_cases() -> list[Case]:
    x = numbers(2, 3, 4, 7) * 3
    half = (numbers(2, 64) * 500).astype(np.float16)
    loose = half.astype(np.float64)
    expected = loose / np.sqrt((loose**2).mean(1, keepdims=True))
    cases = [
        one("RMSNormalization", x, numbers(7)).reference(),
        one("RMSNormalization", x, numbers(3, 4, 7), axis=1, epsilon=0.1).reference(),
        one("RMSNormalization", x, numbers(1), axis=0).reference(),
        replace(
            one("RMSNormalization", half, np.ones(64, np.float16)).giving(
                expected.astype(np.float16)
            ),
            tolerance=2e-3,
        ),
    ]
    return [replace(case, opset=23) for case in cases]


CASES = [
    *(*softmax_cases(), *normalisation_cases(), *training_cases(), *statistics_cases()),
    *(*length_cases(), *root_mean_square_cases()),
]


def test_softmax_along_any_axis_and_of_masks(tmp_path: Path) -> None:
    check(softmax_cases(), tmp_path)


def test_normalisations(tmp_path: Path) -> None:
    check(normalisation_cases(), tmp_path)


def test_statistics_of_the_batch(tmp_path: Path) -> None:
    check(training_cases(), tmp_path)


def test_statistics_as_outputs_and_in_the_type_they_are_computed_in(tmp_path: Path) -> None:
    check([*statistics_cases(), *length_cases()], tmp_path)


def test_root_mean_squares(tmp_path: Path) -> None:
    check(root_mean_square_cases(), tmp_path)
