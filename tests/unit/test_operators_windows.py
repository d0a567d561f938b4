"""Pooling and transposed convolutions: what a window sees, what reaches an output, and where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import ramforge
from ramforge.runtime.session import Session
from tests.helpers import Array, Case, Known, check, ints, model_of, numbers, one, run_both

IMAGE = numbers(2, 3, 9, 11)


def half(case: Case) -> Case:
    return replace(case, tolerance=2e-3)


def maximum_cases() -> list[Case]:
    ties = np.round(IMAGE)
    square = {"kernel_shape": [3, 3]}
    window = {**square, "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nan = np.array([[[1, 5, np.nan, 2, np.nan, 7, 3, -np.inf, -np.inf]]], np.float32)
    cases = [
        one("MaxPool", x, outputs=2, **attributes)
        for x in (IMAGE, ties)
        for attributes in (
            window,
            {**window, "storage_order": 1},
            {**square, "dilations": [2, 3], "ceil_mode": 1, "strides": [2, 1]},
            {"kernel_shape": [2, 4], "auto_pad": "SAME_LOWER", "strides": [2, 2]},
        )
    ]
    return [
        *cases,
        one("MaxPool", numbers(2, 1, 17), outputs=2, kernel_shape=[4], strides=[3]),
        one("MaxPool", numbers(1, 2, 5, 4, 6), outputs=2, kernel_shape=[2, 3, 2], storage_order=1),
        one("MaxPool", numbers(1, 2, 6, 5, dtype=np.int8), outputs=2, **window),
        one("MaxPool", numbers(1, 2, 6, 5, dtype=np.uint8), outputs=2, **window),
        one("MaxPool", numbers(1, 2, 6, 5, dtype=np.float64), outputs=2, **square),
        one("MaxPool", numbers(1, 2, 6, 5, dtype=np.float16), **square).reference(),
        # a NaN is the largest there is, and the first of the least is found as well
        one("MaxPool", nan, outputs=2, kernel_shape=[3], strides=[3]).giving(
            np.array([[[np.nan, np.nan, 3]]], np.float32), np.array([[[2, 4, 6]]])
        ),
        one("MaxPool", nan[..., 7:], outputs=2, kernel_shape=[2], pads=[1, 0]).giving(
            np.full((1, 1, 2), -np.inf, np.float32), np.array([[[0, 0]]])
        ),
        # this window lies in the padding alone
        one("MaxPool", IMAGE[..., :3, 0], outputs=1, kernel_shape=[2], dilations=[4], pads=[2, 2])
        .reference()
        .giving(_far_apart(IMAGE[..., :3, 0])),
    ]


def _far_apart(x: Array) -> Array:
    """Offsets 4 apart, two of padding on both sides: -2 and 2, -1 and 3, 0 and 4."""
    return np.stack([x[..., 2], np.full(x.shape[:2], -np.inf, np.float32), x[..., 0]], -1)


def average_cases() -> list[Case]:
    cases = []
    for count in (0, 1):
        fixed: dict[str, Any] = {"count_include_pad": count, "kernel_shape": [3, 2]}
        cases += [
            one("AveragePool", IMAGE, **fixed, dilations=[2, 3]),
            one("AveragePool", IMAGE, **fixed, dilations=[2, 2], pads=[2, 1, 1, 0], strides=[2, 3]),
            one("AveragePool", IMAGE, **fixed, dilations=[3, 1], pads=[1, 1, 0, 0], ceil_mode=1),
            one("AveragePool", IMAGE, **fixed, strides=[4, 3], ceil_mode=1, pads=[1, 0, 1, 0]),
        ]
    double = numbers(2, 3, 4, dtype=np.float64)
    large = np.full((1, 1, 10, 10), 1000, np.float16)  # their sum is beyond float16
    return [
        *cases,
        one("AveragePool", large, kernel_shape=[10, 10]).giving(large[..., :1, :1]),
        one("GlobalAveragePool", large).giving(large[..., :1, :1]),
        one("GlobalAveragePool", numbers(2, 3)).giving(numbers(2, 3)),
        one("GlobalMaxPool", double).giving(double.max(2, keepdims=True)),
    ]


def norm(x: Array, p: int, *axes: int) -> Array:
    total = (np.abs(x.astype(np.float64)) ** p).sum(axis=axes, keepdims=True)
    return np.asarray(total ** (1 / p)).astype(x.dtype)


def lp_cases() -> list[Case]:
    window: dict[str, Any] = {"kernel_shape": [2, 3], "strides": [2, 3]}
    parts = IMAGE[:, :, :8, :9].reshape(2, 3, 4, 2, 3, 3)
    cases = []
    for p in (1, 2, 3):
        expected = norm(parts, p, 3, 5)[:, :, :, 0, :, 0]
        cases += [
            one("LpPool", IMAGE, p=p, **window).giving(expected),
            one("LpPool", IMAGE, p=p, **window, pads=[1, 0, 0, 2]),
            one("LpPool", IMAGE, p=p, **window, auto_pad="SAME_UPPER"),
            one("GlobalLpPool", IMAGE, p=p).giving(norm(IMAGE, p, 2, 3)),
        ]
    return [*cases, one("LpPool", IMAGE, kernel_shape=[2, 2], dilations=[3, 2], ceil_mode=1)]


def unpooled(x: Array, indices: Array, *shape: int) -> Array:
    made = np.zeros(shape, x.dtype)
    for value, index in zip(x.ravel(), indices.ravel(), strict=True):
        made.reshape(-1)[index] = value
    return made


POOLED = (2, 3, 4, 5)
INDICES = np.asarray(
    (2 * np.arange(4)[:, None] * 10 + 2 * np.arange(5))  # corners of windows of 2 x 2
    + numbers(*POOLED, dtype=np.uint8) % 2
    + 10 * (numbers(*POOLED, seed=1, dtype=np.uint8) % 2)
    + (np.arange(6) * 80).reshape(2, 3, 1, 1)
).astype(np.int64)


def unpooling_cases() -> list[Case]:
    x, window = numbers(*POOLED), {"kernel_shape": [2, 2], "strides": [2, 2]}
    small = unpooled(x, INDICES, 2, 3, 8, 10)
    overlapping = np.array([[[1, 1, 3]]])  # the last one wins
    line = numbers(1, 1, 3)
    return [
        one("MaxUnpool", x, INDICES, **window).giving(small),
        one("MaxUnpool", x.astype(np.float16), INDICES, **window).giving(small.astype(np.float16)),
        one("MaxUnpool", line, overlapping, kernel_shape=[3]).giving(
            unpooled(line, overlapping, 1, 1, 5)
        ),
        one(
            "MaxUnpool", line, np.array([[[0, 1, 3]]]), kernel_shape=[3], strides=[2], pads=[1, 1]
        ).giving(unpooled(line, np.array([0, 1, 3]), 1, 1, 5)),
    ]


def weights(*shape: int) -> Array:
    return np.asarray(numbers(*shape, seed=5) / np.float32(np.sqrt(np.prod(shape[1:]))))


def transposed_cases() -> list[Case]:
    image, bias = numbers(2, 6, 5, 4), Known(numbers(8))
    full, grouped, depthwise = weights(6, 8, 3, 2), weights(6, 4, 3, 3), weights(6, 1, 3, 4)
    infinite = image.copy()
    infinite[0, 0, 2, 2] = np.inf
    cases = []
    for known in (True, False):
        w = [Known(value) if known else value for value in (full, grouped, depthwise)]
        cases += [
            one("ConvTranspose", image, w[0]),
            one("ConvTranspose", image, w[0], bias, strides=[2, 3], pads=[1, 0, 2, 1]),
            one("ConvTranspose", image, w[0], strides=[2, 1], output_padding=[1, 0]),
            one("ConvTranspose", image, w[0], dilations=[2, 3], pads=[1, 1, 0, 2]),
            one("ConvTranspose", image, w[1], bias, group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
            one("ConvTranspose", image, w[2], group=6, strides=[3, 2]),
        ]
    return [
        *cases,
        one("ConvTranspose", image, full, strides=[3, 2], dilations=[2, 3]),
        one(
            "ConvTranspose", image, full, bias, strides=[4, 2], dilations=[2, 4], pads=[0, 1, 1, 0]
        ),
        one("ConvTranspose", image, Known(weights(6, 2, 1, 2)), strides=[3, 4]),
        one("ConvTranspose", image, full, strides=[2, 2], output_shape=[10, 7]),
        one("ConvTranspose", image, full, auto_pad="SAME_UPPER", strides=[2, 1]),
        one("ConvTranspose", image, full, auto_pad="SAME_LOWER", strides=[2, 1]).giving(
            _lower(image, full)
        ),
        one("ConvTranspose", image, full, auto_pad="VALID", strides=[2, 2]),
        one("ConvTranspose", infinite, Known(full), strides=[2, 2]).reference(),
        one("ConvTranspose", numbers(2, 4, 9), weights(4, 3, 5), strides=[3], pads=[2, 1]),
        one("ConvTranspose", numbers(1, 2, 3, 4, 2), weights(2, 3, 2, 3, 2), strides=[2, 2, 1]),
        one("ConvTranspose", numbers(1, 64, 4, 4), Known(weights(64, 33, 4, 4)), strides=[2, 2]),
        half(
            one("ConvTranspose", *(v.astype(np.float16) for v in (image, full)), strides=[2, 2])
        ).giving(_plain(image, full)),
    ]


def _plain(x: Array, w: Array) -> Array:
    """With stride 2, added up where it falls."""
    made = np.zeros((2, 8, 2 * 4 + 3, 2 * 3 + 2), np.float64)
    x, w = (value.astype(np.float16).astype(np.float64) for value in (x, w))
    for h, v in np.ndindex(5, 4):
        part = np.einsum("nc,cmij->nmij", x[:, :, h, v], w)
        made[:, :, 2 * h : 2 * h + 3, 2 * v : 2 * v + 2] += part
    return made.astype(np.float16)


def _lower(x: Array, w: Array) -> Array:
    """Strides 2 and 1 to 10 x 4: one too many along both axes, cut off in front."""
    made = np.zeros((2, 8, 2 * 4 + 3, 3 + 2), np.float64)
    for h, v in np.ndindex(5, 4):
        part = np.einsum("nc,cmij->nmij", x[:, :, h, v], w)
        made[:, :, 2 * h : 2 * h + 3, v : v + 2] += part
    return made[:, :, 1:, 1:].astype(np.float32)


def column_cases() -> list[Case]:
    return [
        one("Col2Im", numbers(2, 12, 20), ints(5, 7), ints(2, 3)),
        one("Col2Im", numbers(1, 12, 6), ints(5, 7), ints(2, 3), strides=[2, 3], pads=[0, 1, 0, 1]),
        one("Col2Im", numbers(1, 6, 8), ints(6, 8), ints(2, 3), dilations=[2, 3], strides=[1, 1]),
        one("Col2Im", numbers(1, 8, 12), ints(3, 4, 3), ints(2, 2, 2)).reference(),
        one("Col2Im", numbers(1, 4, 4, dtype=np.int32), ints(3, 3), ints(2, 2)).reference(),
    ]


def deformable(groups: int, offset_groups: int, masked: bool, **attributes: Any) -> Case:
    x, w = numbers(2, 4, 6, 5), weights(6, 4 // groups, 2, 3)
    height, width = attributes.pop("size")
    offset = numbers(2, offset_groups * 12, height, width) * 2
    mask = numbers(2, offset_groups * 6, height, width, seed=2)
    case = one(
        "DeformConv",
        *(x, w, offset, numbers(6)),
        *((mask,) if masked else ()),
        group=groups,
        offset_group=offset_groups,
        **attributes,
    )
    return case.reference()


def deformable_cases() -> list[Case]:
    return [
        deformable(1, 1, False, size=(5, 3)),
        deformable(2, 2, True, size=(7, 5), pads=[1, 1, 1, 1]),
        deformable(1, 4, True, size=(3, 2), strides=[2, 2], pads=[0, 1, 1, 0]),
        deformable(2, 1, False, size=(4, 1), dilations=[2, 2]),
    ]


def test_largest_elements_and_where_they_are(tmp_path: Path) -> None:
    check(maximum_cases(), tmp_path)


def test_averages_and_norms_of_windows(tmp_path: Path) -> None:
    check([*average_cases(), *lp_cases()], tmp_path)


def test_unpooling_puts_each_element_where_it_was(tmp_path: Path) -> None:
    check(unpooling_cases(), tmp_path)


def test_unpooling_to_a_given_shape_leaves_the_rest_empty(tmp_path: Path) -> None:
    x, shape = numbers(*POOLED), (2, 3, 9, 12)
    case = one("MaxUnpool", x, INDICES, ints(*shape), kernel_shape=[2, 2], strides=[2, 2])
    model = model_of([case])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("c0_y0", 1, shape))
    feeds = {f"c0_{name}": value for name, value in case.inputs.items()}
    expected = np.zeros(shape, np.float32)
    expected[:, :, :8, :10] = unpooled(x, INDICES, 2, 3, 8, 10)
    for results in run_both(model, feeds, tmp_path).values():
        np.testing.assert_array_equal(results[0], expected)


def test_unpooling_outside_of_a_window_is_an_error(tmp_path: Path) -> None:
    wrong = INDICES.copy()
    wrong[1, 2, 3, 4] = 0
    case = one("MaxUnpool", numbers(*POOLED), wrong, kernel_shape=[2, 2], strides=[2, 2])
    artifact = ramforge.compile(model_of([case]), target="h200", output=tmp_path / "case.cu")
    with Session(artifact, "host:2") as session:
        feeds = {f"c0_{name}": value for name, value in case.inputs.items()}
        with pytest.raises(ramforge.RamforgeError, match="outside of the window"):
            session.run(None, feeds)
        feeds["c0_x1"] = INDICES
        session.run(None, feeds)


def test_transposed_convolutions(tmp_path: Path) -> None:
    check(transposed_cases(), tmp_path)


def test_columns_and_deformed_windows(tmp_path: Path) -> None:
    check([*column_cases(), *deformable_cases()], tmp_path)


CASES = [
    *(*maximum_cases(), *average_cases(), *lp_cases(), *unpooling_cases()),
    *(*transposed_cases(), *column_cases(), *deformable_cases()),
]
