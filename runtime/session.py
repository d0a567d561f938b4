"""Run a compiled model: shaped like ``onnxruntime.InferenceSession``, NumPy in and NumPy out."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType

import numpy as np

from ramforge.codegen import artifact as artifacts
from ramforge.codegen.artifact import Artifact, Port
from ramforge.compiler.errors import DeviceError, ShapeError
from ramforge.compiler.ir import Array
from ramforge.runtime.drivers import Driver, open_driver

DEBUG_VARIABLE = "RAMFORGE_DEBUG"


class Session:
    """One model on one device. One run in flight at a time; ``close`` frees the device.

    ``device`` is ``auto`` (a GPU if there is one, else the host), ``host``, ``host:2`` (two cores)
    or ``cuda``. With ``debug`` a run that hangs ends with an error that says who waited for what;
    None looks whether RAMFORGE_DEBUG is 1.
    """

    def __init__(
        self,
        artifact: Artifact | str | os.PathLike[str],
        device: str = "auto",
        *,
        debug: bool | None = None,
    ) -> None:
        self.artifact = artifact if isinstance(artifact, Artifact) else artifacts.load(artifact)
        if debug is None:
            debug = os.environ.get(DEBUG_VARIABLE) == "1"
        self._driver: Driver | None = open_driver(self.artifact, device, debug=debug)
        self._inputs, self._outputs = self.artifact.inputs, self.artifact.outputs
        self._busy = threading.Lock()
        self._process = os.getpid()

    @property
    def device(self) -> str:
        """What the model runs on, in words."""
        return self._open().description

    def get_inputs(self) -> tuple[Port, ...]:
        return self._inputs

    def get_outputs(self) -> tuple[Port, ...]:
        return self._outputs

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, Array]) -> list[Array]:
        """The named outputs (all of them for None), as new arrays."""
        if isinstance(outputs, str):
            raise ShapeError(
                f"outputs is the text {outputs!r}\n    fix: give a list: [{outputs!r}]"
            )
        arrays = [_checked(port, inputs) for port in self._inputs]
        known = [port.name for port in self._inputs]
        unknown = sorted(set(inputs) - set(known))
        if unknown:
            raise ShapeError(f"unknown inputs {unknown}\n    fix: the model's inputs are {known}")
        wanted = [self._position(name) for name in outputs] if outputs is not None else None
        if self._process != os.getpid():
            # its threads and its device are the parent's
            raise DeviceError(
                "the session was opened before a fork\n    fix: open one in each process"
            )
        if not self._busy.acquire(blocking=False):
            raise DeviceError("a run of this session is in flight\n    fix: one session a thread")
        try:
            results = self._open().run(arrays)
        finally:
            self._busy.release()
        self._expect_zeros(results[len(self._outputs) :])
        if wanted is None:
            return results[: len(self._outputs)]
        return [results[position] for position in wanted]

    def _expect_zeros(self, checks: Sequence[Array]) -> None:
        wrong = [text for text, count in zip(self.artifact.checks, checks, strict=True) if count]
        if wrong:
            raise ShapeError("\n".join(wrong))

    def close(self) -> None:
        """Free the device, after the run in flight if there is one."""
        with self._busy:
            if self._driver is not None:
                self._driver.close()
                self._driver = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> Driver:
        if self._driver is None:
            raise DeviceError("the session is closed\n    fix: open a new one")
        return self._driver

    def _position(self, name: str) -> int:
        names = [port.name for port in self._outputs]
        if name not in names:
            raise ShapeError(f"unknown output {name!r}\n    fix: the model's outputs are {names}")
        return names.index(name)


def _checked(port: Port, inputs: Mapping[str, Array]) -> Array:
    """The array of an input, with the right type and shape and in index order."""
    if port.name not in inputs:
        shape = "x".join(map(str, port.shape))
        raise ShapeError(
            f"input {port.name!r} is missing\n    fix: give a {port.dtype} array of shape {shape}"
        )
    array = np.asarray(inputs[port.name])
    if array.dtype != port.numpy:
        raise ShapeError(
            f"input {port.name!r}: got {array.dtype}, compiled for {port.dtype}\n"
            f"    fix: {port.name}.astype({port.numpy.name!r})"
        )
    if array.shape != port.shape:
        raise ShapeError(_shape_message(port, array.shape))
    return np.ascontiguousarray(array)


def _shape_message(port: Port, got: tuple[int, ...]) -> str:
    head = f"input {port.name!r}: got {_plain(got)}, compiled for {_plain(port.shape)}"
    if len(got) != len(port.shape):
        return f"{head}; it must have {len(port.shape)} axes\n    fix: reshape the array"
    wrong = [axis for axis, size in enumerate(got) if size != port.shape[axis]]
    parts = ", ".join(f"axis {axis} must be {port.shape[axis]}" for axis in wrong)
    shape = "x".join(map(str, got))
    option = shlex.quote(f"{port.name}:{shape}")
    return f"{head}; {parts}\n    fix: compile again with --shapes {option}, or reshape"


def _plain(shape: tuple[int, ...]) -> str:
    return f"({','.join(map(str, shape))})"
