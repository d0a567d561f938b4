"""The weights file: safetensors, in the order in which the program reads them, aligned for 16-byte
loads.

The format allows no holes, so padding is written as tensors of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

import numpy as np

from ramforge.compiler.ir import Array

ALIGNMENT = 64
PADDING = ".padding"
_TYPES = {
    "float32": "F32", "float64": "F64", "bool": "BOOL",
    "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Constant operands with their offsets, and the digest that ties file and program together."""

    arrays: Mapping[str, Array]
    offsets: Mapping[str, int]
    nbytes: int
    digest: str


def gather(arrays: Mapping[str, Array], offsets: Mapping[str, int], nbytes: int) -> Weights:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name}:{array.shape}:{array.dtype}".encode())
        digest.update(_bytes(array))
    return Weights(arrays, offsets, nbytes, digest.hexdigest())


def write(weights: Weights, file: IO[bytes]) -> None:
    """Write the whole file; the data starts on a 64-byte boundary."""
    header: dict[str, object] = {"__metadata__": {"ramforge": weights.digest}}
    chunks: list[Array | bytes] = []
    end = 0
    for number, (name, array) in enumerate(weights.arrays.items()):
        start = weights.offsets[name]
        if start > end:
            header[f"{PADDING}.{number}"] = _entry("U8", (start - end,), end, start)
            chunks.append(bytes(start - end))
        end = start + array.nbytes
        header[_unreserved(name)] = _entry(
            _TYPES.get(array.dtype.name, "U8"), array.shape, start, end
        )
        chunks.append(array)
    if weights.nbytes > end:
        header[f"{PADDING}.end"] = _entry("U8", (weights.nbytes - end,), end, weights.nbytes)
        chunks.append(bytes(weights.nbytes - end))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for chunk in chunks:
        file.write(chunk if isinstance(chunk, bytes) else _bytes(chunk))


def _bytes(array: Array) -> memoryview:
    # the buffer protocol does not know all of our types
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _unreserved(name: str) -> str:
    """The name in the file: ours, unless the format or the padding has it already."""
    return f"_{name}" if name.lstrip("_").startswith("metadata__") or PADDING in name else name


def _entry(kind: str, shape: tuple[int, ...], start: int, end: int) -> dict[str, object]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
