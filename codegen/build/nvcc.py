"""Cubins and programs by nvcc, where a CUDA toolkit is installed."""

from __future__ import annotations

from pathlib import Path

from ramforge.codegen.build import cache, command
from ramforge.codegen.build.cubin import Cubin, cached_cubin, refuse_serialised
from ramforge.codegen.build.toolchain import Nvcc, find_nvcc
from ramforge.compiler.errors import ToolchainError


def compile_cubin(source: str, arch: str) -> Cubin:
    """Compile for ``arch`` (such as ``sm_90a``)."""
    nvcc = _nvcc()
    options = ("-std=c++17", "-O3", f"-arch={arch}", "-cubin", "-Xptxas=-v")

    def compile_now() -> Cubin:
        return Cubin(*command.compile_text((nvcc.path, *options), source))

    return cached_cubin(("nvcc", nvcc.version, *options, source), compile_now)


def build_program(source_path: Path, arch: str, output: Path) -> Path:
    """Build the program of an emitted file at ``output``, by the line in the file's header."""
    nvcc = _nvcc()
    source = command.read_source(source_path)
    options = ("-std=c++17", f"-arch={arch}")

    def make(path: Path) -> None:
        product, log = command.compile_text((nvcc.path, *options), source)
        refuse_serialised(log)
        path.write_bytes(product)

    key = ("nvcc", nvcc.version, *options, source)
    program = cache.cached("nvcc-program", (part.encode() for part in key), "", make)
    return command.deliver(program, output)


def _nvcc() -> Nvcc:
    found = find_nvcc()
    if found is None:
        raise ToolchainError(
            "nvcc is not installed: looked on PATH, in CUDA_HOME and in /usr/local/cuda\n"
            "    fix: install a CUDA toolkit, or build with NVRTC"
        )
    return found
