"""Which compilers this machine has: a C++ compiler for the host, nvcc, and the NVRTC library; and
the disassembler.

Looked up once per process and place: a changed PATH or CUDA_HOME is seen, a new installation in a
folder that was searched before is not.
"""

from __future__ import annotations

import ctypes.util
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ramforge.compiler.errors import ToolchainError

_HOST_COMPILERS = ("g++", "clang++", "c++")


@dataclass(frozen=True, slots=True)
class HostCompiler:
    """A C++ compiler; ``name`` is its family: ``g++``, ``clang++`` or ``zig``."""

    command: tuple[str, ...]
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Nvcc:
    """NVIDIA's offline compiler."""

    path: str
    version: str


@dataclass(frozen=True, slots=True)
class NvrtcLibrary:
    """Where NVRTC lies; ``builtins`` must be loaded first, None leaves it to the loader."""

    path: str
    builtins: str | None


def find_host_compiler() -> HostCompiler:
    """The first C++ compiler that runs; ToolchainError if there is none."""
    compiler = _host_compiler(os.environ.get("PATH", ""))
    if compiler is None:
        raise ToolchainError(
            "no C++ compiler: looked for g++, clang++ and c++ on PATH and for the ziglang package\n"
            "    fix: apt-get install g++, or pip install ziglang"
        )
    return compiler


def find_zig() -> HostCompiler | None:
    """PyPI's ziglang as a C++ compiler: clang with its own headers and libraries."""
    if importlib.util.find_spec("ziglang") is None:
        return None
    version = _output(sys.executable, "-m", "ziglang", "version")
    command = (sys.executable, "-m", "ziglang", "c++")
    return HostCompiler(command, "zig", f"zig {version.strip()}") if version else None


def find_nvcc() -> Nvcc | None:
    """nvcc from PATH, CUDA_HOME or /usr/local/cuda, if it runs."""
    return _nvcc(os.environ.get("PATH", ""), os.environ.get("CUDA_HOME", ""))


def find_nvrtc() -> NvrtcLibrary | None:
    """NVRTC from PyPI's wheel, from a CUDA toolkit, or from the system's library path."""
    return _nvrtc(os.environ.get("CUDA_HOME", ""), tuple(sys.path))


def find_nvjitlink() -> str | None:
    """NVIDIA's linker as a library, from the places where NVRTC is sought."""
    return _nvjitlink(os.environ.get("CUDA_HOME", ""), tuple(sys.path))


def find_nvdisasm() -> str | None:
    """The disassembler from PATH, from PyPI's wheel or from a CUDA toolkit, if it runs."""
    environ = os.environ
    return _nvdisasm(environ.get("PATH", ""), environ.get("CUDA_HOME", ""), tuple(sys.path))


@functools.cache
def _host_compiler(search_path: str) -> HostCompiler | None:
    for name in _HOST_COMPILERS:
        executable = shutil.which(name, path=search_path)
        version = _output(executable, "--version") if executable else ""
        if executable and version:
            family = "clang++" if "clang" in version.lower() else "g++"
            return HostCompiler((executable,), family, version.splitlines()[0].strip())
    return find_zig()


@functools.cache
def _nvcc(search_path: str, cuda_home: str) -> Nvcc | None:
    candidates = [shutil.which("nvcc", path=search_path)]
    candidates += [str(root / "bin" / "nvcc") for root in _toolkits(cuda_home)]
    for executable in candidates:
        version = _output(executable, "--version") if executable else ""
        found = re.search(r"release [\d.]+, V([\d.]+)", version)
        if executable and found:
            return Nvcc(executable, found[1])
    return None


@functools.cache
def _nvrtc(cuda_home: str, import_path: tuple[str, ...]) -> NvrtcLibrary | None:
    for folder in _library_folders(cuda_home, import_path, "cuda_nvrtc"):
        library = _newest(folder, "libnvrtc.so.*")
        if library:
            builtins = _newest(folder, "libnvrtc-builtins.so.*")
            return NvrtcLibrary(str(library), str(builtins) if builtins else None)
    name = ctypes.util.find_library("nvrtc")
    return NvrtcLibrary(name, None) if name else None


@functools.cache
def _nvjitlink(cuda_home: str, import_path: tuple[str, ...]) -> str | None:
    for folder in _library_folders(cuda_home, import_path, "nvjitlink"):
        library = _newest(folder, "libnvJitLink.so.*")
        if library:
            return str(library)
    return ctypes.util.find_library("nvJitLink")


@functools.cache
def _nvdisasm(search_path: str, cuda_home: str, import_path: tuple[str, ...]) -> str | None:
    candidates = [shutil.which("nvdisasm", path=search_path)]
    for entry in import_path:
        candidates += map(str, sorted(Path(entry).glob("nvidia/cu[0-9]*/bin/nvdisasm"))[::-1])
    candidates += [str(root / "bin" / "nvdisasm") for root in _toolkits(cuda_home)]
    return next((tool for tool in candidates if tool and _output(tool, "--version")), None)


def _library_folders(cuda_home: str, import_path: tuple[str, ...], package: str) -> Iterator[Path]:
    """Where PyPI's packages, of CUDA 13 and of 12, and toolkits keep their libraries."""
    for entry in import_path:
        yield from sorted(Path(entry).glob("nvidia/cu[0-9]*/lib"), reverse=True)
        yield Path(entry, "nvidia", package, "lib")
    for root in _toolkits(cuda_home):
        yield root / "lib64"
        yield from sorted(root.glob("targets/*-linux/lib"))


def _toolkits(cuda_home: str) -> tuple[Path, ...]:
    installed = sorted(Path("/usr/local").glob("cuda-*"), key=_numbers, reverse=True)
    return (*([Path(cuda_home)] if cuda_home else []), Path("/usr/local/cuda"), *installed)


def _numbers(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", path.name))


def _newest(folder: Path, pattern: str) -> Path | None:
    """The match with the highest version; the full one wins over its shorter links."""
    versions = {
        tuple(int(part) for part in found[1].split(".")): path
        for path in folder.glob(pattern)
        if (found := re.search(r"\.so\.([\d.]*\d)$", path.name))
    }
    return versions[max(versions)] if versions else None


def _output(*command: str) -> str:
    """What a command prints, or nothing if it does not run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
