"""Operators that take samples: Resize, GridSample, AffineGrid and RoiAlign."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ramforge
from ramforge.compiler.errors import UnsupportedModel
from tests.helpers import Array, Case, Known, check, ints, model_of, numbers, one

TRANSFORMS = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
)
ROI = Known(np.array([0.2, -0.3, 0.9, 1.2], np.float32))


def scales(*values: float) -> Known:
    return Known(np.array(values, np.float32))


def resize(x: Array, *operands: Known | None, **attributes: Any) -> Case:
    case = one("Resize", x, *operands, **attributes)
    return replace(case.reference(), tolerance=2e-5)


def nearest_cases() -> list[Case]:
    x = numbers(5, 7)
    cases = [
        resize(x, None, given, coordinate_transformation_mode=transform, nearest_mode=mode)
        for given in (scales(1.3, 0.6),)
        for transform in TRANSFORMS
        for mode in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ]
    return [
        *cases,
        resize(numbers(2, 3, 4), None, None, ints(9, 3), axes=[2, 0]),
        one("Resize", numbers(2, 3, 4), None, None, ints(3, 9), axes=[-3, -1]),
        resize(x, None, None, ints(9, 9), keep_aspect_ratio_policy="not_larger"),
        resize(x, None, None, ints(9, 9), keep_aspect_ratio_policy="not_smaller"),
        resize(x, None, None, ints(1, 1)),
        *(
            resize(numbers(3, 4, dtype=kind), None, scales(1.7, 2.0))
            for kind in ("uint8", "float64", "float16")
        ),
        *(
            one("Resize", numbers(5, dtype=kind), None, scales(2)).giving(
                np.repeat(numbers(5, dtype=kind), 2)
            )
            for kind in ("bool", "int64", "uint64", "int16")
        ),
    ]


def weighted_cases() -> list[Case]:
    x = numbers(7, 5)
    cases = [
        resize(x, None, given, coordinate_transformation_mode=transform, mode=mode, **flags)
        for given in (scales(0.3, 2.4),)
        for transform in TRANSFORMS
        for mode in ("linear", "cubic")
        for flags in ({}, {"antialias": 1}, {"exclude_outside": 1})
    ]
    small = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
    return [
        *cases,
        resize(x, None, scales(0.4, 1.9), mode="cubic", cubic_coeff_a=-0.5),
        resize(x, None, None, ints(11, 1), mode="linear"),
        resize(numbers(1, 2, 3, 4, 5), None, scales(1, 1, 2, 1.5, 0.5), mode="linear"),
        resize(numbers(3, 4, 5), None, scales(2, 1.5), axes=[2, 0], mode="cubic"),
        resize(numbers(1, 6), None, scales(3, 0.5), mode="linear", antialias=1),
        resize(numbers(2, 2, 65), None, scales(1, 1, 0.1), mode="cubic", antialias=1),
        resize(small, None, scales(1.7, 0.8), mode="linear"),
        resize(small, None, scales(2, 2), mode="cubic"),  # overshoots at both ends
        resize(numbers(4, 5, dtype="float64"), None, scales(1.7, 0.8), mode="linear"),
        replace(
            resize(numbers(4, 5, dtype="float16"), None, scales(1.7, 0.8), mode="cubic"),
            tolerance=1e-3,
        ),
    ]


def crop_cases() -> list[Case]:
    x = numbers(5, 7)
    crop: dict[str, Any] = {"coordinate_transformation_mode": "tf_crop_and_resize"}
    return [
        *(
            resize(x, ROI, None, sizes, mode=mode, extrapolation_value=8.0, **crop)
            for mode, sizes in itertools.product(
                ("nearest", "linear", "cubic"), (ints(6, 9), ints(1, 12))
            )
        ),
        resize(numbers(2, 5, 7), ROI, None, ints(4, 9), axes=[2, 1], mode="linear", **crop),
        resize(
            np.arange(35).reshape(5, 7), ROI, None, ints(6, 9), extrapolation_value=-3.6, **crop
        ),
    ]


def test_nearest_elements_are_those_of_the_standard(tmp_path: Path) -> None:
    check(nearest_cases(), tmp_path)


def test_interpolation_has_the_standards_weights(tmp_path: Path) -> None:
    check(weighted_cases(), tmp_path)


def test_a_part_of_the_image_is_resized_and_what_is_outside_is_given(tmp_path: Path) -> None:
    check(crop_cases(), tmp_path)


def grid_sample(
    sizes: tuple[int, ...], places: tuple[int, ...], mode: str, padding: str, aligned: int
) -> Case:
    x = numbers(2, 2, *sizes)
    grid = 1.6 * numbers(2, *places, len(sizes), seed=1)
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": aligned}
    return one("GridSample", x, grid, **attributes).reference()


def grid_cases() -> list[Case]:
    modes = itertools.product(("nearest", "linear", "cubic"), ("zeros", "border", "reflection"))
    return [
        *(grid_sample((4, 5), (3, 4), *how, n % 2) for n, how in enumerate(modes)),
        grid_sample((4, 5), (3, 4), "cubic", "reflection", 1),
        grid_sample((3, 2, 4), (2, 3, 2), "linear", "zeros", 1),
        grid_sample((3, 2, 4), (2, 3, 2), "nearest", "reflection", 0),
        grid_sample((2, 3, 2), (1, 2, 2), "cubic", "border", 0),
        grid_sample((6,), (7,), "linear", "reflection", 1),
    ]


def other_grid_cases() -> list[Case]:
    far = np.array([[[[np.inf, 0.0], [1e30, -1e30], [0.0, 0.0]]]], np.float32)
    image = np.array([[[[np.inf, 1.0, 2.0], [3.0, 4.0, 5.0]]]], np.float32)
    whole = numbers(1, 2, 3, 4, dtype="int64")
    grid = numbers(1, 2, 5, 2)
    pixel = (np.rint(((grid + 1) * np.array([4, 3]) - 1) / 2)).astype(int)
    inside = ((pixel >= 0) & (pixel < [4, 3])).all(axis=-1)
    column, row = (np.where(inside, pixel[..., axis], 0) for axis in (0, 1))
    taken = np.where(inside, whole[0][:, row[0], column[0]], 0)[None]
    return [
        one("GridSample", image, far, mode="linear").giving(
            np.array([[[[0.0, 0.0, 2.5]]]], np.float32)
        ),
        one("GridSample", whole, grid, mode="nearest").giving(taken.reshape(1, 2, 2, 5)),
        one("GridSample", numbers(1, 1, 1, 3), grid, align_corners=1, padding_mode="border"),
        one("AffineGrid", numbers(2, 2, 3), ints(2, 1, 4, 5)).reference(),
        one("AffineGrid", numbers(2, 2, 3), ints(2, 1, 4, 5), align_corners=1).reference(),
        one("AffineGrid", numbers(1, 3, 4), ints(1, 1, 2, 3, 4)).reference(),
        one("AffineGrid", numbers(1, 3, 4), ints(1, 1, 2, 3, 4), align_corners=1).reference(),
    ]


def test_samples_are_taken_where_the_grid_says(tmp_path: Path) -> None:
    check(grid_cases(), tmp_path)


def test_grids_leave_the_image_and_are_made_of_matrices(tmp_path: Path) -> None:
    check(other_grid_cases(), tmp_path)


def roi_cases() -> list[Case]:
    x = numbers(2, 3, 8, 9)
    rois = np.array(
        [
            [0, 0, 5, 6],
            [1.5, 2.5, 8.2, 7.1],
            [-9, -9, 3, 2],
            [3, 3, 3.2, 3.1],
            [-40, 2, 60, 5],  # more samples of a bin than the image has columns
            [5, 5, 2, 3],
        ],
        np.float32,
    )
    images = np.array([0, 1, 1, 0, 1, 0])
    return [
        one(
            "RoiAlign",
            x,
            rois,
            images,
            mode=mode,
            coordinate_transformation_mode=transform,
            sampling_ratio=ratio,
            spatial_scale=scale,
            output_height=3,
            output_width=2,
        ).reference()
        for mode in ("avg", "max")
        for transform in ("half_pixel", "output_half_pixel")
        for ratio, scale in ((0, 1.0), (0, 0.4), (2, 0.7))
    ]


def test_bins_of_regions_are_averaged_or_searched(tmp_path: Path) -> None:
    check(roi_cases(), tmp_path)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (one("Resize", numbers(3, dtype=bool), None, scales(2), mode="linear"), "booleans"),
        (one("GridSample", numbers(1, 1, 2, 2, dtype="int32"), numbers(1, 2, 2, 2)), "int32"),
    ],
)
def test_what_cannot_be_interpolated_is_refused(case: Case, reason: str) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        ramforge.compile(model_of([case]), target="h200")
