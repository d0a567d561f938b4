"""The comparison: verified first, interleaved, and honest about its spread."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from ramforge.compiler.errors import VerificationError
from ramforge.compiler.ir import Array
from ramforge.runtime import verify
from ramforge.runtime.bench import compare
from ramforge.zoo import MODELS


def sleeper(seconds: float, calls: list[str], name: str) -> compare.Contender:
    def run() -> list[Array]:
        calls.append(name)
        time.sleep(seconds)
        return []

    return run


def test_contenders_take_turns_and_the_ratio_is_theirs() -> None:
    calls: list[str] = []
    contenders = {"a": sleeper(0.002, calls, "a"), "b": sleeper(0.008, calls, "b")}
    slow = compare.compare(contenders, "a", rounds=6, warm_up=1)[1]
    assert calls[2:] == ["a", "b", "b", "a"] * 3
    assert slow.name == "b" and slow.ratio_low <= slow.ratio <= slow.ratio_high
    assert slow.ratio > 1.5


def test_a_difference_beyond_the_tolerance_is_refused_and_nan_is_never_right() -> None:
    right = np.linspace(-1, 1, 11, dtype=np.float32)
    assert verify.difference("y", right, right).ok
    assert verify.difference("y", right + np.float32(5e-5), right).ok
    for wrong in (right + np.float32(1e-3), right * np.nan, right[:-1], right.astype(np.float64)):
        with pytest.raises(VerificationError, match="'y'"):
            verify.require([verify.difference("y", wrong, right)])


def test_infinity_and_nan_must_stand_where_the_reference_has_them() -> None:
    reference = np.array([1.0, np.inf, np.nan], dtype=np.float32)
    assert verify.difference("y", reference.copy(), reference).ok
    assert not verify.difference("y", np.array([1, np.inf, 2], np.float32), reference).ok


def test_the_command_compares_a_model_with_onnx_runtime(tmp_path: Path) -> None:
    onnx.save(MODELS["lstm_cell"](), tmp_path / "m.onnx")
    figures = tmp_path / "f.json"
    result = CliRunner().invoke(
        compare.main, [str(tmp_path / "m.onnx"), "--rounds", "3", "--json", str(figures)]
    )
    assert result.exit_code == 0, result.output
    assert "ratio to onnxruntime" in result.output
    assert [row["name"] for row in json.loads(figures.read_text())] == ["onnxruntime", "ramforge"]


@pytest.mark.parametrize(("busy_until", "waited"), [(0.0, 0.01), (0.055, 0.07), (60.0, 1.0)])
def test_a_run_begins_when_no_thread_is_busy_any_more(
    busy_until: float, waited: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "process_time", lambda: min(now, busy_until))
    compare.settle()
    assert now == pytest.approx(waited)
