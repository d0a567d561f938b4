"""Part of ONNX's own suite comes out as docs/conformance.json says."""

from __future__ import annotations

import onnx
import pytest

from ramforge.codegen.build import host
from tests.conformance import report, runner, sample, suite
from tests.conformance.runner import Row

RECORDED_WITH, RECORDED = report.read()


@pytest.mark.skipif(
    onnx.__version__ != RECORDED_WITH, reason=f"the record is of onnx {RECORDED_WITH}"
)
def test_a_sample_of_the_suite_comes_out_as_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tuple("-O0" if flag == "-O3" else flag for flag in host._LANGUAGE)
    monkeypatch.setattr(host, "_LANGUAGE", plain)  # built in half of the time
    tests = {test.name: test for test in suite.tests(without=sample.SLOW_FILES)}
    wanted = {row.name: row.outcome for row in sample.chosen(RECORDED, tests)}
    assert len(wanted) == sample.SIZE
    found = runner.run_all([tests[name] for name in wanted])
    complaints = [_told(row, wanted[row.name]) for row in found if row.outcome != wanted[row.name]]
    assert not complaints, "\n".join(complaints)


def _told(row: Row, wanted: str) -> str:
    return f"{row.name}: {row.outcome}, recorded is {wanted}: {row.reason}"


def test_the_page_and_the_table_are_of_one_run() -> None:
    assert report.PAGE.read_text(encoding="utf-8") == report.page(RECORDED)
    assert report.TABLE.read_text(encoding="utf-8") == report.json_text(RECORDED)


def test_nothing_is_recorded_as_wrong() -> None:
    outcomes = {row.outcome for row in RECORDED}
    assert outcomes <= {runner.PASSED, runner.REFUSED}
    assert {row.nvrtc for row in RECORDED} <= {"", runner.PASSED}
    assert {row.emulator for row in RECORDED} <= {"", runner.PASSED}
