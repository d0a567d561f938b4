"""The cubin of an emitted text by the best means that this machine has."""

from __future__ import annotations

import logging

from ramforge.codegen import units
from ramforge.codegen.build import linked, nvcc, nvrtc, toolchain
from ramforge.codegen.build.cubin import Cubin
from ramforge.compiler.errors import ToolchainError

log = logging.getLogger("ramforge")


def compile_cubin(text: str, arch: str) -> Cubin:
    """In linked units; by NVRTC as one file where there is no linker; by nvcc where NVRTC is
    missing or broken. The program is the same.
    """
    try:
        nvrtc.version()
    except ToolchainError:
        if toolchain.find_nvcc() is None:
            raise
        return nvcc.compile_cubin(text, arch)
    obstacle = linked.obstacle()
    parts = units.split(text)
    if parts is None or obstacle:
        log.debug("built as one file: %s", obstacle or "the text has no sections")
        return nvrtc.compile_cubin(text, arch)
    return linked.compile_cubin(parts, arch)
