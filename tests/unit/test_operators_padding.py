"""Pad, CenterCropPad, and blocks of pixels that become channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ramforge
from ramforge.compiler.errors import UnsupportedModel
from ramforge.compiler.ir import DType
from tests.helpers import Case, Known, check, ints, model_of, numbers, one


def pad_cases() -> list[Case]:
    x = numbers(3, 4, 5)
    cases = [
        one("Pad", x, ints(1, 2, 3, 0, 1, 2), mode=mode) for mode in ("reflect", "edge", "wrap")
    ]
    for mode in ("constant", "reflect", "edge"):
        cases.append(one("Pad", x, ints(-1, 2, -2, 1, -1, 1), mode=mode))
    for mode in ("reflect", "edge", "wrap"):  # further than the tensor is long
        wide = np.pad(numbers(3), (8, 7), mode=mode)
        cases.append(one("Pad", numbers(3), ints(8, 7), mode=mode).giving(wide))
        alone = np.pad(numbers(1, 2), ((2, 3), (0, 0)), mode=mode)
        cases.append(one("Pad", numbers(1, 2), ints(2, 0, 3, 0), mode=mode).giving(alone))
    return [
        *cases,
        one("Pad", x, ints(1, 2), None, ints(-1), mode="wrap"),
        one("Pad", x, ints(1, 0, 0, 2), np.float32(3.5), ints(2, 0)),
        one("Pad", x, ints(1, 0, 0, 2), Known(np.float32(-np.inf)), ints(2, 0)),
        one("Pad", numbers(2), ints(-3, 5), np.float32(7)).giving(np.full(4, 7, np.float32)),
        one("Pad", np.zeros((0, 2), np.float32), ints(1, 1, 1, 0), np.float32(2)).giving(
            np.full((2, 3), 2, np.float32)
        ),
        one("Pad", np.float32(4), ints()).giving(np.float32(4)),
    ]


NOT_AT_OPSET_21 = (DType.FLOAT8E8M0, DType.FLOAT4E2M1, DType.INT2, DType.UINT2)


def type_cases() -> list[Case]:
    cases = []
    for kind in (dtype.numpy for dtype in DType if dtype not in NOT_AT_OPSET_21):
        x = np.array([[1, 0], [1, 1]]).astype(kind)
        fill, wide = np.array(1).astype(kind), np.array([[1, 0, 1], [1, 1, 1]]).astype(kind)
        cases.append(one("Pad", x, ints(0, 0, 0, 1), Known(fill)).giving(wide))
        cases.append(one("Pad", x, ints(0, 0, 0, 1), fill).giving(wide))
    flags = np.array([True, False])
    cases.append(one("Pad", flags, ints(1, 1)).giving(np.array([False, True, False, False])))
    return cases


def other_cases() -> list[Case]:
    x = numbers(4, 5, 6)
    cases = [
        one("CenterCropPad", x, ints(3, 8, 3)).reference(),
        one("CenterCropPad", x, ints(7, 2), axes=[-1, 0]).reference(),
        one("CenterCropPad", numbers(3, dtype="int8"), ints(6)).reference(),
    ]
    for mode in ("DCR", "CRD"):
        cases.append(one("DepthToSpace", numbers(2, 12, 3, 5), blocksize=2, mode=mode))
        cases.append(one("DepthToSpace", numbers(1, 9, 2, 2), blocksize=3, mode=mode))
    whole = numbers(1, 2, 9, 6, dtype="int32")
    return [
        *cases,
        one("SpaceToDepth", numbers(2, 3, 4, 6), blocksize=2),
        one("SpaceToDepth", whole, blocksize=3).reference(),
    ]


def test_padding_repeats_or_fills(tmp_path: Path) -> None:
    check(pad_cases(), tmp_path)


def test_padding_takes_every_type(tmp_path: Path) -> None:
    check(type_cases(), tmp_path)


def test_centers_and_blocks_move(tmp_path: Path) -> None:
    check(other_cases(), tmp_path)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_padding_with_nothing_left_is_refused(mode: str) -> None:
    case = one("Pad", numbers(2, 3), ints(-2, 0, 5, 0), mode=mode)
    with pytest.raises(UnsupportedModel, match="nothing left to repeat"):
        ramforge.compile(model_of([case]), target="h200")
