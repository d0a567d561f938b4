"""The GPU check itself, on devices that every machine has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from ramforge.runtime import gpu_check
from ramforge.runtime.drivers import cuda


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(gpu_check.main, arguments)
    return result.exit_code, result.output


def test_primitives_are_right_in_the_emulator_and_are_not_run_twice(tmp_path: Path) -> None:
    arguments = ("--part", "primitives", "--device", "emulator", "--out", str(tmp_path))
    code, output = invoke(*arguments)
    assert code == 0, output
    report = json.loads((tmp_path / "primitives.json").read_text())
    assert report["device"] == "emulator" and len(report["rows"]) > 30
    assert all(row["ok"] for row in report["rows"])
    code, output = invoke(*arguments)
    assert code == 0 and "not run again" in output


def test_a_wrong_result_is_exit_code_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_wrong(device: gpu_check.Device) -> Iterator[gpu_check.Row]:
        yield gpu_check.Row("good", True, 0.0, 0.0)
        yield gpu_check.Row("bad", False, 1.0, 0.0, "off by one")

    monkeypatch.setitem(gpu_check.PARTS, "zoo", one_wrong)
    code, output = invoke("--part", "zoo", "--device", "host", "--out", str(tmp_path))
    assert code == 5
    assert "off by one" in output and "1 of 2 right" in output


def test_without_a_gpu_it_ends_cleanly_and_says_what_it_skipped(tmp_path: Path) -> None:
    if cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    code, output = invoke("--out", str(tmp_path / "out"))
    assert code == 0
    assert "skipped: primitives, zoo" in output
    assert not (tmp_path / "out").exists()
