"""What the kernels of an artefact and their bodies take of a GPU, once they are built.

Input: an artefact for a GPU; output: plain data, as a part of the document of ``inspect``. It is
built for the target's architecture, into the build cache; no GPU is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import cubin, device, nvdisasm, sass, toolchain
from ramforge.codegen.build.cubin import Resources
from ramforge.codegen.build.nvdisasm import Instruction
from ramforge.codegen.units import register_cap
from ramforge.compiler.errors import ArtifactError

Rows = list[dict[str, Any]]


def of_artifact(artifact: Artifact) -> dict[str, Any]:
    """The rows of all kernels, and those of all bodies, the largest first."""
    architecture = artifact.manifest["target"]["architecture"]
    if architecture == "host":
        raise ArtifactError(
            f"{artifact.source}: compiled for the host, where there are no registers to tell of\n"
            "    fix: compile for a GPU, such as --target h200"
        )
    built = device.compile_cubin(artifact.text(), architecture)
    usage = cubin.usage(built)
    code = nvdisasm.disassemble(built.data) if toolchain.find_nvdisasm() else {}
    return {
        "architecture": architecture,
        "kernels": list(_kernel_rows(artifact.manifest["schedule"]["launches"], usage)),
        "bodies": _body_rows(artifact.manifest["roperators"], usage, code),
    }


def _kernel_rows(
    launches: Iterable[Mapping[str, Any]], usage: Mapping[str, Resources]
) -> Iterator[dict[str, Any]]:
    """Shared memory is that of the launch that asks for most."""
    arenas: dict[str, int] = {}
    threads: dict[str, int] = {}
    for launch in launches:
        name = launch["kernel"]
        arenas[name] = max(launch["arena_bytes"], arenas.get(name, 0))
        threads[name] = launch["threads"] * launch["blocks_per_sm"]
    for name, arena in arenas.items():
        yield {
            "name": name,
            "register_cap": register_cap(threads[name]),
            **_taken(usage[name], arena),
        }


def _body_rows(
    roperators: Iterable[Mapping[str, Any]],
    usage: Mapping[str, Resources],
    code: Mapping[str, Sequence[Instruction]],
) -> Rows:
    """A row for each form of a body: kernels with fewer registers have one of their own."""
    arenas = {row["body"]: row.get("arena_bytes", 0) for row in roperators}
    rows = []
    for function, used in usage.items():
        for body in arenas:
            if form := _form_of(body, function):
                found = _outlined(code.get(function, ()))
                rows.append({"name": body, "form": form, **_taken(used, arenas[body]), **found})
    return sorted(rows, key=lambda row: (-row["code_bytes"], row["name"], row["form"]))


def _form_of(body: str, function: str) -> str:
    """Which form of the body a function is, or nothing: that of a unit, ``body_r128``, or in a file
    that was built as one the member function of a struct, once in each kernel that calls it.
    """
    if found := re.fullmatch(rf"{body}_(r\d+)", function):
        return found[1]
    if found := re.fullmatch(rf"\$(\w+)\$_ZN\d+{body}3run\w+", function):
        return found[1]
    return ""


def _outlined(code: Sequence[Instruction]) -> dict[str, float | int | None]:
    """Nothing is known without a disassembler, or of code that is a part of a kernel's."""
    if not code:
        return {"math_share": None, "stack_accesses_in_loops": None}
    outline = sass.outline(code)
    return {
        "math_share": round(outline.math_share, 3),
        "stack_accesses_in_loops": outline.stack_accesses_in_loops,
    }


def _taken(used: Resources, arena_bytes: int) -> dict[str, int | None]:
    return {
        "registers": used.registers or None,
        "shared_bytes": used.shared_bytes + arena_bytes,
        "spill_bytes": used.spill_bytes,
        "code_bytes": used.code_bytes,
    }
