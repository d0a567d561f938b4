"""What a compilation leaves behind: ``out.cu``, ``out.safetensors`` and ``out.json``, or nothing at
all.

The three files are written under temporary names and renamed at the end, the source last: whoever
sees the source sees all of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from ramforge.codegen import render as rendering
from ramforge.codegen import weights as weights_file
from ramforge.compiler import dump
from ramforge.compiler.errors import ArtifactError
from ramforge.compiler.ir import DType
from ramforge.compiler.pipeline import PASSES, Program
from ramforge.compiler.version import VERSION

FORMAT = 1
_PARTS = {"inputs", "outputs", "weights", "memory", "schedule", "target"}


@dataclass(frozen=True, slots=True)
class Port:
    """An input or an output of a compiled model."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numpy(self) -> np.dtype[Any]:
        """The type of an array for it."""
        return DType.named(self.dtype).numpy


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """A compiled model on disk."""

    source: Path
    manifest: dict[str, Any] = field(repr=False)

    @property
    def weights(self) -> Path:
        return self.source.with_name(self.manifest["weights"]["file"])

    @property
    def inputs(self) -> tuple[Port, ...]:
        return _ports(self.manifest["inputs"])

    @property
    def outputs(self) -> tuple[Port, ...]:
        return _ports(self.manifest["outputs"])

    @property
    def precision(self) -> str:
        """Of the factors of its matrix products."""
        return str(self.manifest.get("options", {}).get("precision", "fp32"))

    @property
    def checks(self) -> tuple[str, ...]:
        """What to say if the numbers behind the outputs are not 0, one for each."""
        return tuple(row["message"] for row in self.manifest.get("checks", ()))

    @property
    def results(self) -> tuple[Port, ...]:
        """All that a run writes: the outputs, then a number for each check."""
        rows = self.manifest.get("checks", ())
        return self.outputs + tuple(Port(row["name"], DType.INT32.label, ()) for row in rows)

    def text(self) -> str:
        try:
            return self.source.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{self.source}: cannot be read ({error})\n    fix: compile the model again"
            ) from None

    def __fspath__(self) -> str:
        return str(self.source)


def _ports(rows: list[dict[str, Any]]) -> tuple[Port, ...]:
    return tuple(Port(row["name"], row["dtype"], tuple(row["shape"])) for row in rows)


def load(path: str | os.PathLike[str]) -> Artifact:
    """Find an artefact by its ``.cu`` file or by the folder that holds it."""
    source = Path(path)
    if source.is_dir():
        found = sorted(source.glob("*.cu"))
        if len(found) != 1:
            raise ArtifactError(
                f"{source}: {len(found)} .cu files in this folder\n    fix: name the .cu file"
            )
        source = found[0]
    if source.suffix != ".cu":
        raise ArtifactError(
            f"{source}: an artefact is named by its .cu file or its folder\n"
            "    fix: name the .cu file; make one with compile MODEL -o out.cu"
        )
    manifest = source.with_suffix(".json")
    if not source.is_file():
        raise ArtifactError(
            f"{source}: no such artefact\n    fix: make one with compile MODEL -o {source}"
        )
    try:
        table = json.loads(manifest.read_text(encoding="utf-8"))
        known = table["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{manifest}: the manifest beside {source.name} cannot be read ({error})\n"
            f"    fix: keep {manifest.name} beside it, or compile the model again"
        ) from None
    if known != FORMAT:
        raise ArtifactError(
            f"{manifest}: format {known}, this ramforge reads {FORMAT}\n"
            "    fix: compile the model again"
        )
    missing = sorted(_PARTS - table.keys())
    if missing:
        raise ArtifactError(
            f"{manifest}: the manifest lacks {', '.join(missing)}\n    fix: compile the model again"
        )
    artifact = Artifact(source, table)
    if not artifact.weights.is_file():
        raise ArtifactError(
            f"{artifact.weights}: the weights file is missing\n"
            f"    fix: keep it beside {source.name}"
        )
    return artifact


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """The three files of an artefact, before they are written anywhere."""

    names: rendering.Names
    text: str
    weights: weights_file.Weights
    manifest: dict[str, Any]

    @property
    def digest(self) -> str:
        """What tells this artefact from every other one; the weights' own digest is in the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def write(self, folder: Path) -> Artifact:
        """Write the files beside each other, all of them or none."""
        source = folder / self.names.source
        table = rendering.manifest_text(self.manifest)
        with Files(source) as files:
            files.add(
                folder / self.names.weights, lambda file: weights_file.write(self.weights, file)
            )
            files.add(source.with_suffix(".json"), lambda file: _put(file, table))
            files.add(source, lambda file: _put(file, self.text))
        return Artifact(source, self.manifest)


def render(program: Program, source: str, options: dict[str, Any]) -> Rendered:
    """The files of a program whose source will be called ``source``."""
    names = rendering.Names(source, Path(source).with_suffix(".safetensors").name)
    memory = program.memory
    weights = weights_file.gather(program.weights, memory.weight_offsets, memory.weight_bytes)
    text = rendering.render(program, weights, names)
    dump.write(len(PASSES) + 3, names.source, lambda: text)
    return Rendered(names, text, weights, _manifest(program, weights, names, options))


def emit(program: Program, output: Path, options: dict[str, Any]) -> Artifact:
    """Write a program to this path, weights and manifest beside it."""
    return render(program, output.name, options).write(output.parent)


def _put(file: IO[bytes], text: str) -> None:
    file.write(text.encode("utf-8"))


def check_writable(output: Path) -> None:
    """Complain about the output path before any work is done."""
    if output.is_dir() or not output.name:
        raise ArtifactError(
            f"{output}: is a folder\n    fix: name a file in it: -o {output / 'out.cu'}"
        )
    if output.suffix != ".cu":
        raise ArtifactError(
            f"{output}: the output has to end in .cu\n    fix: -o {output.with_suffix('.cu')}"
        )
    if not output.name.isprintable():
        raise ArtifactError(
            f"{output.name!r}: the name has characters that do not print, and it stands in the "
            "file's header\n    fix: choose another -o path"
        )
    with Files(output):
        pass


class Files:
    """A few files that all appear at the end, or not at all."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._pending: list[tuple[Path, Path]] = []

    def __enter__(self) -> Files:
        folder = self._output.parent
        if self._output.is_dir():
            raise ArtifactError(f"{self._output}: is a folder\n    fix: name a file in it")
        if not folder.is_dir():
            raise ArtifactError(f"{folder}: no such folder\n    fix: make it first")
        if not os.access(folder, os.W_OK):
            raise ArtifactError(f"{folder}: cannot be written to\n    fix: choose another path")
        return self

    def add(self, path: Path, write: Callable[[IO[bytes]], None]) -> None:
        try:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            self._pending.append((Path(name), path))
            with os.fdopen(handle, "wb") as file:
                write(file)
            os.chmod(name, 0o666 & ~_umask())
        except OSError as error:
            raise ArtifactError(
                f"{path}: cannot be written ({error.strerror})\n    fix: choose another path"
            ) from None

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            for temporary, final in self._pending:
                os.replace(temporary, final)
            return
        for temporary, _ in self._pending:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _manifest(
    program: Program,
    weights: weights_file.Weights,
    names: rendering.Names,
    options: dict[str, Any],
) -> dict[str, Any]:
    graph, plan, target = program.graph, program.plan, program.target
    kernels = rendering.kernels_of(plan)
    return {
        "format": FORMAT,
        "ramforge": VERSION,
        "model": graph.name,
        "options": options,
        "target": {
            "name": target.name,
            "architecture": target.architecture,
            "veus": max((launch.lanes for launch in plan.launches), default=target.sms),
        },
        "inputs": _port_rows(program, graph.inputs),
        "outputs": _port_rows(program, graph.answers),
        "checks": [{"name": name, "message": text} for name, text in graph.checks.items()],
        "weights": {"file": names.weights, "bytes": weights.nbytes, "sha256": weights.digest},
        "memory": {
            "workspace_bytes": program.memory.workspace_bytes,
            "peak_live_bytes": program.memory.peak_live_bytes,
            "buffers": [
                {
                    "tensors": list(buffer.tensors),
                    "offset": program.memory.places[buffer.tensors[0]].offset,
                    "bytes": buffer.nbytes,
                    "steps": [buffer.first_step, buffer.last_step],
                }
                for buffer in program.memory.buffers
            ],
        },
        "schedule": {
            "policy": plan.policy,
            "roperators": len(program.operators),
            "rtasks": program.tasks,
            "waves": plan.waves,
            "events": plan.events,
            "waits": plan.waits,
            "predicted_us": round(program.predicted_ns / 1e3, 3),
            "launches": [
                {
                    "kernel": f"rf_kernel_{kernels.index(launch.shape.blocks_per_sm)}",
                    "lanes": launch.lanes,
                    "threads": launch.shape.threads,
                    "blocks_per_sm": launch.shape.blocks_per_sm,
                    "arena_bytes": launch.shape.arena_bytes,
                }
                for launch in plan.launches
            ],
            "control_words": rendering.CONTROL_HEADER_WORDS + plan.counters,
        },
        "roperators": [
            {
                "name": operator.name,
                "nodes": list(operator.origin),
                "body": operator.variant.body.name,
                "arena_bytes": operator.variant.body.arena_bytes,
                "tasks": operator.tasks,
                "step": plan.steps[number],
            }
            for number, operator in enumerate(program.operators)
        ],
    }


def _port_rows(program: Program, ports: tuple[str, ...]) -> list[dict[str, Any]]:
    tensors = [program.graph.tensor(name) for name in ports]
    return [
        {"name": tensor.name, "dtype": tensor.dtype.label, "shape": list(tensor.shape)}
        for tensor in tensors
    ]
