"""The emitted text as plain C++: a shared library to load, or a program that works on its own."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

from ramforge.codegen.build import cache, command
from ramforge.codegen.build.toolchain import HostCompiler, find_host_compiler

_LANGUAGE = ("-x", "c++", "-std=c++17", "-O3", "-march=native", "-pthread")
# Contraction changes the last bits only, as on the GPU; errno and traps would forbid vector code.
_SEMANTICS = (
    "-fno-strict-aliasing",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
)
# The text speaks to nvcc too: its pragmas, attributes and wide vector arguments are meant.
_QUIET = ("-Wno-unknown-pragmas", "-Wno-attributes", "-Wno-psabi")
_QUIET_CLANG = ("-Wno-unknown-attributes", "-Wno-ignored-attributes", "-Wno-pass-failed")
# The text needs C headers alone; those of C++ in their place cost a third of a small build's time.
_C_HEADERS = ("-nostdinc++",)
# g++ 12 sometimes puts wide vectors below the stack pointer where they are not aligned, and stores
# them as if they were (seen with -O2); without a red zone it does not.
NO_RED_ZONE = ("-mno-red-zone",) if platform.machine() in ("x86_64", "AMD64") else ()
# zig instruments C for undefined behaviour and adds debug data unless told not to. The text needs C
# headers alone, and without this flag zig would first build the whole C++ library, for minutes.
_ZIG = ("-fno-sanitize=all", "-g0", "-nostdlib++")
_CPU_FIELDS = ("model name", "flags", "Features", "CPU implementer", "CPU part", "uarch", "isa")


def host_flags(compiler: HostCompiler) -> tuple[str, ...]:
    """Every flag that shapes the machine code; the same for libraries and programs."""
    common = (*_LANGUAGE, *_SEMANTICS, "-fPIC", *_QUIET)
    if compiler.name == "g++":
        return (*common, *_C_HEADERS, *NO_RED_ZONE)
    return (*common, *_QUIET_CLANG, *(_ZIG if compiler.name == "zig" else ()))


def build_library(source: str, compiler: HostCompiler | None = None) -> Path:
    """The shared library of this text, from the store if it was built before."""
    return _build("library", source, compiler, ("-shared",), ".so")


def build_program(source_path: Path, output: Path, compiler: HostCompiler | None = None) -> Path:
    """Build the program of an emitted file at ``output``."""
    source = command.read_source(source_path)
    return command.deliver(_build("program", source, compiler, (), ""), output)


def _build(
    kind: str, source: str, compiler: HostCompiler | None, extra: tuple[str, ...], suffix: str
) -> Path:
    compiler = compiler or find_host_compiler()
    full_command = (*compiler.command, *host_flags(compiler), *extra)
    key = (source, compiler.name, compiler.version, *full_command[len(compiler.command) :], cpu())

    def make(path: Path) -> None:
        product, _ = command.compile_text(full_command, source)
        path.write_bytes(product)

    return cache.cached(f"host-{kind}", (part.encode() for part in key), suffix, make)


@functools.cache
def cpu() -> str:
    """What ``-march=native`` depends on, so that two machines may share a store."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    known = {name.strip(): value.strip() for name, value in fields.items()}
    return "\n".join([platform.machine(), *(known.get(name, "") for name in _CPU_FIELDS)])
