"""Arrays on their way in and out of the command line: .npz files, made-up inputs, a table of
outputs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ramforge.codegen.artifact import Port
from ramforge.compiler.errors import ArtifactError
from ramforge.compiler.ir import Array

# Made-up integers are small, because they are mostly positions in a table.
LARGEST_MADE_UP = 8


def load(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise ArtifactError(
            f"{path}: cannot be read as an .npz file ({error})\n"
            "    fix: write it with numpy.savez(path, input_name=array)"
        ) from None


def save(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an .npz file, all of it or none."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be written ({error.strerror})\n    fix: choose another path"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def made_up(ports: Sequence[Port], seed: int) -> dict[str, Array]:
    """Random inputs, never zeros: normal numbers, small integers, coin flips."""
    generator = np.random.default_rng(seed)
    inputs: dict[str, Array] = {}
    for port in ports:
        dtype = np.dtype(port.dtype)
        if dtype.kind == "f":
            inputs[port.name] = generator.standard_normal(port.shape).astype(dtype)
        elif dtype.kind == "b":
            inputs[port.name] = generator.integers(0, 2, port.shape).astype(dtype)
        else:
            inputs[port.name] = generator.integers(0, LARGEST_MADE_UP, port.shape).astype(dtype)
    return inputs


def completed(ports: Sequence[Port], given: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """The given inputs, and made-up ones for the rest."""
    return {**made_up(ports, seed), **given}


def table(names: Sequence[str], arrays: Sequence[Array]) -> str:
    """A line for each output: what it is and the span of its values."""
    rows: list[tuple[str, ...]] = [("output", "type", "shape", "min", "mean", "max")]
    for name, array in zip(names, arrays, strict=True):
        shape = "x".join(map(str, array.shape)) or "scalar"
        numbers: tuple[str, ...] = ("-", "-", "-")
        if array.size:
            wide = array.astype(np.float64)
            numbers = tuple(f"{value:.6g}" for value in (wide.min(), wide.mean(), wide.max()))
        rows.append((name, str(array.dtype), shape, *numbers))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
