"""Cubins of units that are compiled one by one, side by side, and linked.

Each unit is filed by its own text, so what was built before is only linked again: another schedule
of a model costs the compilation of its tables and kernels.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor

from ramforge.codegen.build import nvjitlink, nvrtc
from ramforge.codegen.build.cubin import Cubin
from ramforge.codegen.units import Unit, Units
from ramforge.compiler.errors import ToolchainError

log = logging.getLogger("ramforge")

_SCHEDULE = "schedule"


def obstacle() -> str:
    """What keeps this machine from linking units; empty if nothing does."""
    try:
        compiler, linker = nvrtc.version(), nvjitlink.version()
    except ToolchainError as error:
        return str(error)
    if compiler[0] != linker[0] or compiler > linker:
        numbers = ".".join(map(str, linker)), ".".join(map(str, compiler))
        return f"nvJitLink {numbers[0]} does not link what NVRTC {numbers[1]} makes"
    return ""


def compile_cubin(units: Units, arch: str) -> Cubin:
    """The cubin of all units, with the logs of all."""
    log.info("%d units for %s", 1 + len(units.bodies), arch)
    with ThreadPoolExecutor(_workers()) as threads:
        # NVRTC lets go of the interpreter while it compiles
        schedule = threads.submit(compile_schedule, units, arch)
        made = list(threads.map(lambda unit: compile_unit(unit, arch), units.bodies))
        cubins = {_SCHEDULE: schedule.result()}
    cubins |= {unit.name: built for unit, built in zip(units.bodies, made, strict=True)}
    linked = nvjitlink.link(arch, {name: built.data for name, built in cubins.items()})
    return Cubin(linked.data, "\n".join(built.log for built in (*cubins.values(), linked)))


def compile_unit(unit: Unit, arch: str) -> Cubin:
    """One body, relocatable."""
    options = ("--relocatable-device-code=true", f"--maxrregcount={unit.register_cap}")
    return nvrtc.compile_cubin(unit.text, arch, options=options)


def compile_schedule(units: Units, arch: str) -> Cubin:
    """The kernels, whose bounds are in the text, relocatable."""
    return nvrtc.compile_cubin(units.schedule, arch, options=("--relocatable-device-code=true",))


def _workers() -> int:
    usable = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    return len(usable)
