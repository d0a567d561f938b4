"""The doctor answers on every machine, also on a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ramforge.codegen.build import cache, toolchain
from ramforge.compiler.errors import ToolchainError
from ramforge.runtime import doctor

EXPECTED = (
    "Python",
    "NumPy",
    "onnx",
    "host compiler",
    "CPU vectors",
    "CPU cores",
    "nvcc",
    "NVRTC",
    "nvJitLink",
    "cupy",
    "CUDA device",
    "build cache",
    "onnxruntime",
)


def by_name() -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.diagnose()}


def test_everything_is_looked_for_and_what_the_tests_run_on_is_found() -> None:
    findings = by_name()
    assert tuple(findings) == EXPECTED
    for what in ("Python", "NumPy", "onnx", "host compiler", "CPU cores", "build cache"):
        assert findings[what].state == "ok", findings[what]


def test_every_missing_thing_has_a_fix() -> None:
    for finding in doctor.diagnose():
        assert finding.state in ("ok", "missing")
        assert finding.detail
        assert finding.state == "ok" or finding.fix or finding.what == "CPU vectors"


def test_the_table_has_a_line_for_each_finding_and_the_fixes_below() -> None:
    findings = (doctor.Finding("a", "ok", "1.0"), doctor.Finding("long", "missing", "no", "do it"))
    assert doctor.render(findings).splitlines() == [
        "a     ok       1.0",
        "long  missing  no",
        "",
        "fixes",
        "  long: do it",
    ]
    assert doctor.render(()) == ""


def test_findings_are_plain_json() -> None:
    findings = doctor.diagnose()
    assert json.loads(json.dumps(doctor.as_json(findings)))[0]["what"] == "Python"


def test_a_broken_machine_is_described_not_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler() -> toolchain.HostCompiler:
        raise ToolchainError("no C++ compiler\n    fix: apt-get install g++")

    def crash() -> None:
        raise RuntimeError("strange")

    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "file" / "store"))
    monkeypatch.setattr(toolchain, "find_host_compiler", no_compiler)
    monkeypatch.setattr(toolchain, "find_nvcc", lambda: None)
    monkeypatch.setattr(doctor, "_cuda_device", crash)
    findings = by_name()
    assert findings["host compiler"].detail == "ToolchainError: no C++ compiler"
    assert findings["host compiler"].fix == "apt-get install g++"
    assert findings["nvcc"].state == "missing"
    assert findings["CUDA device"].detail == "RuntimeError: strange"
    assert findings["build cache"].state == "missing"
