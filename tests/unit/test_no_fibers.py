"""On a CPU a core runs a whole block: a host program has no threads of a block, and no fibers that
stand for them. These belong to the emulator alone.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import ramforge
from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import host
from ramforge.codegen.build.toolchain import find_host_compiler
from ramforge.runtime.drivers import emulator
from ramforge.zoo import MODELS, ZOO

ROOT = Path(__file__).parents[2]
NETWORKS = ("resnet18", "mobilenet_v2", "resnet18_int8", "bert_base", "lstm_tc", "lstm_tc_operator")
# The threads of a block, and the ways to leave one stack for another.
THREADS = re.compile(r"\b(threadIdx|blockDim|__syncthreads|__shfl\w*|rf_emulator\w*)\b")
SWITCHES = re.compile(
    r"\b(\w*fiber\w*|ucontext\w*|(?:swap|make|get|set)context|_?(?:set|long)jmp)\b"
)


def artifact_of(name: str, folder: Path) -> Artifact:
    return ramforge.compile(ZOO[name].small(), target="h200", output=folder / "net.cu")


def preprocessed(artifact: Artifact, *defines: str) -> str:
    """What the compiler sees of our own text: none of the system's headers."""
    compiler = find_host_compiler()
    command = (*compiler.command, "-x", "c++", "-std=c++17", "-E", *defines, str(artifact.source))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, ours = [], False
    for line in done.stdout.splitlines():
        if line.startswith("# "):
            ours = f'"{artifact.source}"' in line
        elif ours:
            kept.append(line)
    return "\n".join(kept)


@pytest.mark.parametrize("name", NETWORKS)
def test_host_programs_of_the_zoo_have_neither_threads_of_a_block_nor_fibers(
    name: str, tmp_path: Path
) -> None:
    artifact = artifact_of(name, tmp_path)
    text = preprocessed(artifact)
    assert "rf_run_task" in text
    assert not THREADS.findall(text)
    assert not SWITCHES.findall(text)


def test_the_emulator_sees_threads_in_the_same_text(tmp_path: Path) -> None:
    text = preprocessed(artifact_of("resnet18", tmp_path), "-DRF_EMULATE")
    assert "threadIdx" in THREADS.findall(text)


def test_a_host_library_calls_nothing_that_switches_stacks(tmp_path: Path) -> None:
    artifact = ramforge.compile(MODELS["lstm_cell"](), output=tmp_path / "net.cu")
    library = host.build_library(artifact.text()).read_bytes()
    fibers = next(path for path in emulator._RUNTIME_FOLDER.iterdir() if path.name == "fibers.cpp")
    assert SWITCHES.search(fibers.read_text(encoding="utf-8"))  # what is looked for is there
    assert not SWITCHES.search(library.decode("latin-1"))


def test_nothing_but_the_emulator_knows_of_fibers() -> None:
    folders = ("compiler", "kernels", "codegen", "runtime")
    files = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".cuh", ".h", ".cpp", ".j2")
    ]
    found = {path for path in files if "fibers.cpp" in path.read_text(encoding="utf-8")}
    assert {str(path.relative_to(ROOT)) for path in found} == {
        "runtime/drivers/emulator.py",
        "runtime/emulator/emulator.h",
        "runtime/emulator/race.cpp",
    }
