"""The GPU check itself, on devices that every machine has."""

from __future__ import annotations

import json
import math
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
    def one_wrong(check: gpu_check.Check, device: gpu_check.Device) -> Iterator[gpu_check.Row]:
        yield gpu_check.Row("good", True, 0.0, 0.0)
        yield gpu_check.Row("bad", False, math.inf, 0.0, "off by one")

    monkeypatch.setitem(gpu_check.PARTS, "zoo", lambda: gpu_check.zoo()[:1])
    monkeypatch.setattr(gpu_check, "run_check", one_wrong)
    code, output = invoke("--part", "zoo", "--device", "host", "--out", str(tmp_path))
    assert code == 5
    assert "off by one" in output and "1 of 2 right" in output
    assert "Infinity" not in (tmp_path / "zoo.json").read_text()


def test_what_was_done_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    interrupt = True

    def checked(check: gpu_check.Check, device: gpu_check.Device) -> Iterator[gpu_check.Row]:
        if interrupt and len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(check.group)
        yield gpu_check.Row(check.group, True, 0.0, 0.0)

    monkeypatch.setattr(gpu_check, "run_check", checked)
    device = gpu_check.Device("host")
    with pytest.raises(KeyboardInterrupt):
        gpu_check.run_part("zoo", device, tmp_path)
    assert json.loads((tmp_path / "zoo.json").read_text())["done"] == [0, 1]
    interrupt = False
    assert gpu_check.run_part("zoo", device, tmp_path)
    assert ran == [check.group for check in gpu_check.zoo()]
    assert len(json.loads((tmp_path / "zoo.json").read_text())["rows"]) == len(ran)
    assert [path.name for path in tmp_path.iterdir()] == ["zoo.json"]


def test_a_check_in_a_process_of_its_own_may_hang_or_not(tmp_path: Path) -> None:
    device = gpu_check.Device("host")
    number, check = next(
        (number, check)
        for number, check in enumerate(gpu_check.zoo())
        if check.group.startswith("lstm_cell")
    )
    found = list(gpu_check.run_alone("zoo", number, check, device, limit=120))
    assert [row.ok for row in found] == [True, True], found
    (row,) = gpu_check.run_alone("zoo", number, check, device, limit=0.05)
    assert not row.ok and "no answer within 0 s" in row.message


def test_without_a_gpu_it_ends_cleanly_and_says_what_it_skipped(tmp_path: Path) -> None:
    if cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    code, output = invoke("--out", str(tmp_path / "out"))
    assert code == 0
    assert "skipped: primitives, zoo" in output
    assert not (tmp_path / "out").exists()
