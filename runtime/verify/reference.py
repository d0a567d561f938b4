"""What another implementation says of a model: any of its tensors, for given inputs.

``ort`` is ONNX Runtime on the CPU, ``onnx`` the reference implementation that comes with onnx.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import helper
from onnx.external_data_helper import load_external_data_for_model

from ramforge.compiler.errors import ToolchainError
from ramforge.compiler.frontend.load import parse
from ramforge.compiler.ir import Array

KINDS = ("ort", "onnx")
# ONNX Runtime then logs errors and nothing less
_ERRORS = 3
_DATA_FOLDER = "session.model_external_initializers_file_folder_path"


class Source:
    """A model whose outputs can be chosen. Data beside its file stays there."""

    def __init__(self, model: str | os.PathLike[str] | onnx.ModelProto) -> None:
        self.folder: Path | None = None
        if isinstance(model, onnx.ModelProto):
            self.proto = onnx.ModelProto()
            self.proto.CopyFrom(model)
        else:
            self.folder = Path(model).absolute().parent
            self.proto = parse(Path(model))
        self._declared = {value.name: _copy(value) for value in self.proto.graph.output}

    def choose(self, names: Sequence[str]) -> None:
        """Make these tensors the outputs."""
        empty = helper.make_empty_tensor_value_info
        del self.proto.graph.output[:]
        self.proto.graph.output.extend(self._declared.get(name, empty(name)) for name in names)

    def file(self, folder: Path) -> Path | onnx.ModelProto:
        """What to compile: if there is data beside it, a file in ``folder`` with links to that."""
        places = _data_files(self.proto)
        if self.folder is None or not places:
            return self.proto
        for place in places:
            link = folder / place
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(self.folder / place)
        path = folder / "model.onnx"
        path.write_bytes(self.proto.SerializeToString())
        return path


class Reference:
    """A reference for a model with given inputs."""

    def __init__(self, source: Source, inputs: Mapping[str, Array], kind: str = "ort") -> None:
        self._source = source
        self.fed = dict(inputs)
        self._run = {"ort": _onnx_runtime, "onnx": _onnx_reference}[kind]
        self.kind = kind

    def outputs(self) -> list[Any]:
        """The values of the model's own outputs."""
        return self._run(self._source, self.fed)

    def values(self, names: Sequence[str]) -> dict[str, Any]:
        """The values of these tensors, inputs among them; a sequence comes as a list."""
        made = [name for name in names if name not in self.fed]
        found = {name: self.fed[name] for name in names if name in self.fed}
        if made:
            self._source.choose(made)
            found.update(zip(made, self.outputs(), strict=True))
        return found


def _onnx_runtime(source: Source, inputs: Mapping[str, Array]) -> list[Any]:
    try:
        import onnxruntime
    except ImportError:
        raise ToolchainError(
            "onnxruntime is not installed\n    fix: pip install onnxruntime, or use --ref onnx"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS
    if source.folder is not None:
        options.add_session_config_entry(_DATA_FOLDER, str(source.folder))
    try:
        text = source.proto.SerializeToString()
        session = onnxruntime.InferenceSession(text, options, providers=["CPUExecutionProvider"])
        return list(session.run(None, dict(inputs)))
    except Exception as error:  # its errors have no common class
        raise _refused("ONNX Runtime", error, "onnx") from error


def _onnx_reference(source: Source, inputs: Mapping[str, Array]) -> list[Any]:
    from onnx.reference import ReferenceEvaluator

    proto = source.proto
    try:
        if source.folder is not None and _data_files(proto):
            proto = onnx.ModelProto.FromString(proto.SerializeToString())
            load_external_data_for_model(proto, str(source.folder))
        return list(ReferenceEvaluator(proto).run(None, dict(inputs)))
    except Exception as error:  # its operators raise whatever NumPy raises
        raise _refused("onnx.reference", error, "ort") from error


def _refused(name: str, error: Exception, other: str) -> ToolchainError:
    return ToolchainError(
        f"{name} cannot run the model ({type(error).__name__}: {str(error)[:300]})\n"
        f"    fix: compare with the other one: --ref {other}"
    )


def _data_files(proto: onnx.ModelProto) -> set[str]:
    return {
        entry.value
        for tensor in proto.graph.initializer
        for entry in tensor.external_data
        if tensor.data_location == onnx.TensorProto.EXTERNAL and entry.key == "location"
    }


def _copy(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    return copy
