"""The CUDA driver: the emitted file as a cubin (NVRTC, or nvcc without it), loaded and launched
through cupy.

Not yet confirmed on a GPU; what can be checked without one (both compilers take the text) is in the
tests.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache
from typing import Any

import numpy as np

from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import nvcc, nvrtc, toolchain
from ramforge.compiler.errors import DeviceError
from ramforge.compiler.ir import Array


@cache
def is_available() -> bool:
    """Whether this machine has a CUDA device and cupy to drive it. Never an exception."""
    try:
        ctypes.CDLL("libcuda.so.1")
        import cupy

        return int(cupy.cuda.runtime.getDeviceCount()) > 0
    except Exception:
        return False


def build_cubin(text: str, architecture: str) -> bytes:
    """Machine code for one architecture, by whichever compiler is there."""
    if toolchain.find_nvrtc() is not None:
        return nvrtc.compile_cubin(text, architecture).data
    return nvcc.compile_cubin(text, architecture).data


class CudaDriver:
    """A cooperative launch for each of the plan; the control block lives as long as the driver."""

    def __init__(self, artifact: Artifact) -> None:
        if not is_available():
            raise DeviceError(
                "no CUDA device: the driver or cupy is missing\n"
                "    fix: run on the host (--device host), or on a GPU machine\n"
                "    pip install 'ramforge[cuda]'"
            )
        import cupy

        self._cupy = cupy
        self._artifact = artifact
        schedule = artifact.manifest["schedule"]
        self._launches: list[dict[str, int]] = schedule["launches"]
        self._kernel = self._load()
        self._control = cupy.zeros(schedule["control_words"], dtype=cupy.uint32)
        self._workspace = cupy.empty(
            artifact.manifest["memory"]["workspace_bytes"] + 16, cupy.uint8
        )
        self._weights = cupy.asarray(self._read_weights())
        self._blocks = self._resident_blocks()

    def _load(self) -> Any:
        properties = self._cupy.cuda.runtime.getDeviceProperties(self._cupy.cuda.Device().id)
        major, minor = properties["major"], properties["minor"]
        # the 'a' variants keep the newest units' own instructions
        suffix = "a" if major >= 9 else ""
        cubin = build_cubin(self._artifact.text(), f"sm_{major}{minor}{suffix}")
        module = self._cupy.cuda.function.Module()
        module.load(cubin)
        kernel = module.get_function("rf_kernel")
        arena = max(launch["arena_bytes"] for launch in self._launches)
        maximum_dynamic_shared = 8
        self._cupy.cuda.driver.funcSetAttribute(kernel.ptr, maximum_dynamic_shared, arena)
        self._sms = properties["multiProcessorCount"]
        self._module = module
        return kernel

    def _resident_blocks(self) -> int:
        """Blocks that are resident at once; fewer than lanes is fine, a block then runs several
        lanes.
        """
        first = self._launches[0]
        per_sm = self._cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
            self._kernel.ptr, first["threads"], first["arena_bytes"]
        )
        if per_sm < 1:
            raise DeviceError(
                "not one block of this program fits on an SM of this device\n"
                "    fix: compile for this device with --target"
            )
        return min(int(self._sms) * int(per_sm), first["lanes"])

    def _read_weights(self) -> Array:
        """The data part of the weights file."""
        raw = np.fromfile(self._artifact.weights, dtype=np.uint8)
        start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
        return raw[start:] if raw.size > start else np.zeros(16, dtype=np.uint8)

    @property
    def description(self) -> str:
        name = self._cupy.cuda.runtime.getDeviceProperties(self._cupy.cuda.Device().id)["name"]
        return f"cuda, {name.decode()}"

    def run(self, inputs: list[Array]) -> list[Array]:
        cupy = self._cupy
        given = [cupy.asarray(array) for array in inputs]
        taken = [cupy.empty(port.shape, dtype=port.dtype) for port in self._artifact.outputs]
        self.launch(given, taken)
        return [cupy.asnumpy(array) for array in taken]

    def launch(self, given: list[Any], taken: list[Any]) -> None:
        """Queue all launches on the current stream."""
        arrays = [self._workspace, self._weights, *given, *taken]
        addresses = np.array([array.data.ptr for array in arrays], dtype=np.uint64)
        spaces = self._cupy.asarray(addresses)
        for number, launch in enumerate(self._launches):
            self._kernel(
                (self._blocks,),
                (launch["threads"],),
                (spaces, self._control, np.int32(number)),
                shared_mem=launch["arena_bytes"],
                enable_cooperative_groups=True,
            )

    def close(self) -> None:
        self._control = self._workspace = self._weights = None
