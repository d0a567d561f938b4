"""Arrays on their way in and out of the command line: .npz files, made-up inputs, a table of
outputs.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from ramforge.codegen.artifact import Files, Port
from ramforge.compiler.errors import ArtifactError
from ramforge.compiler.ir import Array, DType
from ramforge.runtime.tables import cell

# NumPy's own format functions, whose older releases left them without types, as ml_dtypes does.
_NPY: Any = np.lib.format
_ml_dtypes: Any = ml_dtypes

_DAMAGED = (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)

# Made-up integers are small, because they are mostly positions in a table.
LARGEST_MADE_UP = 8


def load(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                entry.removesuffix(".npy"): _entry(archive, entry) for entry in archive.namelist()
            }
    except _DAMAGED as error:
        raise ArtifactError(
            f"{path}: cannot be read as an .npz file ({error})\n"
            "    fix: write it with numpy.savez(path, input_name=array)"
        ) from None


def _entry(archive: zipfile.ZipFile, name: str) -> Array:
    with archive.open(name) as file:
        array: Array = _NPY.read_array(file, allow_pickle=False)
        return array


def check_writable(path: Path) -> None:
    """Complain about the path before any work is done."""
    with Files(path):
        pass


def save(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an .npz file, all of it or none."""
    with Files(path) as files:
        files.add(path, lambda file: _write(file, arrays))


def _write(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    # not numpy.savez, to which a tensor called "file" would be an argument of its own
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                _NPY.write_array(entry, array.view(_bare(array.dtype)), allow_pickle=False)


def made_up(ports: Sequence[Port], seed: int) -> dict[str, Array]:
    """Random inputs, never zeros: normal numbers, small integers, coin flips."""
    generator = np.random.default_rng(seed)
    inputs: dict[str, Array] = {}
    for port in ports:
        kind, dtype = DType.named(port.dtype), port.numpy
        if kind is DType.FLOAT8E8M0:  # powers of two
            inputs[port.name] = np.exp2(generator.standard_normal(port.shape)).astype(dtype)
        elif kind.is_float:
            inputs[port.name] = generator.standard_normal(port.shape).astype(dtype)
        elif kind is DType.BOOL:
            inputs[port.name] = generator.integers(0, 2, port.shape).astype(dtype)
        else:
            end = min(LARGEST_MADE_UP, int(_ml_dtypes.iinfo(dtype).max) + 1)
            inputs[port.name] = generator.integers(0, end, port.shape).astype(dtype)
    return inputs


def completed(ports: Sequence[Port], given: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """The given inputs, and made-up ones for the rest."""
    wanted = {port.name: port.numpy for port in ports}
    typed = {name: _typed(array, wanted.get(name)) for name, array in given.items()}
    return {**made_up(ports, seed), **typed}


def _typed(array: Array, wanted: np.dtype[Any] | None) -> Array:
    """Bare bytes as the type that they are of."""
    if wanted is None or array.dtype != _bare(wanted):
        return array
    return array.view(wanted)


def _bare(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in a file: NumPy has no name for those of ml_dtypes."""
    return dtype if dtype.isbuiltin == 1 else np.dtype((np.void, dtype.itemsize))


def table(names: Sequence[str], arrays: Sequence[Array]) -> str:
    """A line for each output: what it is and the span of its values."""
    rows: list[tuple[str, ...]] = [("output", "type", "shape", "min", "mean", "max")]
    for name, array in zip(names, arrays, strict=True):
        shape = "x".join(map(str, array.shape)) or "scalar"
        numbers: tuple[str, ...] = ("-", "-", "-")
        if array.size:
            wide = array.astype(np.float64)
            numbers = tuple(f"{value:.6g}" for value in (wide.min(), wide.mean(), wide.max()))
        rows.append((cell(name), str(array.dtype), shape, *numbers))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
