"""Operators that read or write at positions given by data: every reduction, axis and odd shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ramforge.kernels.operators import scattering
from tests.helpers import Array, Case, Known, check, ints, numbers, one


def counted(*shape: int, dtype: Any = np.float32) -> Array:
    """Every element another value."""
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


def places(size: int, *shape: int, seed: int = 0, dtype: Any = np.int64) -> Array:
    """Positions in an axis of this size, negative ones among them."""
    random = np.random.default_rng([seed, size, *shape])
    return np.asarray(random.integers(-size, size, shape)).astype(dtype)


def gather_cases() -> list[Case]:
    x = counted(3, 4, 5)
    return [
        one("GatherElements", x, places(4, 2, 6, 5), axis=1),
        one("GatherElements", x, places(5, 3, 4, 1, dtype=np.int32), axis=-1),
        one("GatherElements", counted(5, dtype=np.int64), places(5, 9)),
        one("GatherElements", x > 20, Known(places(3, 7, 4, 5)), axis=0),
        one("GatherElements", x, np.zeros((0, 4, 5), np.int64)),
        one("GatherND", x, places(3, 2, 3)),
        one("GatherND", x, places(3, 2, 2, 2)),
        one("GatherND", x, places(3, 1)),
        one("GatherND", x, places(4, 3, 1), batch_dims=1),
        one("GatherND", x, places(5, 3, 4, 2, 1), batch_dims=2),
        one("GatherND", x.astype(np.int8), Known(places(3, 4, 2))),
        one("GatherND", counted(2, 3, 4, 5), places(4, 2, 3, 2, 2) % 4, batch_dims=2),
    ]


def rule_cases() -> list[Case]:
    values = np.array([2.5, -1], np.float32)
    depth = Known(np.array(6, np.int64))
    square, wide = counted(5, 5), counted(2, 3, 7, dtype=np.int64)
    lengths = np.array([1, 4, 0, 3], np.int64)
    return [
        one("OneHot", places(9, 2, 3), depth, values),  # some lie outside
        one("OneHot", places(6, 2, 3), depth, values, axis=0),
        one("OneHot", places(6, 4).astype(np.float32), depth, np.array([0, 7], np.int64), axis=-2),
        one("ReverseSequence", counted(4, 4, 2), lengths),
        one("ReverseSequence", counted(4, 5), Known(lengths), batch_axis=0, time_axis=1),
        one("Trilu", square),
        one("Trilu", square, np.array(-2, np.int64), upper=0),
        one("Trilu", wide, np.array(3, np.int64)),
        one("Trilu", wide, Known(np.array(-9, np.int64)), upper=0),
        one("Trilu", wide, Known(np.array(-9, np.int64)), upper=1),
        one("Trilu", counted(3, 0)),
        one("EyeLike", counted(3, 5)),
        one("EyeLike", counted(5, 3), k=-2, dtype=11),
        one("EyeLike", counted(3, 5, dtype=np.int32), k=4),
        one("EyeLike", counted(3, 5), k=9, dtype=7),
        one("Range", *(Known(np.array(v, np.int64)) for v in (3, 20, 4))),
        one("Range", *(Known(np.array(v, np.float32)) for v in (1, -1, -0.3))),
        one("Range", *(Known(np.array(v, np.int32)) for v in (3, 3, 1))),
        one("ConstantOfShape", ints(2, 3)),
        one("ConstantOfShape", ints()),
    ]


def scatter_cases() -> list[Case]:
    x = numbers(5, 4, 3)
    cases = []
    for reduction in ("none", "add", "mul", "max", "min"):
        kinds: list[Any] = [np.float32, np.int32] if reduction in ("add", "max") else [np.float32]
        for kind in kinds:
            data = x if kind is np.float32 else numbers(5, 4, 3, dtype=kind) // 8
            update = numbers(4, 6, 2).astype(kind)
            key = {"reduction": reduction}
            indices = places(4, 4, 6, 2)
            if reduction == "none":  # the last one wins, but ONNX Runtime promises nothing
                cases += [one("ScatterElements", data, indices, update, axis=1).reference()]
            else:
                cases += [one("ScatterElements", data, indices, update, axis=1, **key)]
            nd = places(4, 7, 2, seed=3)
            slices = numbers(7, 3).astype(kind)
            cases += [one("ScatterND", data, nd, slices, **key).reference()]
        full = places(3, 2, 40, 3, dtype=np.int64)
        cases += [one("ScatterND", x, full, numbers(2, 40), **key).reference()]
        rows = places(5, 6, 1)
        cases += [one("ScatterND", x, Known(rows), numbers(6, 4, 3), **key).reference()]
    flags = numbers(6, dtype=np.bool_)
    return [
        *cases,
        one("ScatterElements", flags, np.array([1, -1, 4]), ~flags[[1, 5, 4]]),
        one("ScatterElements", x, np.zeros((2, 0, 3), np.int64), numbers(2, 0, 3), axis=1),
        one(
            "ScatterElements", x, places(3, 5, 4, 2, dtype=np.int32) * 0, x[..., :2], axis=-1
        ).reference(),
    ]


def tensor_scatter_cases() -> list[Case]:
    past, update = numbers(3, 2, 6, 4), numbers(3, 2, 2, 4, seed=1)
    starts = np.array([0, 4, 2], np.int64)
    cases = [
        one("TensorScatter", past, update),
        one("TensorScatter", past, update, starts),
        one("TensorScatter", past, update, starts + 5, mode="circular"),
        one("TensorScatter", past[..., 0], update[..., 0], starts, axis=2),
    ]
    return [replace(case.reference(), opset=24) for case in cases]


def test_reads_at_given_positions(tmp_path: Path) -> None:
    check([*gather_cases(), *rule_cases()], tmp_path)


@pytest.mark.parametrize("pairs", [scattering.MOST_PAIRS, 0], ids=["looked at", "sorted"])
def test_updates_arrive_at_their_targets(
    pairs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scattering, "MOST_PAIRS", pairs)
    check(scatter_cases(), tmp_path)


def test_a_run_of_updates_starts_where_each_batch_says(tmp_path: Path) -> None:
    check(tensor_scatter_cases(), tmp_path)


def test_half_sums_are_rounded_once(tmp_path: Path) -> None:
    kind = ml_dtypes.bfloat16
    data, update = np.ones(3, kind), np.full(300, 1 / 256, kind)
    total = np.array([1, 1 + 300 / 256, 1]).astype(kind)
    target = np.ones((300,), np.int64)
    check(one("ScatterElements", data, target, update, reduction="add").giving(total), tmp_path)
