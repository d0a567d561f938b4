"""Writes models as files: one file, or two where protobuf cannot hold the weights."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO

import onnx

from ramforge.codegen.artifact import Files
from ramforge.compiler.errors import ArtifactError

# Protobuf ends at 2 GiB, and a model is more than its weights.
MOST_BYTES = 2**31 - 2**27


def weight_bytes(model: onnx.ModelProto) -> int:
    """The bytes of all initializers."""
    return sum(_nbytes(tensor) for tensor in model.graph.initializer)


def _nbytes(tensor: onnx.TensorProto) -> int:
    return len(tensor.raw_data) if tensor.HasField("raw_data") else tensor.ByteSize()


def _write(file: IO[bytes], model: onnx.ModelProto) -> None:
    file.write(model.SerializeToString())


def save(model: onnx.ModelProto, path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Write a model; if its weights are more than ``most_bytes``, they go into ``path``.data, and
    out of ``model``.
    """
    beside = path.with_name(f"{path.name}.data")
    try:
        if weight_bytes(model) <= most_bytes:
            with Files(path) as files:
                files.add(path, lambda file: _write(file, model))
            return
        with contextlib.suppress(FileNotFoundError):
            os.remove(beside)  # onnx would write behind what is there
        onnx.save(model, path, save_as_external_data=True, location=beside.name)
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be written ({error.strerror})\n    fix: choose another path"
        ) from None
