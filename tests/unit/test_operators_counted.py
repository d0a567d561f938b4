"""Operators whose output is as long as the data says, and those that count what they find."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ramforge
from ramforge.compiler.errors import ShapeError, UnsupportedModel
from ramforge.runtime.session import Session
from tests.helpers import Array, Case, Known, check, expected_of, ints, model_of, numbers, one


def few(*shape: int, seed: int = 0, dtype: Any = np.float32, most: int = 5) -> Array:
    """Small whole numbers, so that many are equal."""
    random = np.random.default_rng([seed, *shape])
    return np.asarray(random.integers(0, most, shape)).astype(dtype)


def declared(case: Case) -> Case:
    """The case with what ONNX Runtime gives, so that its outputs have shapes."""
    return case.giving(*expected_of(case))


def non_zero_cases() -> list[Case]:
    sparse = np.where(few(4, 5, 50, most=9) == 3, numbers(4, 5, 50), np.float32(0))
    cases = [
        one("NonZero", few(3, 4, most=2)),
        one("NonZero", few(90, most=2, dtype=np.bool_)),
        one("NonZero", few(2, 3, 4, most=2, dtype=np.int32)),
        one("NonZero", sparse),
        one("NonZero", np.array([0, np.nan, -0.0, np.inf], np.float32)),
    ]
    return [declared(case) for case in cases]


def compress_cases() -> list[Case]:
    x = numbers(4, 6, 3)
    flags = np.array([False, True, True, False, False, True])
    cases = [
        one("Compress", x, flags, axis=1),
        one("Compress", x, flags[:3], axis=-3),
        one("Compress", x, np.resize(flags, 72)),
        one("Compress", x, flags),
        one("Compress", x.astype(np.int64), Known(flags), axis=-2),
    ]
    return [declared(case) for case in cases]


def runs(x: Array, axis: int | None, is_sorted: bool) -> tuple[Array, ...]:
    """What NumPy says of the distinct elements, in the order in which they are met if so asked."""
    made = np.unique(x, True, True, True, axis=axis)
    values, first, number, lengths = (np.asarray(part) for part in made)
    number = number.reshape(-1)
    if not is_sorted:
        order = np.argsort(first)
        values = np.take(values, order, axis=axis or 0)
        first, lengths, number = first[order], lengths[order], np.argsort(order)[number]
    return values, first, number, lengths


def unique_cases() -> list[Case]:
    odd = np.array([2, np.nan, -0.0, 0.0, np.nan, -np.inf, 2], np.float32)
    inputs: Sequence[tuple[Array, int | None]] = (
        (few(3, 4), None),
        (few(70, most=40, dtype=np.int64), None),
        (few(6, 2, most=2), 0),
        (few(2, 40, 2, most=2), -2),
        (odd, None),
    )
    cases = []
    for number, (x, axis) in enumerate(inputs):
        for is_sorted in (0, 1) if number else (0,):
            key = {} if axis is None else {"axis": axis}
            case = one("Unique", x, outputs=4, sorted=is_sorted, **key)
            cases.append(case.giving(*runs(x, axis, bool(is_sorted))))
    return cases


def boxes(batch: int, count: int, seed: int = 0) -> Array:
    """Boxes by two corners that overlap in many ways; some are empty."""
    random = np.random.default_rng([seed, batch, count])
    corner = random.integers(0, 6, (batch, count, 2))
    opposite = corner + random.integers(-2, 4, (batch, count, 2))
    return np.asarray(np.concatenate([corner, opposite], axis=2)).astype(np.float32)


def suppression_cases() -> list[Case]:
    def limit(value: float) -> Array:
        return np.array([value], np.float32)

    few_scores = few(2, 3, 20, most=7) / 8
    cases = [
        one("NonMaxSuppression", boxes(2, 20), few_scores, ints(4), limit(0.3), limit(0.2)),
        one("NonMaxSuppression", boxes(2, 20), few_scores, ints(99), limit(0.5)),
        one("NonMaxSuppression", boxes(2, 20), numbers(2, 3, 20), ints(2), None, limit(-0.5)),
        one(
            "NonMaxSuppression",
            np.abs(boxes(1, 9)),
            numbers(1, 1, 9),
            ints(9),
            limit(0.1),
            center_point_box=1,
        ),
    ]
    return [declared(case) for case in cases]


def n_gram_cases() -> list[Case]:
    x = few(3, 12, dtype=np.int64, most=4)
    pool = {
        "ngram_counts": [0, 3, 7],
        "ngram_indexes": [0, 1, 2, 3, 4, 5, 6],
        "pool_int64s": [0, 2, 9, 1, 2, 3, 3, 0, 1, 2, 0, 1, 1],
        "min_gram_length": 1,
        "max_gram_length": 3,
        "max_skip_count": 2,
    }
    weights = [0.5, 2.0, 3.0, 0.25, 4.0, 1.5, 7.0]
    backwards = {**pool, "ngram_indexes": [8, 6, 5, 4, 3, 2, 0]}
    return [
        one("TfIdfVectorizer", x, mode="TF", **pool),
        one("TfIdfVectorizer", x[0].astype(np.int32), mode="IDF", **pool),
        one("TfIdfVectorizer", x, mode="TFIDF", weights=weights, **pool),
        one("TfIdfVectorizer", x, mode="IDF", weights=weights, **pool),
        one("TfIdfVectorizer", x, mode="TF", **{**backwards, "min_gram_length": 2}),
        one("TfIdfVectorizer", x[:, :1], mode="TF", **pool),
    ]


def test_what_the_data_say_is_found(tmp_path: Path) -> None:
    check([*non_zero_cases(), *compress_cases()], tmp_path)


def test_equal_elements_are_one(tmp_path: Path) -> None:
    check(unique_cases(), tmp_path)


def test_boxes_that_overlap_a_better_one_go(tmp_path: Path) -> None:
    check(suppression_cases(), tmp_path)


def test_n_grams_are_counted(tmp_path: Path) -> None:
    check(n_gram_cases(), tmp_path)


def test_another_number_than_declared_is_told(tmp_path: Path) -> None:
    case = declared(one("NonZero", np.array([1, 0, 2, 0], np.float32)))
    artifact = ramforge.compile(model_of([case]), target="h200", output=tmp_path / "cases.cu")
    with Session(artifact, "host:1") as session:
        for wrong in ([1, 1, 1, 0], [1, 0, 0, 0]):
            with pytest.raises(ShapeError, match="did not find the 2"):
                session.run(None, {"c0_x0": np.array(wrong, np.float32)})
        right = {"c0_x0": np.array([0, 0, 3, 4], np.float32)}
        assert session.run(None, right)[0].tolist() == [[2, 3]]


def test_nothing_declared_is_refused(tmp_path: Path) -> None:
    case = declared(one("NonZero", np.zeros(3, np.float32)))
    with pytest.raises(UnsupportedModel, match="nothing would check"):
        ramforge.compile(model_of([case]), target="h200", output=tmp_path / "cases.cu")
