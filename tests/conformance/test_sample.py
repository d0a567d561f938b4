"""Part of ONNX's own suite comes out as docs/conformance.json says."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from ramforge.codegen.build import cache, command, host
from ramforge.codegen.build.toolchain import find_host_compiler
from tests.conformance import report, runner, sample, suite
from tests.conformance.runner import Row

# All that an emitted text includes on a CPU.
HEADERS = (
    *("math", "stdint", "stdio", "stdlib", "string", "time", "fcntl", "pthread", "sched", "unistd"),
    *("linux/futex", "sys/mman", "sys/stat", "sys/syscall"),
)


@pytest.fixture(scope="module")
def recorded() -> list[Row]:
    if not report.TABLE.exists():
        pytest.fail(f"{report.TABLE.name} is not there: make conformance")
    version, rows = report.read()
    if version != onnx.__version__:
        pytest.skip(f"the record is of onnx {version}, this is {onnx.__version__}")
    return rows


def test_a_sample_of_the_suite_comes_out_as_recorded(
    recorded: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_LANGUAGE", _quick_language(monkeypatch))
    tests = {test.name: test for test in suite.tests(without=sample.SLOW_FILES)}
    wanted = {row.name: row.outcome for row in sample.chosen(recorded, tests)}
    assert len(wanted) == sample.SIZE
    found = runner.run_all([tests[name] for name in wanted])
    complaints = [_told(row, wanted[row.name]) for row in found if row.outcome != wanted[row.name]]
    assert not complaints, "\n".join(complaints)


def _quick_language(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Without optimisation, and with C headers that g++ has read before: builds in half the time.

    That a text includes what it needs is seen wherever else one is built.
    """
    plain = tuple("-O0" if flag == "-O3" else flag for flag in host._LANGUAGE)
    compiler = find_host_compiler()
    if compiler.name != "g++":
        return plain
    monkeypatch.setattr(host, "_LANGUAGE", plain)
    flags = [flag for flag in host.host_flags(compiler) if flag not in ("-x", "c++")]
    source = "".join(f"#include <{name}.h>\n" for name in HEADERS)

    def make(path: Path) -> None:
        command_line = (*compiler.command, *flags, "-x", "c++-header")
        product, _ = command.compile_text(command_line, source)
        path.write_bytes(product)

    key = (source, compiler.version, *flags, host.cpu())
    read = cache.cached("test-headers", (part.encode() for part in key), ".h.gch", make)
    header = read.with_suffix("")
    header.write_text(source)  # g++ looks at it only if it cannot use the other
    return (*plain, "-include", str(header))


def _told(row: Row, wanted: str) -> str:
    return f"{row.name}: {row.outcome}, recorded is {wanted}: {row.reason}"


def test_the_page_and_the_table_are_of_one_run(recorded: list[Row]) -> None:
    assert report.PAGE.read_text(encoding="utf-8") == report.page(recorded)
    assert report.TABLE.read_text(encoding="utf-8") == report.json_text(recorded)


def test_nothing_is_recorded_as_wrong(recorded: list[Row]) -> None:
    assert {row.outcome for row in recorded} <= {runner.PASSED, runner.REFUSED}
    assert {row.nvrtc for row in recorded} <= {"", runner.PASSED}
    assert {row.emulator for row in recorded} <= {"", runner.PASSED}
