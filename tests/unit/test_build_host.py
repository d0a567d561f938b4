"""Host builds: each compiler's output really runs, and a refusal tells what to do."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from ramforge.codegen.build import cache, host, toolchain
from ramforge.compiler.errors import ToolchainError

# As the emitted text: C headers and no C++ library.
LIBRARY = """
#include <math.h>
#include <pthread.h>
typedef float Wide __attribute__((vector_size(64)));
static Wide twice(Wide x) { return x + x; }
static void* set(void* ready) { return __atomic_store_n((int*)ready, 1, __ATOMIC_RELEASE), ready; }
extern "C" float sum_of_doubles(const float* x) {
  int ready = 0;
  pthread_t thread;
  pthread_create(&thread, 0, set, &ready);
  pthread_join(thread, 0);
  Wide wide;
  __builtin_memcpy(&wide, x, sizeof wide);
  wide = twice(wide);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 16; ++i) sum += wide[i];
  return ready ? sqrtf(sum * sum) : -1;
}
"""


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "store"))


def installed(name: str, monkeypatch: pytest.MonkeyPatch) -> toolchain.HostCompiler:
    """This compiler and no other; skips where it is not installed."""
    if name == "zig":
        monkeypatch.setenv("PATH", "")
    else:
        monkeypatch.setattr(toolchain, "_HOST_COMPILERS", (name,))
        toolchain._host_compiler.cache_clear()
    try:
        compiler = toolchain.find_host_compiler()
    except ToolchainError:
        pytest.skip(f"{name} is not installed")
    finally:
        toolchain._host_compiler.cache_clear()
    if compiler.name != name:
        pytest.skip(f"{name} is not installed")
    return compiler


def sum_of_doubles(library: Path) -> float:
    function = ctypes.CDLL(str(library)).sum_of_doubles
    function.restype = ctypes.c_float
    return float(function((ctypes.c_float * 16)(*range(16))))


@pytest.mark.parametrize("name", ["g++", "clang++", "zig"])
def test_each_compiler_builds_a_library_that_runs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = installed(name, monkeypatch)
    assert sum_of_doubles(host.build_library(LIBRARY, compiler)) == 240.0


def test_zig_takes_over_where_no_other_compiler_is(monkeypatch: pytest.MonkeyPatch) -> None:
    installed("zig", monkeypatch)
    assert sum_of_doubles(host.build_library(LIBRARY)) == 240.0


def test_the_text_compiles_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = toolchain.find_host_compiler()
    flags = (*compiler.command, *host.host_flags(compiler), "-Wall", "-shared")
    assert host.command.compile_text(flags, LIBRARY)[1] == ""


def test_a_library_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = host.build_library(LIBRARY)
    monkeypatch.setattr(host.command, "compile_text", None)
    assert host.build_library(LIBRARY) == first


def test_another_cpu_is_another_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    first = host.build_library(LIBRARY)
    monkeypatch.setattr(host, "cpu", lambda: "another")
    assert host.build_library(LIBRARY) != first


def test_a_program_runs_and_replaces_an_older_one(tmp_path: Path) -> None:
    source, program = tmp_path / "model.cu", tmp_path / "bin" / "model"
    for status in (3, 4):
        source.write_text(f"int main() {{ return {status}; }}")
        assert host.build_program(source, program) == program
        assert subprocess.run([program]).returncode == status


def test_a_refused_text_shows_the_log_and_where_all_of_it_is() -> None:
    source = "".join(f"int wrong_{i} = missing_{i};\n" for i in range(60))
    with pytest.raises(ToolchainError) as caught:
        host.build_library(source)
    message = str(caught.value)
    assert "out.cu:1:" in message and "missing_0" in message and "missing_59" not in message
    assert "more lines" in message
    full_log = Path(message.split("the full log is ")[1].split(", for the text ")[0])
    assert "missing_59" in full_log.read_text()
    assert Path(message.split(", for the text ")[1]).read_text() == source


def test_no_compiler_at_all_names_both_fixes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(toolchain, "find_zig", lambda: None)
    with pytest.raises(ToolchainError, match=r"apt-get install g\+\+, or pip install ziglang"):
        toolchain.find_host_compiler()
