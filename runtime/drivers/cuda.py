"""The CUDA driver: the emitted file as a cubin, loaded and launched through cupy.

Not yet confirmed on a GPU; what can be checked without one (both compilers take the text) is in the
tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np

from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import cubin, device, toolchain
from ramforge.compiler.errors import DeviceError
from ramforge.compiler.ir import Array
from ramforge.runtime.drivers.debug import given_up, is_aborted, text_of

log = logging.getLogger("ramforge")

_ALIGNMENT = 16  # of what a thread copies at once
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

Around = contextlib.AbstractContextManager[None]
# Launches that are queued before the device may begin with them; a stream holds about a thousand.
_TOGETHER = 64
_MOST_HELD_S = 1.0


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
        "nvjitlink": toolchain.find_nvjitlink() or "",
        "nvcc": found[1].version if found[1] else "",
    }


def build_cubin(artifact: Artifact, architecture: str, *, debug: bool = False) -> bytes:
    """Machine code for one architecture, by the best compiler that there is.

    A kernel that the assembler gave more than its launch has room for is told of: its blocks will
    be fewer than planned.
    """
    built = device.compile_cubin(text_of(artifact.text(), debug), architecture)
    threads = {
        launch["kernel"]: launch["threads"] * launch["blocks_per_sm"]
        for launch in artifact.manifest["schedule"]["launches"]
    }
    for misfit in cubin.misfits(cubin.usage(built), threads):
        log.warning("%s, %s: %s", artifact.source.name, architecture, misfit)
    return built.data


class CudaDriver:
    """A cooperative launch for each of the plan; the control block lives as long as the driver.

    It belongs to the device that was cupy's current one when it was made, whichever thread uses it.
    One run is in flight at a time: on another stream it waits for the one before.
    """

    def __init__(self, artifact: Artifact, *, debug: bool = False) -> None:
        if not is_available():
            raise DeviceError(
                f"no CUDA device: {obstacle()}\n"
                "    fix: run on the host (--device host), or on a GPU machine\n"
                "    pip install 'ramforge[cuda]'"
            )
        import cupy

        self._cupy = cupy
        self._artifact = artifact
        self._debug = debug
        self._dead = ""  # why nothing runs any more
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
        count = 2 + len(artifact.inputs) + len(artifact.results)
        self._spaces = np.dtype([("base", np.uint64, (count,))])
        self._stream = cupy.cuda.get_current_stream()  # of the last run
        self._stream.synchronize()

    def _load(self) -> dict[str, Any]:
        """The kernels that the launches start, by name."""
        major, minor = self._properties["major"], self._properties["minor"]
        # the 'a' variants keep the newest units' own instructions
        suffix = "a" if major >= 9 else ""
        built = build_cubin(self._artifact, f"sm_{major}{minor}{suffix}", debug=self._debug)
        module = self._cupy.cuda.function.Module()
        try:
            module.load(built)
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
        if not self._properties.get("cooperativeLaunch", 1):
            raise self._misfit("the device takes no cooperative launches")
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
        with self._device, self._watched():
            given = [cupy.asarray(_plain(array)) for array in inputs]
            taken = self._results()
            self.launch(given, taken)
            results = [cupy.asnumpy(array) for array in taken]
            self.check()
        ports = self._artifact.results
        return [array.view(port.numpy) for array, port in zip(results, ports, strict=True)]

    def _results(self) -> list[Any]:
        ports = self._artifact.results
        return [self._cupy.empty(port.shape, dtype=_plain_type(port.numpy)) for port in ports]

    def check(self) -> None:
        """In a debug build, wait for the last run and raise DeviceError if it was given up."""
        if self._debug:
            control = self._cupy.asnumpy(self._control)
            if is_aborted(control):
                raise given_up(self._artifact, control)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Whatever ends a run early leaves a clean control block, or a session that is dead."""
        if self._dead:
            raise DeviceError(self._dead)
        try:
            yield
        except BaseException as problem:
            self._recover(problem)
            if isinstance(problem, DeviceError) or not isinstance(problem, Exception):
                raise
            raise DeviceError(
                f"the run failed: {problem}\n"
                "    fix: leave all SMs and enough memory of the device to this process"
            ) from problem

    def _recover(self, problem: BaseException) -> None:
        """Launches of the run that did start have counted, and others have not."""
        try:
            self._device.synchronize()
            self._control.fill(0)
            self._device.synchronize()
        except Exception:
            self._dead = (
                f"the session is dead, and so is the device for this process: {problem}\n"
                "    fix: open a session in a new process"
            )
            raise DeviceError(self._dead) from problem

    def launch_ns(self, inputs: list[Array]) -> list[float]:
        """Run once: how long the device was at each launch."""
        cupy = self._cupy
        with self._device, self._watched():
            given = [cupy.asarray(_plain(array)) for array in inputs]
            taken = self._results()
            watch = _Stopwatch(cupy)
            try:
                self.launch(given, taken, watch.around)
            finally:
                watch.open()
            return watch.read()

    def launch(
        self, given: list[Any], taken: list[Any], around: Callable[[], Around] = nullcontext
    ) -> None:
        """Queue all launches on the current stream, each in what ``around`` gives. The addresses
        travel with each launch.
        """
        self._follow(self._cupy.cuda.get_current_stream())
        arrays = [self._workspace, self._weights, *given, *taken]
        spaces = np.zeros(1, self._spaces)
        addresses = [array.data.ptr for array in arrays]
        if any(address % _ALIGNMENT for address in addresses):
            raise DeviceError(
                f"an input or output does not start at a multiple of {_ALIGNMENT} bytes\n"
                "    fix: pass a copy of this part of an array"
            )
        spaces["base"][0] = addresses
        for number, launch in enumerate(self._launches):
            with around():
                self._kernels[launch["kernel"]](
                    (self._blocks[number],),
                    (launch["threads"],),
                    (spaces, self._control, np.int32(number)),
                    shared_mem=launch["arena_bytes"],
                    enable_cooperative_groups=True,
                )

    def _follow(self, stream: Any) -> None:
        """Let the stream wait for the last run. What is captured runs later, and is not watched."""
        if stream.is_capturing():
            return
        if stream.ptr != self._stream.ptr:
            stream.wait_event(self._stream.record())
        self._stream = stream

    def close(self) -> None:
        self._control = self._workspace = self._weights = None


class _Stopwatch:
    """Events around launches. The stream is held until many are queued: else the time that Python
    takes between two of them would be measured.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._stream = cupy.cuda.get_current_stream()
        self._spans: list[tuple[Any, Any]] = []
        self._gate = threading.Event()

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        if len(self._spans) % _TOGETHER == 0:
            self.open()
            self._gate = gate = threading.Event()
            self._stream.launch_host_func(lambda _: gate.wait(_MOST_HELD_S), None)
        start, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        start.record(self._stream)
        yield
        end.record(self._stream)
        self._spans.append((start, end))

    def open(self) -> None:
        """Let the stream go."""
        self._gate.set()

    def read(self) -> list[float]:
        self._stream.synchronize()
        elapsed_ms = self._cupy.cuda.get_elapsed_time
        return [1e6 * float(elapsed_ms(start, end)) for start, end in self._spans]


def _plain_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which cupy moves elements: it does not know those of ml_dtypes."""
    return dtype if dtype.isbuiltin == 1 else np.dtype(f"uint{8 * dtype.itemsize}")


def _plain(array: Array) -> Array:
    return array.view(_plain_type(array.dtype))
