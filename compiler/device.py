"""Targets and vDevices: what a device is to the compiler.

A Target is a table read from ``targets/<name>.json``: a named device, not an architecture, because
the number of SMs is an input of the schedule. A VDevice is the target seen through one launch
configuration: its vEUs are SMs times the blocks that one SM holds at once.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import resources

from ramforge.compiler.errors import OptionError
from ramforge.compiler.plan import Shape

DEFAULT_TARGET = "h200"
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
HOST = "host"
# What a block may have; a program has blocks of one size. On the host it is one core.
THREADS = (256, 128)


# What instructions for small matrices gain, at the rate at which they are issued; guesses.
_SPEEDUP = {"tf32": 4.0, "float16": 8.0, "bfloat16": 8.0, "int8": 16.0}
_SPEEDUP_ON_A_CORE = {"int8": 2.0}  # others are made floats


@dataclass(frozen=True, slots=True)
class Target:
    """A device: sizes, rates and the costs of synchronisation that the cost model starts from."""

    name: str
    description: str
    architecture: str
    sms: int
    shared_bytes_per_sm: int
    shared_bytes_per_block: int
    registers_per_sm: int
    threads_per_sm: int
    clock_mhz: int
    memory_gb_per_s: float
    l2_gb_per_s: float
    l2_bytes: int
    fp32_flops_per_cycle_per_sm: int
    launch_ns: int
    barrier_ns: int
    event_ns: int
    poll_ns: int
    task_ns: int
    aliases: tuple[str, ...] = ()
    threads: int = THREADS[0]  # of a block: chosen for each program, not a fact of the device
    precision: str = "fp32"  # of products; an option, no fact either

    @property
    def is_host(self) -> bool:
        return self.architecture == HOST

    def with_precision(self, precision: str) -> Target:
        if precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise OptionError(f"unknown precision {precision!r}\n    fix: use one of {known}")
        return replace(self, precision=precision)

    def speedup(self, factors: str) -> float:
        """How much faster products of this kind are made than those of floats, one by one."""
        return (_SPEEDUP_ON_A_CORE if self.is_host else _SPEEDUP).get(factors, 1.0)

    @property
    def label(self) -> str:
        """The name that ``find_target`` takes; of the host with its cores."""
        return f"{self.name}:{self.sms}" if self.is_host else self.name


@dataclass(frozen=True, slots=True)
class VEU:
    """A virtual execution unit: one resident thread block, bound to its SM."""

    id: int
    sm: int


@dataclass(frozen=True, slots=True)
class VDevice:
    """A target with a launch configuration. These are inputs of emission, never read back from an
    assembler.
    """

    target: Target
    threads: int
    blocks_per_sm: int
    arena_bytes: int

    @property
    def units(self) -> int:
        return self.target.sms * self.blocks_per_sm

    @property
    def shape(self) -> Shape:
        return Shape(self.threads, self.blocks_per_sm, self.arena_bytes)

    @property
    def register_cap(self) -> int:
        """What a thread may have so that all blocks of an SM are resident at once."""
        return min(
            255, self.target.registers_per_sm // (self.threads * self.blocks_per_sm) // 8 * 8
        )

    def holds(self, arena_bytes: int, registers: int) -> bool:
        """Whether a body that wants this much can run here."""
        if self.target.is_host:
            return True
        return arena_bytes <= self.arena_bytes and registers <= self.register_cap

    @property
    def veus(self) -> tuple[VEU, ...]:
        return tuple(VEU(unit, unit % self.target.sms) for unit in range(self.units))


# Blocks of one SM that a launch may ask for.
BLOCKS_PER_SM = (1, 2, 4)
# Shared memory that the system keeps of each block.
RESERVED_BYTES = 1024


def vdevices(target: Target) -> tuple[VDevice, ...]:
    """Every launch configuration, each with the largest arena that it leaves to a block."""
    if target.is_host:
        return (VDevice(target, target.threads, 1, target.shared_bytes_per_block),)
    found = []
    for blocks in BLOCKS_PER_SM:
        if blocks * target.threads <= target.threads_per_sm:
            arena = target.shared_bytes_per_sm // blocks - RESERVED_BYTES
            arena = min(arena, target.shared_bytes_per_block) // 128 * 128
            found.append(VDevice(target, target.threads, blocks, arena))
    return tuple(found)


@cache
def targets() -> tuple[Target, ...]:
    """Every target file, sorted by name."""
    folder = resources.files("ramforge.compiler.targets")
    known = {field.name for field in fields(Target)}
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".json"):
            table = json.loads(entry.read_text(encoding="utf-8"))
            assert set(table) <= known, f"{entry.name}: unknown keys {set(table) - known}"
            table["aliases"] = tuple(table.get("aliases", ()))
            found.append(Target(**table))
    return tuple(found)


def find_target(name: str) -> Target:
    """The target of this name or alias; ``host:2`` pins the number of cores, ``host`` takes all."""
    base, _, count = name.partition(":")
    for target in targets():
        if base in (target.name, *target.aliases):
            break
    else:
        known = ", ".join(target.name for target in targets())
        raise OptionError(f"unknown target {name!r}\n    fix: use one of {known}")
    if count and not target.is_host:
        raise OptionError(f"target {name!r}: only host takes a core count\n    fix: use {base}")
    if target.is_host:
        if count and not (count.isdigit() and int(count) > 0):
            raise OptionError(f"target {name!r}: {count!r} is no core count\n    fix: use host:2")
        return replace(target, sms=int(count) if count else os.cpu_count() or 1)
    return target
