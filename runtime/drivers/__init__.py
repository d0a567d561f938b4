"""Drivers: what runs an artefact. Each takes NumPy arrays in the order of the inputs and gives
those of the outputs.
"""

from __future__ import annotations

import re
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


def open_driver(artifact: Artifact, device: str, *, debug: bool = False) -> Driver:
    """The driver for ``auto``, ``host``, ``host:N`` or ``cuda``. A device that was named is never
    replaced. In a ``debug`` build a wait that sees no end gives up and says who waited for what.
    """
    from ramforge.runtime.drivers import cuda, host

    cores = re.fullmatch(r"host(?::0*([1-9][0-9]{0,5}))?", str(device))
    if device == "cuda" or (device == "auto" and cuda.is_available()):
        return cuda.CudaDriver(artifact, debug=debug)
    if device == "auto":
        return host.HostDriver(artifact, debug=debug)
    if cores:
        return host.HostDriver(artifact, int(cores[1] or 0), debug=debug)
    raise DeviceError(f"unknown device {device!r}\n    fix: use auto, host, host:2 or cuda")
