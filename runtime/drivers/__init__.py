"""Drivers: what runs an artefact. Each takes NumPy arrays in the order of the inputs and gives
those of the outputs.
"""

from __future__ import annotations

from typing import Protocol

from ramforge.codegen.artifact import Artifact
from ramforge.compiler.errors import DeviceError
from ramforge.compiler.ir import Array


class Driver(Protocol):
    """A loaded model on a device."""

    @property
    def description(self) -> str: ...

    def run(self, inputs: list[Array]) -> list[Array]: ...

    def close(self) -> None: ...


def open_driver(artifact: Artifact, device: str) -> Driver:
    """The driver for ``auto``, ``host``, ``host:N`` or ``cuda``. A device that was named is never
    replaced.
    """
    from ramforge.runtime.drivers import cuda, host

    kind, _, count = device.partition(":")
    if kind == "auto":
        return cuda.CudaDriver(artifact) if cuda.is_available() else host.HostDriver(artifact)
    if kind == "cuda":
        return cuda.CudaDriver(artifact)
    if kind == "host" and (not count or (count.isdigit() and int(count) > 0)):
        return host.HostDriver(artifact, int(count) if count else 0)
    raise DeviceError(f"unknown device {device!r}\n    fix: use auto, host, host:2 or cuda")
