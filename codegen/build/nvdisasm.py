"""What the disassembler says of a cubin: the instructions of each function. No GPU needed."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any

from ramforge.codegen.build.toolchain import find_nvdisasm
from ramforge.compiler.errors import ToolchainError

INSTRUCTION_BYTES = 16
_FIX = "pip install nvidia-cuda-nvdisasm, or install a CUDA toolkit"


@dataclass(frozen=True, slots=True)
class Instruction:
    """``opcode`` with its suffixes (``LDG.E.128``); addresses in ``operands`` are hexadecimal."""

    opcode: str
    operands: str = ""
    predicate: str = ""

    @property
    def base(self) -> str:
        """The opcode without its suffixes."""
        return self.opcode.partition(".")[0]

    @property
    def target(self) -> int | None:
        """The number of the instruction that a jump goes to, if it says so."""
        last = self.operands.rpartition(",")[2].strip("` ()")
        return int(last, 16) // INSTRUCTION_BYTES if last.startswith("0x") else None


def disassemble(cubin: bytes) -> dict[str, tuple[Instruction, ...]]:
    """All functions of a cubin by name; ToolchainError where there is no disassembler."""
    tool = find_nvdisasm()
    if tool is None:
        raise ToolchainError(f"nvdisasm is not installed\n    fix: {_FIX}")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run((tool, "-json", file.name), capture_output=True, text=True)
    if done.returncode:
        raise ToolchainError(f"{tool} failed: {done.stderr.strip()[:500]}\n    fix: {_FIX}")
    _, functions = json.loads(done.stdout)
    return {
        function["function-name"]: tuple(map(_instruction, function["sass-instructions"]))
        for function in functions
    }


def _instruction(found: dict[str, Any]) -> Instruction:
    return Instruction(
        found["opcode"], found.get("operands", ""), found.get("predicate", "").lstrip("@")
    )
