"""Runs the SIMT side of an emitted file on a CPU, every CUDA thread a fiber.

Input: the text of an emitted file, later the memory of a launch as NumPy arrays. Output: the arrays
as the kernel leaves them, and a report. A race build also finds unordered accesses; it is slower by
an order of magnitude. What always holds: one order and one seed give one execution, to the bit.
"""

from __future__ import annotations

import ctypes
import enum
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramforge.codegen.build import cache, command
from ramforge.codegen.build.host import NO_RED_ZONE, cpu
from ramforge.codegen.build.toolchain import HostCompiler, find_host_compiler
from ramforge.compiler.errors import DeviceError, ShapeError, ToolchainError

_RUNTIME_FOLDER = Path(__file__).resolve().parent.parent / "emulator"
_HEADER = _RUNTIME_FOLDER / "emulator.h"

_LANGUAGE = (
    *("-std=c++17", "-march=native", "-fPIC", "-fvisibility=hidden"),
    # Contraction is what nvcc does by default; fortified functions would bypass the detector.
    *("-fno-strict-aliasing", "-ffp-contract=fast", "-U_FORTIFY_SOURCE"),
)
_QUIET = ("-w",)  # the host driver's build of the same text is the one that shows warnings
_TEXT_FLAGS = ("-O2",)
_RACE_TEXT_FLAGS = (
    *("-O1", "-g", "-fno-tree-vectorize", "-fsanitize=thread"),
    # Calls, which emulator.h leads to the detector.
    *("-fno-builtin-memcpy", "-fno-builtin-memmove", "-fno-builtin-memset"),
)
# As for the host: with the C++ library's own headers a small build takes twice as long.
_C_HEADERS = ("-nostdinc++",)
_LINK_FLAGS = ("-Wl,-z,defs", "-pthread", "-ldl")

# Nested loops over accumulators stay in registers only when unrolled, and GCC has its own spelling.
_UNROLL = re.compile(r"#pragma unroll\b[ \t]*\(?(\d*)\)?")
_UNROLL_DEFAULT = "16"


class Order(enum.Enum):
    """Which lane, warp and block goes first wherever several could."""

    ASCENDING = 0
    DESCENDING = 1
    RANDOM = 2


@dataclass(frozen=True, slots=True)
class EmulatorReport:
    """How one launch ended. ``races`` and ``accesses`` are 0 without a race build."""

    status: int
    message: str
    races: int
    race_text: str
    accesses: int

    @property
    def ok(self) -> bool:
        return self.status == 0 and self.races == 0


def build(
    source: str, *, race: bool = False, quick: bool = False, defines: tuple[str, ...] = ()
) -> Path:
    """The shared library of this text, from the store if it was built before.

    A ``quick`` build is done sooner and runs longer. ``defines`` are macros as ``-D`` takes them:
    ``NAME`` or ``NAME=value``.
    """
    compiler = find_host_compiler()
    if race and compiler.name != "g++":
        raise ToolchainError(
            f"a race build needs the instrumentation of g++, found {compiler.name}\n"
            "    fix: apt-get install g++"
        )
    objects = [_runtime_object(name, race, compiler) for name in ("fibers.cpp", "matrix.cpp")]
    if race:
        objects.append(_runtime_object("race.cpp", race, compiler))
    flags = (
        *(*_LANGUAGE, *_QUIET, *(_RACE_TEXT_FLAGS if race else _TEXT_FLAGS)),
        *(("-O0",) if quick else ()),
        *((*_C_HEADERS, *NO_RED_ZONE) if compiler.name == "g++" else ()),
        *("-DRF_EMULATE", *(f"-D{define}" for define in defines)),
    )
    text = source if compiler.name != "g++" else _UNROLL.sub(_gcc_unroll, source)

    def make(path: Path) -> None:
        compile_it = (*compiler.command, *flags, "-include", str(_HEADER), "-c", "-x", "c++")
        product, _ = command.compile_text(compile_it, text)
        unlinked = path.with_suffix(".o")
        unlinked.write_bytes(product)
        path.write_bytes(_link(compiler, (unlinked, *objects), link_flags))

    link_flags = (*_LINK_FLAGS, *_quick_linker(compiler))
    key = (text, *flags, *link_flags, _HEADER.read_text(), *(item.name for item in objects))
    return cache.cached("emulator", _key(compiler, key), ".so", make)


def _quick_linker(compiler: HostCompiler) -> tuple[str, ...]:
    """gold takes a quarter of the time that the usual linker takes."""
    return ("-fuse-ld=gold",) if compiler.name == "g++" and shutil.which("ld.gold") else ()


def _link(compiler: HostCompiler, objects: Sequence[Path], flags: tuple[str, ...]) -> bytes:
    """The library of these objects, without -fsanitize: race.cpp stands in for libtsan."""
    shared = (*compiler.command, "-shared", *map(str, objects), *flags)
    # A compile always has a text; this one adds nothing.
    return command.compile_text((*shared, "-x", "c++"), "")[0]


def _runtime_object(name: str, race: bool, compiler: HostCompiler) -> Path:
    """One half of the runtime, compiled once."""
    source = (_RUNTIME_FOLDER / name).read_text(encoding="utf-8")
    flags = (*_LANGUAGE, "-O2", *(("-DRF_EMULATOR_RACE",) if race else ()))

    def make(path: Path) -> None:
        include = f"-I{_RUNTIME_FOLDER}"
        product, _ = command.compile_text(
            (*compiler.command, *flags, include, "-c", "-x", "c++"), source
        )
        path.write_bytes(product)

    key = (source, _HEADER.read_text(encoding="utf-8"), *flags)
    return cache.cached("emulator-runtime", _key(compiler, key), ".o", make)


def _key(compiler: HostCompiler, parts: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(part.encode() for part in (compiler.name, compiler.version, cpu(), *parts))


def _gcc_unroll(pragma: re.Match[str]) -> str:
    return f"#pragma GCC unroll {pragma[1] or _UNROLL_DEFAULT}"


class _Config(ctypes.Structure):
    """``rf_emulator_config`` of emulator.h."""

    _fields_ = (
        ("blocks", ctypes.c_int),
        ("threads", ctypes.c_int),
        ("arena_bytes", ctypes.c_int),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint),
        ("poison", ctypes.c_int),
        ("spin_seconds", ctypes.c_int),
    )


# The runtime keeps its findings per library: between a launch and its report nobody else may run.
_one_launch = threading.Lock()


class Emulator:
    """A library from ``build``, loaded."""

    def __init__(self, library: Path) -> None:
        self._path = library
        try:
            self._library = ctypes.CDLL(str(library))
            self._emulate = self._library.rf_emulate
        except (OSError, AttributeError) as error:
            raise DeviceError(
                f"{library} is no emulator library: {error}\n"
                '    fix: the text must define extern "C" int rf_emulate(...)'
            ) from error
        self._emulate.argtypes = (ctypes.c_void_p,) * 3 + (ctypes.c_int,)
        self._emulate.restype = ctypes.c_int
        self._library.rf_emulator_message.restype = ctypes.c_char_p
        self._watches = hasattr(self._library, "rf_race_count")
        if self._watches:
            self._library.rf_race_count.restype = ctypes.c_long
            self._library.rf_race_accesses.restype = ctypes.c_long
            self._library.rf_race_report.restype = ctypes.c_char_p
            for register in (self._library.rf_race_region, self._library.rf_race_exempt):
                register.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
                register.restype = None

    def launch(
        self,
        launch: int,
        *,
        blocks: int,
        threads: int,
        arena_bytes: int,
        spaces: Sequence[NDArray[Any]],
        control: NDArray[np.uint32],
        order: Order = Order.ASCENDING,
        seed: int = 1,
        poison: bool = True,
        spin_seconds: int = 10,
    ) -> EmulatorReport:
        """Run one launch of the file. ``spaces`` and ``control`` are changed in place."""
        _check_memory(spaces, control)
        config = _Config(
            blocks, threads, arena_bytes, order.value, seed & 0xFFFFFFFF, int(poison), spin_seconds
        )
        bases = (ctypes.c_void_p * len(spaces))(*(space.ctypes.data for space in spaces))
        with _one_launch:
            if self._watches:
                self._register(spaces, control, bases)
            status = self._emulate(
                ctypes.addressof(config), ctypes.addressof(bases), control.ctypes.data, launch
            )
            return self._report(status, control)

    def _register(
        self, spaces: Sequence[NDArray[Any]], control: NDArray[np.uint32], bases: ctypes.Array[Any]
    ) -> None:
        self._library.rf_race_clear()
        for space in spaces:
            self._library.rf_race_region(space.ctypes.data, space.nbytes)
        self._library.rf_race_exempt(control.ctypes.data, control.nbytes)
        # A kernel may read the base addresses from this array: on a device they are arguments.
        self._library.rf_race_exempt(ctypes.addressof(bases), ctypes.sizeof(bases))

    def _report(self, status: int, control: NDArray[np.uint32]) -> EmulatorReport:
        message = _name_control_words(self._library.rf_emulator_message().decode(), control)
        if not self._watches:
            return EmulatorReport(status, message, races=0, race_text="", accesses=0)
        return EmulatorReport(
            status,
            message,
            races=self._library.rf_race_count(),
            race_text=_name_lines(self._library.rf_race_report().decode(), self._path),
            accesses=self._library.rf_race_accesses(),
        )


def _check_memory(spaces: Sequence[NDArray[Any]], control: NDArray[np.uint32]) -> None:
    for index, array in enumerate((*spaces, control)):
        name = f"space {index}" if index < len(spaces) else "control"
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise ShapeError(
                f"{name}: expected a contiguous writeable array, found strides {array.strides}\n"
                "    fix: pass numpy.ascontiguousarray(...) and keep it to see the results"
            )
    if control.dtype != np.uint32:
        raise ShapeError(
            f"control: expected uint32, found {control.dtype}\n    fix: use control.view('u4')"
        )


def _name_control_words(message: str, control: NDArray[np.uint32]) -> str:
    """The runtime knows addresses only."""

    def name(address: re.Match[str]) -> str:
        offset = int(address[0], 16) - control.ctypes.data
        return f"control word {offset // 4}" if 0 <= offset < control.nbytes else address[0]

    return re.sub(r"0x[0-9a-f]+", name, message)


def _name_lines(races: str, library: Path) -> str:
    """Lines of the text in place of offsets in the library, where binutils can tell them."""
    codes = re.findall(re.escape(library.name) + r"\+(0x[0-9a-f]+)", races)
    tool = shutil.which("addr2line")
    if not codes or tool is None:
        return races
    done = subprocess.run((tool, "-e", str(library), *codes), capture_output=True, text=True)
    for code, line in zip(codes, done.stdout.splitlines(), strict=False):
        if not line.startswith("?"):
            place = line.rsplit("/", 1)[-1].split(" ")[0]
            races = re.sub(rf"{re.escape(library.name)}\+{code}\b", place, races)
    return races
