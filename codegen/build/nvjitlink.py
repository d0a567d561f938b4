"""Relocatable cubins made one by nvJitLink, through ctypes: no nvcc, no GPU needed."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator, Mapping

from ramforge.codegen.build.cubin import Cubin
from ramforge.codegen.build.toolchain import find_nvjitlink
from ramforge.compiler.errors import ToolchainError

_FIX = "pip install 'nvidia-nvjitlink==13.0.*', or install a CUDA toolkit"
_CUBIN = 1  # the kind of an input


def version() -> tuple[int, int]:
    """Major and minor; ToolchainError if there is no nvJitLink."""
    library = _library()
    major, minor = ctypes.c_uint(), ctypes.c_uint()
    if library.nvJitLinkVersion(ctypes.byref(major), ctypes.byref(minor)) != 0:
        raise ToolchainError(f"nvJitLink does not tell its version\n    fix: {_FIX}")
    return major.value, minor.value


def link(arch: str, cubins: Mapping[str, bytes]) -> Cubin:
    """One cubin of several, and what the linker said."""
    library = _library()
    with _linker(library, (f"-arch={arch}", "-verbose")) as handle:
        for name, data in cubins.items():
            status = library.nvJitLinkAddData(
                handle, _CUBIN, data, ctypes.c_size_t(len(data)), name.encode()
            )
            _check(library, handle, status, f"adding {name}")
        _check(library, handle, library.nvJitLinkComplete(handle), "linking")
        log = _read(library, handle, "InfoLog").rstrip(b"\0").decode(errors="replace")
        return Cubin(_read(library, handle, "LinkedCubin"), log)


def _library() -> ctypes.CDLL:
    found = find_nvjitlink()
    if found is None:
        raise ToolchainError(f"nvJitLink is not installed\n    fix: {_FIX}")
    return _load(found)


@functools.cache
def _load(path: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(path)
        library.nvJitLinkVersion  # noqa: B018  (newer than the library itself)
    except (OSError, AttributeError) as error:
        raise ToolchainError(f"{path} does not load: {error}\n    fix: {_FIX}") from error
    return library


@contextlib.contextmanager
def _linker(library: ctypes.CDLL, options: tuple[str, ...]) -> Iterator[ctypes.c_void_p]:
    handle = ctypes.c_void_p()
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = library.nvJitLinkCreate(ctypes.byref(handle), ctypes.c_uint32(len(options)), array)
    if status != 0:
        raise ToolchainError(f"nvJitLink does not take {' '.join(options)}: error {status}")
    try:
        yield handle
    finally:
        library.nvJitLinkDestroy(ctypes.byref(handle))


def _read(library: ctypes.CDLL, handle: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    status = getattr(library, f"nvJitLinkGet{what}Size")(handle, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    status = status or getattr(library, f"nvJitLinkGet{what}")(handle, buffer)
    if status != 0:
        raise ToolchainError(f"nvJitLink gives no {what}: error {status}")
    return buffer.raw


def _check(library: ctypes.CDLL, handle: ctypes.c_void_p, status: int, doing: str) -> None:
    if status != 0:
        said = _read(library, handle, "ErrorLog").rstrip(b"\0").decode(errors="replace").strip()
        raise ToolchainError(f"nvJitLink failed at {doing}: error {status}\n{said}")
