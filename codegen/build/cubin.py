"""Machine code for one GPU architecture, and what each function in it takes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ramforge.codegen.build import cache, elf
from ramforge.compiler.errors import ToolchainError


@dataclass(frozen=True, slots=True)
class Cubin:
    """The file's bytes and the compiler's log, which holds what ``resource_usage`` reads."""

    data: bytes
    log: str


class Resources(NamedTuple):
    """What one thread, or for shared memory one block, of a kernel takes."""

    registers: int
    spill_bytes: int
    shared_bytes: int
    code_bytes: int = 0


REGISTERS_PER_SM = 65536
REGISTER_UNIT = 8  # a thread gets whole units of so many
CALL_BYTES = 144  # 16 registers that belong to the caller, and two more, put away and fetched back

_FUNCTION = re.compile(
    r"(?:Compiling entry function '([^']+)'|Function properties for '?([\w$.]+)'?)"
)
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
# Products that are meant to overlap run one after the other, at a fraction of the speed.
_SERIALISED = re.compile(r"^.*\(C75\d\d\).*$", re.M)


def cached_cubin(key: tuple[str, ...], compile_now: Callable[[], Cubin]) -> Cubin:
    """The cubin for this key, with the log of the compile that made it. One that would be slow for
    a reason of the compiler's is an error, and is not kept.
    """

    @functools.cache
    def made() -> Cubin:
        built = compile_now()
        refuse_serialised(built.log)
        return built

    parts = [part.encode() for part in key]
    data = cache.cached("cubin", parts, ".cubin", lambda path: _write(path, made().data))
    log = cache.cached("cubin-log", parts, ".txt", lambda path: _write(path, made().log.encode()))
    return Cubin(data.read_bytes(), log.read_text(encoding="utf-8"))


def refuse_serialised(log: str) -> None:
    """ToolchainError if the assembler says that it serialised tensor-core code."""
    if said := _SERIALISED.findall(log):
        lines = "\n".join(f"    {line.strip()}" for line in said)
        raise ToolchainError(
            f"the assembler serialised tensor-core code:\n{lines}\n"
            "    fix: build in linked units (pip install 'nvidia-nvjitlink==13.0.*'); if it was "
            "built so, report it with the .cu file"
        )


def usage(built: Cubin) -> dict[str, Resources]:
    """What each function takes, of those that the file names; spills are known from the log."""
    logged = resource_usage(built.log)
    found = {}
    for name, function in elf.functions(built.data).items():
        said = logged.get(name.rpartition("$")[2], Resources(0, 0, 0))
        found[name] = Resources(
            function.registers, said.spill_bytes, function.shared_bytes, function.code_bytes
        )
    return found


def resource_usage(log: str) -> dict[str, Resources]:
    """Registers, spilled bytes (stores and loads) and static shared memory, from ``ptxas -v``.

    Functions that are called and not inlined report spills alone; their registers are 0.
    """
    usage: dict[str, Resources] = {}
    name = ""
    for line in log.splitlines():
        if found := _FUNCTION.search(line):
            name = found[1] or found[2]
            usage.setdefault(name, Resources(0, 0, 0))
        if not name:
            continue
        if found := _SPILLS.search(line):
            usage[name] = usage[name]._replace(spill_bytes=int(found[1]) + int(found[2]))
        if found := _REGISTERS.search(line):
            shared = _SHARED.search(line)
            usage[name] = usage[name]._replace(
                registers=int(found[1]), shared_bytes=int(shared[1]) if shared else 0
            )
    return usage


def misfits(usage: Mapping[str, Resources], kernels: Mapping[str, int]) -> list[str]:
    """What keeps kernels from running as planned, by what they take: registers for fewer threads on
    an SM than ``kernels`` gives for each, or a body that spills. What a kernel itself keeps on its
    stack around the calls of bodies is moved once for an rTask.
    """
    found = [
        f"{name} spills {used.spill_bytes} bytes of registers"
        for name, used in usage.items()
        if name not in kernels and used.spill_bytes > CALL_BYTES
    ]
    for name, threads in kernels.items():
        used = usage.get(name, Resources(0, 0, 0))
        taken = -(-used.registers // REGISTER_UNIT) * REGISTER_UNIT
        if taken * threads > REGISTERS_PER_SM:
            found.append(
                f"{name} takes {used.registers} registers: an SM has {REGISTERS_PER_SM}, and "
                f"{threads} threads of it are to be there at once"
            )
    return found


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
