"""Operators that move elements: every way to name an axis, a range or a shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.helpers import Array, Case, Known, check, ints, one

FAR = 2**62


def counted(*shape: int) -> Array:
    """Every element another value."""
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


def reshape_cases() -> list[Case]:
    x = counted(2, 3, 1, 10)
    return [
        one("Reshape", x, ints(5, 12)),
        one("Reshape", x, ints(-1)),
        one("Reshape", x, ints(0, -1, 2)),
        one("Reshape", counted(1), ints()),
        one("Reshape", counted(), ints(1, 1)),
        one("Reshape", counted(0, 3), ints(3, 0), allowzero=1),
        one("Flatten", x),
        one("Flatten", x, axis=0),
        one("Flatten", x, axis=-1),
        one("Flatten", x, axis=4),
        one("Squeeze", x),
        one("Squeeze", x, ints(-2)),
        one("Unsqueeze", x, ints(-1, 0, 3)),
        one("Unsqueeze", counted(), ints(0)),
        one("Transpose", x),
        one("Transpose", x, perm=[3, 1, 0, 2]),
        one("Transpose", counted(63, 65)),
        one("Transpose", counted()),
        one("Transpose", counted(0, 3)),
        one("Expand", counted(3, 1), ints(2, 1, 7)),
        one("Expand", counted(5), ints(1)),
        one("Expand", counted(), ints(2, 3)),
        one("Expand", counted(1, 4), ints(0, 4)),
        one("Tile", counted(2, 3), ints(2, 3)),
        one("Tile", counted(2, 1, 3), ints(1, 65, 1)),
        one("Tile", counted(3), ints(0)),
    ]


def slice_cases() -> list[Case]:
    x = counted(4, 7, 9)
    return [
        one("Slice", x, ints(1), ints(3)),
        one("Slice", x, ints(1, 2), ints(3, FAR), ints(0, -1)),
        one("Slice", x, ints(-1), ints(-FAR), ints(1), ints(-1)),
        one("Slice", x, ints(FAR, 8), ints(0, -100), ints(1, 2), ints(-2, -3)),
        one("Slice", x, ints(-100, 1), ints(100, -1), ints(0, 2), ints(3, 4)),
        one("Slice", x, ints(3), ints(1), ints(1)),
        one("Slice", x, ints(5), ints(5), ints(2), ints(-1)),
        one("Slice", x, *(Known(np.array([v], np.int32)) for v in (-3, -1, -2, 1))),
        one("Slice", counted(0, 3), ints(0), ints(2), ints(1)),
        one("Split", counted(7, 3), outputs=3, num_outputs=3),
        one("Split", counted(2, 9), ints(2, 3, 4), outputs=3, axis=-1),
        one("Split", counted(4, 2), ints(0, 4), outputs=2, axis=0),
        one("Split", counted(6), outputs=1, num_outputs=1),
    ]


def gather_cases() -> list[Case]:
    x = counted(4, 7, 3)
    signed = np.array([[0, -1], [6, -7], [3, 2]])
    cases = []
    for kind in (np.int32, np.int64):
        places = signed.astype(kind)
        cases += [one("Gather", x, places, axis=1), one("Gather", x, Known(places), axis=-2)]
    return [
        *cases,
        one("Gather", x, np.array(-2, np.int64), axis=0),
        one("Gather", x, Known(np.array(-2, np.int64)), axis=-1),
        one("Gather", Known(counted(65, 3)), np.array([[64, -65, 0]], np.int64)),
        one("Gather", counted(5), np.array([-1, 4, 2], np.int64)),
        one("Gather", counted(5), np.array(-5, np.int64)),
        one("Gather", x, np.zeros((2, 0), np.int64), axis=1),
    ]


def concat_cases() -> list[Case]:
    return [
        one("Concat", *(counted(2, size, 3) for size in (1, 7, 4)), axis=-2),
        one("Concat", counted(3), Known(counted(2)), counted(4), axis=0),
        one("Concat", counted(2, 0), counted(2, 3), counted(2, 0), axis=1),
        one("Concat", counted(0, 3), counted(0, 3), axis=0),
        one("Concat", counted(2, 2), axis=1),
        one("Concat", *(counted(3, 1) + number for number in range(40)), axis=1),
        one("Concat", counted(65, 63), counted(65, 64), axis=1),
    ]


def pad_cases() -> list[Case]:
    x = counted(3, 5) + 1
    two = Known(np.float32(2.5).reshape(()))
    return [
        one("Pad", x, ints(1, 0, 0, 2)),
        one("Pad", x, ints(1, 2, 3, 4), two),
        one("Pad", x, ints(-1, -2, 0, -1), two),
        one("Pad", x, ints(-1, 2, 2, -3), two),
        one("Pad", x, ints(2, 1), two, ints(-1)),
        one("Pad", x, ints(0, 1, 3, 0), None, ints(1, 0)).reference(),
        one("Pad", counted(0, 3), ints(1, 0, 1, 1), two),
        one("Pad", x, ints(0, 0, 0, 0)),
        one("Pad", x > 7, ints(1, 0, 0, 2), Known(np.array(True))),
        one("Pad", x.astype(np.int64), ints(1, 0, 0, 2), Known(np.array(-(2**40)))),
        one("Pad", x, ints(1, 1, 1, 1), Known(np.array(-np.inf, np.float32)), mode="constant"),
    ]


CASES = [*reshape_cases(), *slice_cases(), *gather_cases(), *concat_cases(), *pad_cases()]


def test_every_element_arrives_where_it_belongs(tmp_path: Path) -> None:
    check(CASES, tmp_path)
