"""Part of ONNX's own suite comes out as docs/conformance.json says."""

from __future__ import annotations

from collections.abc import Container, Iterable

import onnx
import pytest

from tests.conformance import report, runner, sample, suite
from tests.conformance.runner import Row
from tests.host_builds import quick_host_builds


@pytest.fixture(scope="module")
def recorded() -> list[Row]:
    if not report.TABLE.exists():
        pytest.fail(f"{report.TABLE.name} is not there: make conformance")
    version, rows = report.read()
    if version != onnx.__version__:
        pytest.skip(f"the record is of onnx {version}, this is {onnx.__version__}")
    return rows


def test_a_sample_of_the_suite_comes_out_as_recorded(recorded: list[Row]) -> None:
    tests = {test.name: test for test in suite.tests(without=sample.SLOW_FILES)}
    wanted = {row.name: row.outcome for row in sample.chosen(recorded, tests)}
    assert len(wanted) == sample.SIZE
    assert _operators(recorded, wanted) == _operators(recorded, tests)
    with quick_host_builds():
        found = list(runner.run_all([tests[name] for name in wanted]))
    complaints = [_told(row, wanted[row.name]) for row in found if row.outcome != wanted[row.name]]
    assert not complaints, "\n".join(complaints)


def _operators(rows: Iterable[Row], names: Container[str]) -> set[str]:
    """Those of the rows with these names that come to an end."""
    ended = [row for row in rows if row.outcome in (runner.PASSED, runner.REFUSED)]
    return {op for row in ended if row.name in names for op in row.operators}


def _told(row: Row, wanted: str) -> str:
    return f"{row.name}: {row.outcome}, recorded is {wanted}: {row.reason}"


def test_the_page_and_the_table_are_of_one_run(recorded: list[Row]) -> None:
    assert report.PAGE.read_text(encoding="utf-8") == report.page(recorded)
    assert report.TABLE.read_text(encoding="utf-8") == report.json_text(recorded)


def test_nothing_is_recorded_as_wrong(recorded: list[Row]) -> None:
    assert {row.outcome for row in recorded} <= {runner.PASSED, runner.REFUSED}
    assert {row.nvrtc for row in recorded} <= {"", runner.PASSED}
    assert {row.emulator for row in recorded} <= {"", runner.PASSED}
