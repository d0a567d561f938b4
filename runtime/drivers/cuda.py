"""The CUDA driver: the emitted file as a cubin (NVRTC, or nvcc without it), loaded and launched
through cupy.

Not yet confirmed on a GPU; what can be checked without one (both compilers take the text) is in the
tests.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np

from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import nvcc, nvrtc, toolchain
from ramforge.compiler.errors import DeviceError, ToolchainError
from ramforge.compiler.ir import Array

_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


def is_available() -> bool:
    """Whether this machine has a CUDA device and cupy to drive it. Never an exception."""
    return not obstacle()


@cache
def obstacle() -> str:
    """What keeps this machine from running CUDA programs; empty if nothing does."""
    try:
        ctypes.CDLL("libcuda.so.1")
        import cupy

        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
    return "" if count else "no device is visible"


def machine() -> dict[str, str | int]:
    """What results of this machine depend on; empty without a device."""
    if not is_available():
        return {}
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(cupy.cuda.Device().id)
    found = toolchain.find_nvrtc(), toolchain.find_nvcc()
    return {
        "name": properties["name"].decode(),
        "capability": f"{properties['major']}.{properties['minor']}",
        "sms": int(properties["multiProcessorCount"]),
        "driver": int(runtime.driverGetVersion()),
        "cupy": str(cupy.__version__),
        "nvrtc": found[0].path if found[0] else "",
        "nvcc": found[1].version if found[1] else "",
    }


def build_cubin(text: str, architecture: str) -> bytes:
    """Machine code for one architecture, by NVRTC, or by nvcc where NVRTC is missing or broken."""
    try:
        nvrtc.version()
    except ToolchainError:
        if toolchain.find_nvcc() is None:
            raise
        return nvcc.compile_cubin(text, architecture).data
    return nvrtc.compile_cubin(text, architecture).data


class CudaDriver:
    """A cooperative launch for each of the plan; the control block lives as long as the driver.

    It belongs to the device that was cupy's current one when it was made, whichever thread uses it.
    """

    def __init__(self, artifact: Artifact) -> None:
        if not is_available():
            raise DeviceError(
                f"no CUDA device: {obstacle()}\n"
                "    fix: run on the host (--device host), or on a GPU machine\n"
                "    pip install 'ramforge[cuda]'"
            )
        import cupy

        self._cupy = cupy
        self._artifact = artifact
        schedule = artifact.manifest["schedule"]
        self._launches: list[dict[str, Any]] = schedule["launches"]
        self._device = cupy.cuda.Device()
        self._properties = cupy.cuda.runtime.getDeviceProperties(self._device.id)
        self._kernels = self._load()
        self._blocks = [self._resident_blocks(launch) for launch in self._launches]
        self._control = cupy.zeros(schedule["control_words"], dtype=cupy.uint32)
        self._workspace = cupy.empty(
            artifact.manifest["memory"]["workspace_bytes"] + 16, cupy.uint8
        )
        self._weights = cupy.asarray(self._read_weights())
        count = 2 + len(artifact.inputs) + len(artifact.outputs)
        self._spaces = np.dtype([("base", np.uint64, (count,))])

    def _load(self) -> dict[str, Any]:
        """The kernels that the launches start, by name."""
        major, minor = self._properties["major"], self._properties["minor"]
        # the 'a' variants keep the newest units' own instructions
        suffix = "a" if major >= 9 else ""
        cubin = build_cubin(self._artifact.text(), f"sm_{major}{minor}{suffix}")
        module = self._cupy.cuda.function.Module()
        try:
            module.load(cubin)
        except Exception as problem:
            raise DeviceError(
                f"the device's driver does not take this machine code: {problem}\n"
                "    fix: a driver as new as the compiler (CUDA 13 needs 580 or newer), or an "
                "older NVRTC"
            ) from problem
        kernels = {}
        for launch in self._launches:
            name, arena = launch["kernel"], launch["arena_bytes"]
            allowed = int(self._properties.get("sharedMemPerBlockOptin", arena))
            if arena > allowed:
                raise self._misfit(f"it wants {arena} bytes of shared memory, there are {allowed}")
            if name not in kernels:
                kernels[name] = module.get_function(name)  # which keeps the module loaded
            most = max(row["arena_bytes"] for row in self._launches if row["kernel"] == name)
            self._cupy.cuda.driver.funcSetAttribute(kernels[name].ptr, _MAX_DYNAMIC_SHARED, most)
        return kernels

    def _resident_blocks(self, launch: dict[str, Any]) -> int:
        """Blocks that are resident at once; fewer than lanes is fine, a block then runs several
        lanes.
        """
        per_sm = self._cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
            self._kernels[launch["kernel"]].ptr, launch["threads"], launch["arena_bytes"]
        )
        if per_sm < 1:
            raise self._misfit("not one block of it fits on an SM")
        resident = int(self._properties["multiProcessorCount"]) * int(per_sm)
        return min(resident, int(launch["lanes"]))

    def _misfit(self, reason: str) -> DeviceError:
        return DeviceError(
            f"this program does not fit {self.description}: {reason}\n"
            "    fix: compile for this device with --target"
        )

    def _read_weights(self) -> Array:
        """The data part of the weights file."""
        raw = np.fromfile(self._artifact.weights, dtype=np.uint8)
        start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
        return raw[start:] if raw.size > start else np.zeros(16, dtype=np.uint8)

    @property
    def description(self) -> str:
        return f"cuda, {self._properties['name'].decode()}"

    def run(self, inputs: list[Array]) -> list[Array]:
        cupy = self._cupy
        with self._device:
            given = [cupy.asarray(array) for array in inputs]
            taken = [cupy.empty(port.shape, dtype=port.dtype) for port in self._artifact.outputs]
            self.launch(given, taken)
            return [cupy.asnumpy(array) for array in taken]

    def launch(self, given: list[Any], taken: list[Any]) -> None:
        """Queue all launches on the current stream. The addresses travel with each launch."""
        arrays = [self._workspace, self._weights, *given, *taken]
        spaces = np.zeros(1, self._spaces)
        spaces["base"][0] = [array.data.ptr for array in arrays]
        for number, launch in enumerate(self._launches):
            self._kernels[launch["kernel"]](
                (self._blocks[number],),
                (launch["threads"],),
                (spaces, self._control, np.int32(number)),
                shared_mem=launch["arena_bytes"],
                enable_cooperative_groups=True,
            )

    def close(self) -> None:
        self._control = self._workspace = self._weights = None
