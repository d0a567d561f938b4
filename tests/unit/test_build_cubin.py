"""GPU builds without a GPU: NVRTC and nvcc make cubins, and their logs can be read."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ramforge.codegen.build import cache, cubin, nvcc, nvrtc, toolchain
from ramforge.compiler.errors import ToolchainError

KERNEL = """
#ifndef STEP
#define STEP 1
#endif
extern "C" __global__ void __launch_bounds__(64) reverse(float* x) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = tile[63 - threadIdx.x] + STEP;
}
"""
LOG = """\
ptxas info    : Compiling entry function 'model' for 'sm_90a'
ptxas info    : Function properties for model
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 16 bytes cumulative stack size, 1024 bytes smem
ptxas info    : Function properties for helper
    0 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
"""

needs_nvrtc = pytest.mark.skipif(toolchain.find_nvrtc() is None, reason="NVRTC is not installed")
needs_nvcc = pytest.mark.skipif(toolchain.find_nvcc() is None, reason="nvcc is not installed")


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "store"))


def test_the_log_of_the_assembler_is_read_kernel_by_kernel() -> None:
    assert cubin.resource_usage(LOG) == {"model": (255, 20, 1024, 0), "helper": (0, 8, 0, 0)}


@pytest.mark.parametrize("layout", ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib", "lib64"])
def test_nvrtc_is_found_in_each_layout(layout: str, tmp_path: Path) -> None:
    folder = tmp_path / layout
    folder.mkdir(parents=True)
    for name in ("libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.alt.so.13", "libnvrtc.so"):
        (folder / name).touch()
    (folder / "libnvrtc-builtins.so.13.0").touch()
    cuda_home, import_path = (str(tmp_path), ()) if layout == "lib64" else ("", (str(tmp_path),))
    found = toolchain._nvrtc(cuda_home, import_path)
    assert found == toolchain.NvrtcLibrary(
        str(folder / "libnvrtc.so.13"), str(folder / "libnvrtc-builtins.so.13.0")
    )


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_nvrtc_makes_a_cubin_with_nothing_on_the_include_path(arch: str) -> None:
    built = nvrtc.compile_cubin(KERNEL, arch)
    assert built.data[:4] == b"\x7fELF"
    usage = cubin.resource_usage(built.log)["reverse"]
    assert usage.registers > 0 and (usage.spill_bytes, usage.shared_bytes) == (0, 256)


@needs_nvrtc
def test_nvrtc_builds_once_and_a_define_is_another_build(monkeypatch: pytest.MonkeyPatch) -> None:
    built = nvrtc.compile_cubin(KERNEL, "sm_80")
    other = nvrtc.compile_cubin(KERNEL, "sm_80", defines=("STEP=2",))
    assert other.data != built.data
    monkeypatch.setattr(nvrtc, "_compile", None)
    assert nvrtc.compile_cubin(KERNEL, "sm_80") == built


@needs_nvrtc
def test_nvrtc_may_be_used_by_several_threads() -> None:
    def names(index: int) -> list[str]:
        text = f'extern "C" __global__ void kernel_{index}(float* x) {{ x[0] = {index}; }}'
        return list(cubin.resource_usage(nvrtc.compile_cubin(text, "sm_80").log))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(names, range(8))) == [[f"kernel_{index}"] for index in range(8)]


@needs_nvrtc
def test_nvrtc_refusing_a_text_shows_the_line() -> None:
    with pytest.raises(ToolchainError, match=r'out\.cu\(2\): error: identifier "missing"'):
        nvrtc.compile_cubin("\n__device__ int x = missing;", "sm_90a")


@needs_nvrtc
def test_nvrtc_names_an_architecture_it_does_not_know() -> None:
    with pytest.raises(ToolchainError, match="gpu-architecture"):
        nvrtc.compile_cubin(KERNEL, "sm_9")


def test_a_missing_nvrtc_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "find_nvrtc", lambda: None)
    with pytest.raises(ToolchainError, match="pip install 'nvidia-cuda-nvrtc"):
        nvrtc.compile_cubin(KERNEL, "sm_80")


@needs_nvcc
def test_nvcc_makes_a_cubin_and_keeps_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    built = nvcc.compile_cubin(KERNEL, "sm_90a")
    assert built.data[:4] == b"\x7fELF"
    assert cubin.resource_usage(built.log)["reverse"].shared_bytes == 256
    monkeypatch.setattr(nvcc.command, "compile_text", None)
    assert nvcc.compile_cubin(KERNEL, "sm_90a") == built


@needs_nvcc
def test_nvcc_builds_a_program_that_starts(tmp_path: Path) -> None:
    source, program = tmp_path / "out.cu", tmp_path / "model"
    source.write_text(KERNEL + "int main() { return 7; }")
    assert subprocess.run([nvcc.build_program(source, "sm_90a", program)]).returncode == 7


@needs_nvcc
def test_nvcc_refusing_a_text_shows_the_line() -> None:
    with pytest.raises(ToolchainError, match=r'out\.cu\(2\): error: identifier "missing"'):
        nvcc.compile_cubin("\n__device__ int x = missing;", "sm_90a")


def test_a_missing_nvcc_says_where_it_was_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvcc, "find_nvcc", lambda: None)
    with pytest.raises(ToolchainError, match="CUDA_HOME"):
        nvcc.compile_cubin(KERNEL, "sm_80")
