"""The host driver: the C++ side of the emitted file as a shared library, on the cores of this
machine.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import host
from ramforge.compiler.errors import ArtifactError, DeviceError
from ramforge.compiler.ir import Array
from ramforge.runtime.drivers.debug import FIX, text_of


def build(artifact: Artifact, *, debug: bool = False) -> Path:
    """The shared library of an artefact, without its ``main``."""
    return host.build_library(f"#define RF_LIBRARY 1\n{text_of(artifact.text(), debug)}")


def cores() -> int:
    """The cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


class HostDriver:
    """Built on first use, from the cache after that. ``threads`` 0 takes all cores."""

    def __init__(self, artifact: Artifact, threads: int = 0, *, debug: bool = False) -> None:
        self._threads = threads or cores()
        self._library = ctypes.CDLL(str(build(artifact, debug=debug)))
        self._outputs = [(port.shape, port.numpy) for port in artifact.results]
        self._launches = len(artifact.manifest["schedule"]["launches"])
        self._process = os.getpid()
        try:
            self._declare()
        except AttributeError:
            raise ArtifactError(
                f"{artifact.source}: is not what ramforge writes\n    fix: compile the model again"
            ) from None
        self._session = self._library.rf_create(os.fsencode(artifact.weights), self._threads)
        if not self._session:
            message = self._library.rf_last_error(None).decode(errors="replace")
            raise ArtifactError(f"{message}\n    fix: compile the model again")

    def _declare(self) -> None:
        pointer = ctypes.c_void_p
        self._library.rf_create.restype = pointer
        self._library.rf_create.argtypes = [ctypes.c_char_p, ctypes.c_int]
        self._library.rf_run.argtypes = [pointer] * 5
        self._library.rf_last_error.restype = ctypes.c_char_p
        self._library.rf_last_error.argtypes = [pointer]
        self._library.rf_destroy.argtypes = [pointer]

    @property
    def description(self) -> str:
        return f"host, {self._threads} thread{'s' if self._threads > 1 else ''}"

    def run(self, inputs: list[Array]) -> list[Array]:
        outputs = [np.empty(shape, dtype) for shape, dtype in self._outputs]
        self.bind(inputs, outputs)()
        return outputs

    def bind(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Callable[[], None]:
        """A call that runs the model on these very arrays; for measuring without the wrapper's own
        work.
        """
        given, taken = _addresses(inputs), _addresses(outputs)
        keep = (tuple(inputs), tuple(outputs))

        def call() -> None:
            assert keep
            if self._library.rf_run(self._session, given, taken, None, None):
                reason = self._library.rf_last_error(self._session).decode(errors="replace")
                raise DeviceError(f"{reason}\n    fix: {FIX}")

        return call

    def launch_ns(self, inputs: list[Array]) -> list[float]:
        """Run once: how long each launch took, in a build with RF_TIMING."""
        self.run(inputs)
        times = self._library.rf_launch_ns
        times.restype, times.argtypes = ctypes.POINTER(ctypes.c_double), [ctypes.c_void_p]
        return list(times(self._session)[: self._launches])

    def close(self) -> None:
        if self._session:
            self._library.rf_destroy(self._session)
            self._session = None

    def __del__(self) -> None:
        # a forked child has no worker threads to join
        if getattr(self, "_session", None) and self._process == os.getpid():
            self.close()


def _addresses(arrays: Sequence[Array]) -> ctypes.Array[Any]:
    table = (ctypes.c_void_p * max(1, len(arrays)))()
    for number, array in enumerate(arrays):
        table[number] = array.ctypes.data
    return table
