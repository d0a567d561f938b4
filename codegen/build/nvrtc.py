"""Cubins by NVRTC, through ctypes: no nvcc, no CUDA headers, no GPU needed.

The text must stand on its own, for nothing is on the include path.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator

from ramforge.codegen.build import command
from ramforge.codegen.build.cubin import Cubin, cached_cubin
from ramforge.codegen.build.toolchain import NvrtcLibrary, find_nvrtc
from ramforge.compiler.errors import ToolchainError

_FIX = "pip install 'nvidia-cuda-nvrtc==13.0.*', or install a CUDA toolkit"
_INVALID_OPTION, _COMPILATION_ERROR = 5, 6


def compile_cubin(
    source: str,
    arch: str,
    *,
    name: str = command.SOURCE_NAME,
    defines: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
) -> Cubin:
    """Compile for ``arch`` (such as ``sm_90a``); a define is ``NAME`` or ``NAME=VALUE``."""
    library = _library()
    flags = (
        f"--gpu-architecture={arch}",
        "-std=c++17",
        "--ptxas-options=-v",
        *options,
        *(f"-D{define}" for define in defines),
    )
    key = ("nvrtc", ".".join(map(str, version())), name, *flags, source)
    return cached_cubin(key, lambda: _compile(library, source, name, flags))


def version() -> tuple[int, int]:
    """Major and minor; ToolchainError if there is no NVRTC."""
    library = _library()
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library, library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def _library() -> ctypes.CDLL:
    found = find_nvrtc()
    if found is None:
        raise ToolchainError(f"NVRTC is not installed\n    fix: {_FIX}")
    return _load(found)


@functools.cache
def _load(found: NvrtcLibrary) -> ctypes.CDLL:
    try:
        if found.builtins:
            # libnvrtc opens this by its bare name, which only succeeds once it is loaded.
            ctypes.CDLL(found.builtins, mode=ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(found.path)
    except OSError as error:
        raise ToolchainError(f"{found.path} does not load: {error}\n    fix: {_FIX}") from error
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def _compile(library: ctypes.CDLL, source: str, name: str, options: tuple[str, ...]) -> Cubin:
    with _program(library, source, name) as program:
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), array)
        log = _read(library, program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
        if status == _COMPILATION_ERROR:
            raise command.refusal(f"NVRTC {' '.join(options)}", log, source)
        if status == _INVALID_OPTION:
            numbers = ".".join(map(str, version()))
            raise ToolchainError(
                f"NVRTC {numbers} does not know {options[0]}\n"
                "    fix: a newer nvidia-cuda-nvrtc or CUDA toolkit"
            )
        _check(library, status, log)
        return Cubin(_read(library, program, "CUBIN"), log)


@contextlib.contextmanager
def _program(library: ctypes.CDLL, source: str, name: str) -> Iterator[ctypes.c_void_p]:
    program = ctypes.c_void_p()
    text, label = source.encode(), name.encode()
    _check(
        library,
        library.nvrtcCreateProgram(ctypes.byref(program), text, label, 0, None, None),
    )
    try:
        yield program
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _read(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check(library: ctypes.CDLL, status: int, detail: str = "") -> None:
    if status != 0:
        reason = library.nvrtcGetErrorString(status).decode()
        raise ToolchainError(f"NVRTC failed: {reason} {detail}".rstrip())
