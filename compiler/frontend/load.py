"""Reads a model file and the data files beside it.

Input: a path or a ModelProto, output: a SlimModel. External data is mapped, not read, and is always
looked for beside the model, whatever the working directory is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from ramforge.compiler.errors import ArtifactError, InvalidModel
from ramforge.compiler.frontend.slim import (
    SlimModel,
    dtype_of,
    hold_constants,
)
from ramforge.compiler.ir import Array, DType

_LISTED = 20
_PACKED = {
    DType.FLOAT4E2M1: 2, DType.INT4: 2, DType.UINT4: 2, DType.INT2: 4, DType.UINT2: 4,
}  # fmt: skip


def load(model: str | os.PathLike[str] | onnx.ModelProto) -> SlimModel:
    """Read a model and take its constants out."""
    if isinstance(model, onnx.ModelProto):
        proto, name, folder = model, model.graph.name or "model", None
    else:
        path = Path(model)
        proto, name, folder = parse(path), path.name, path.parent
    _expect_onnx(proto, name)
    _expect_text(proto, name)
    reader = _TensorReader(folder)
    _check_external_data(proto, name, folder)
    proto = _with_inner_data(proto, reader)
    return hold_constants(proto, name, reader.read)


def parse(path: Path) -> onnx.ModelProto:
    """The model in a file, without the data beside it."""
    if not path.exists():
        raise ArtifactError(
            f"{path}: no such file\n    fix: check the path; it is relative to {Path.cwd()}"
        )
    if path.is_dir():
        raise ArtifactError(
            f"{path}: expected an ONNX file, found a folder\n    fix: name the .onnx file in it"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be read: {error.strerror}\n    fix: check the file's permissions"
        ) from error
    if not data:
        raise InvalidModel(
            f"{path}: the file is empty\n    fix: export or download the model again"
        )
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
        return proto
    except DecodeError as error:
        raise InvalidModel(
            f"{path}: not a readable ONNX model ({_looks_like(data)}, {len(data)} bytes)\n"
            "    fix: give a binary .onnx file; if it is one, it is damaged or cut short: export "
            "or download it again"
        ) from error


def _looks_like(data: bytes) -> str:
    head = data[:512]
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer: run `git lfs pull`"
    if head.startswith(b"PK"):
        return "it looks like a zip archive or a PyTorch checkpoint"
    if all(byte in b"\t\n\r\f\b" or 32 <= byte < 127 for byte in head):
        return "it looks like text"
    return "protobuf cannot decode it"


def _expect_onnx(proto: onnx.ModelProto, name: str) -> None:
    if proto.ir_version < 1 or not proto.HasField("graph") or not proto.graph.output:
        found = "no graph" if not proto.HasField("graph") else "a graph with no outputs"
        found = "no IR version" if proto.ir_version < 1 else found
        raise InvalidModel(
            f"{name}: not an ONNX model: expected an IR version and a graph, found {found}\n"
            "    fix: give a complete .onnx file; export or download it again"
        )
    if proto.ir_version > onnx.IR_VERSION:
        raise InvalidModel(
            f"{name}: IR version {proto.ir_version} is newer than {onnx.IR_VERSION}, the last "
            f"that onnx {onnx.__version__} knows\n"
            "    fix: pip install --upgrade onnx, or export with an older opset"
        )


def _expect_text(proto: onnx.ModelProto, name: str) -> None:
    """Protobuf hands out text that is not UTF-8 as bytes, and onnx then fails in odd places."""
    graph = proto.graph
    values = (*graph.input, *graph.output)
    texts: list[str] = [graph.name, *(tensor.name for tensor in _all_tensors(proto))]
    texts.extend(value.name for value in values)
    texts.extend(dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim)
    texts.extend(entry.domain for entry in proto.opset_import)
    for node in graph.node:
        texts.extend((node.name, node.op_type, node.domain, *node.input, *node.output))
        texts.extend(attribute.name for attribute in node.attribute)
    damaged = next((text for text in texts if not isinstance(text, str)), None)
    if damaged is not None:
        raise InvalidModel(
            f"{name}: the name {damaged!r} is not UTF-8 text\n"
            "    fix: export or download the model again; the file is damaged"
        )


@dataclass(frozen=True, slots=True)
class _External:
    """Where the data of one tensor is."""

    location: str
    offset: int
    length: int

    @staticmethod
    def of(tensor: onnx.TensorProto) -> _External:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        dtype = dtype_of(tensor.data_type)
        count = int(np.prod(tensor.dims, dtype=np.int64))
        if dtype:
            length = -(-count // _in_a_byte(dtype)) * dtype.itemsize
        else:
            length = int(entries.get("length", 0))
        return _External(entries.get("location", ""), int(entries.get("offset", 0)), length)


def _in_a_byte(dtype: DType) -> int:
    """How many elements a file packs into a byte."""
    return _PACKED.get(dtype, 1)


def _is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a graph, those of nodes and of subgraphs too."""
    yield from graph.initializer
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)


def _all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _check_external_data(proto: onnx.ModelProto, name: str, folder: Path | None) -> None:
    """Name everything that is missing in one message."""
    complaints = []
    for tensor in _all_tensors(proto):
        if _is_external(tensor):
            complaint = _complaint(tensor, folder)
            if complaint:
                complaints.append(complaint)
    if not complaints:
        return
    shown = complaints[:_LISTED]
    if len(complaints) > _LISTED:
        shown.append(f"and {len(complaints) - _LISTED} more tensors")
    fix = "keep the data file beside the model, under the name it was exported with"
    if folder is None:
        fix = "give the path of the .onnx file, or load it with onnx.load(path)"
    raise InvalidModel(
        "\n".join(
            [
                f"{name}: external data is missing",
                *(f"  {line}" for line in shown),
                f"    fix: {fix}",
            ]
        )
    )


def _complaint(tensor: onnx.TensorProto, folder: Path | None) -> str | None:
    label = f"tensor {tensor.name!r}"
    try:
        external = _External.of(tensor)
    except ValueError:
        return f"{label}: its offset or length is not a number"
    if folder is None:
        return f"{label}: its data is in {external.location!r}, and a model in memory has no folder"
    pure = PurePosixPath(external.location)
    outside = pure.is_absolute() or PureWindowsPath(external.location).drive or ".." in pure.parts
    if outside or not external.location:
        return f"{label}: {external.location!r} is not a path inside the model's folder"
    path = folder / external.location
    if not path.is_file():
        return f"{label}: no file {path}"
    if external.offset < 0:
        return f"{label}: offset {external.offset} is negative"
    needed, found = external.offset + external.length, path.stat().st_size
    if needed > found:
        return f"{label}: {path} has {found} bytes, expected at least {needed}"
    return None


class _TensorReader:
    """Reads tensors; each data file is mapped once."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._maps: dict[str, Array] = {}

    def read(self, tensor: onnx.TensorProto) -> Array:
        if not _is_external(tensor):
            return numpy_helper.to_array(tensor)
        external = _External.of(tensor)
        dtype = dtype_of(tensor.data_type)
        assert dtype is not None and self._folder is not None
        shape = tuple(tensor.dims)
        data = self._bytes(external)
        if _in_a_byte(dtype) > 1:
            packed = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims)
            packed.raw_data = data.tobytes()
            return numpy_helper.to_array(packed)
        return data.view(dtype.numpy).reshape(shape)

    def read_raw(self, tensor: onnx.TensorProto) -> bytes:
        """The bytes of external data."""
        return self._bytes(_External.of(tensor)).tobytes()

    def _bytes(self, external: _External) -> Array:
        if not external.length:  # an empty file cannot be mapped
            return np.zeros(0, np.uint8)
        return self._map(external.location)[external.offset : external.offset + external.length]

    def _map(self, location: str) -> Array:
        if location not in self._maps:
            assert self._folder is not None
            path = self._folder / location
            try:
                self._maps[location] = np.memmap(path, np.uint8, mode="r")
            except OSError as error:
                raise ArtifactError(
                    f"{path}: cannot be read: {error.strerror}\n"
                    "    fix: check the file's permissions"
                ) from error
        return self._maps[location]


def _with_inner_data(proto: onnx.ModelProto, reader: _TensorReader) -> onnx.ModelProto:
    """Read external data of subgraphs and functions: onnx would look in the working directory."""
    functions = [tensor for function in proto.functions for tensor in _node_tensors(function.node)]
    inner = filter(_is_external, [*_node_tensors(proto.graph.node), *functions])
    for tensor in inner:
        if dtype_of(tensor.data_type) is not None:
            tensor.raw_data = reader.read_raw(tensor)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    return proto
