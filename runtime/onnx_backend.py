"""The official ONNX backend interface: what ``onnx.backend.test`` and other tools call.

``prepare`` reads and checks a model; it is compiled for the shapes of the first run, and again only
when a run brings others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from ramforge.codegen.artifact import Artifact
from ramforge.compiler.errors import DeviceError, ShapeError, UnsupportedModel
from ramforge.compiler.frontend import deciding_inputs, is_dense
from ramforge.compiler.ir import Array
from ramforge.runtime import api
from ramforge.runtime.session import Session


class RamforgeRep(BackendRep):
    """A prepared model. ``artifact`` is what the last run ran, ``bound`` the inputs that became
    constants of it because a shape depends on them.
    """

    def __init__(self, model: onnx.ModelProto, target: str, device: str) -> None:
        held = {tensor.name for tensor in model.graph.initializer}
        self._model = model
        self._target = target
        self._device = device
        self._inputs = [value for value in model.graph.input if value.name not in held]
        # The compiler refuses these by name, whatever a run brings for them.
        self._foreign = {value.name for value in self._inputs if not is_dense(value.type)}
        self._sessions: dict[object, Session] = {}
        self.artifact: Artifact | None = None
        self.bound: tuple[str, ...] = ()

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs for one array, several in the order of the model's inputs, or a mapping."""
        arrays = self._named(inputs)
        session = self._session(arrays)
        names = [port.name for port in session.get_inputs()]
        results = session.run(None, {name: arrays[name] for name in names})
        outputs = [value.name for value in self._model.graph.output]
        named: tuple[Any, ...] = namedtupledict("Outputs", outputs)(*results)
        return named

    def _named(self, inputs: Any) -> dict[str, Array]:
        if isinstance(inputs, Mapping):
            return self._arrays(inputs)
        given = inputs if isinstance(inputs, Sequence) and not isinstance(inputs, str) else [inputs]
        if len(given) > len(self._inputs):
            raise ShapeError(
                f"{len(given)} inputs were given, the model has {len(self._inputs)}\n"
                "    fix: give them in the order of the model's inputs, or by name"
            )
        names = [value.name for value in self._inputs]
        return self._arrays(dict(zip(names, given, strict=False)))

    def _arrays(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        return {
            name: _array(name, value) for name, value in inputs.items() if name not in self._foreign
        }

    def _session(self, arrays: dict[str, Array]) -> Session:
        shapes = {name: array.shape for name, array in arrays.items()}
        try:
            return self._compiled(shapes, {})
        except UnsupportedModel:
            deciding = deciding_inputs(self._model)
            values = {name: array for name, array in arrays.items() if name in deciding}
            if not values:
                raise
            return self._compiled(shapes, values)

    def _compiled(self, shapes: dict[str, tuple[int, ...]], values: dict[str, Array]) -> Session:
        key = (
            tuple(sorted(shapes.items())),
            tuple((name, str(array.dtype), array.tobytes()) for name, array in values.items()),
        )
        if key not in self._sessions:
            kept = {name: shape for name, shape in shapes.items() if name not in values}
            artifact = api.compile(self._model, target=self._target, shapes=kept, values=values)
            self._sessions[key] = Session(artifact, self._device)
        session = self._sessions[key]
        self.artifact, self.bound = session.artifact, tuple(values)
        return session


def _array(name: str, value: Any) -> Array:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    is_number = isinstance(value, int | float) or hasattr(value, "__array__")
    array = np.asarray(value if is_number else None)
    if array.dtype.kind in "OSU":
        raise ShapeError(
            f"input {name!r}: expected a dense tensor, found {type(value).__name__}\n"
            "    fix: give a NumPy array of the type that the model declares"
        )
    return array


class RamforgeBackend(Backend):
    """``CPU`` is the host body, ``CUDA`` a GPU of this machine."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> RamforgeRep:
        if not cls.supports_device(device):
            raise DeviceError(f"device {device!r} is not there\n    fix: use 'CPU'")
        on_gpu = device.upper().startswith("CUDA")
        return RamforgeRep(model, "h200" if on_gpu else "host", "cuda" if on_gpu else "host")

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        if device.upper().startswith("CPU"):
            return True
        from ramforge.runtime.drivers import cuda

        return device.upper().startswith("CUDA") and cuda.is_available()


prepare = RamforgeBackend.prepare
run_model = RamforgeBackend.run_model
run_node = RamforgeBackend.run_node
supports_device = RamforgeBackend.supports_device
is_compatible = RamforgeBackend.is_compatible
