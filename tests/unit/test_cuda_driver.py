"""The CUDA driver without a GPU: a stand-in for cupy records all calls, the emulator is its kernel.

So the machine code is really built, and what the driver passes (the order of spaces, the control
block, sizes) is what the program then runs with.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ramforge
from examples.models import MODELS
from ramforge.codegen.artifact import Artifact
from ramforge.compiler.device import find_target
from ramforge.compiler.errors import DeviceError
from ramforge.runtime import arrays, verify
from ramforge.runtime.drivers import cuda
from ramforge.runtime.drivers.emulator import Emulator, build

SMS = 3
SHARED_BYTES = 232448


class FakeArray(np.ndarray):  # type: ignore[type-arg]
    """An array of the device: its address stands where cupy has it."""

    def __array_finalize__(self, parent: object) -> None:
        self.data_pointer = self.ctypes.data

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)


class FakeCupy(ModuleType):
    """Just what the driver uses, and a list of what it did."""

    uint8, uint32 = np.uint8, np.uint32

    def __init__(self, artifact: Artifact, blocks_per_sm: int) -> None:
        super().__init__("cupy")
        self.artifact = artifact
        self.calls: list[tuple[str, Any]] = []
        self.arrays: dict[int, np.ndarray[Any, Any]] = {}
        properties = {
            "major": 9,
            "minor": 0,
            "multiProcessorCount": SMS,
            "name": b"Stand-in",
            "sharedMemPerBlockOptin": SHARED_BYTES,
        }
        runtime = SimpleNamespace(
            getDeviceCount=lambda: 1, getDeviceProperties=lambda device: properties
        )
        driver = SimpleNamespace(
            funcSetAttribute=lambda *a: self.calls.append(("attribute", a)),
            occupancyMaxActiveBlocksPerMultiprocessor=lambda *a: blocks_per_sm,
        )
        function = SimpleNamespace(Module=lambda: SimpleNamespace(load=self._load, **self._get()))
        self.cuda = SimpleNamespace(
            runtime=runtime, driver=driver, function=function, Device=lambda: _FakeDevice(self)
        )

    def _load(self, cubin: bytes) -> None:
        self.calls.append(("load", cubin[:4]))

    def _get(self) -> dict[str, Any]:
        self.emulator = Emulator(build(self.artifact.text()))
        return {"get_function": lambda name: self._kernel(name)}

    def _kernel(self, name: str) -> Any:
        self.calls.append(("function", name))
        return _FakeKernel(self)

    def _keep(self, array: Any) -> Any:
        kept = np.array(array, copy=True).view(FakeArray)
        self.arrays[kept.ctypes.data] = kept
        return kept

    def zeros(self, shape: Any, dtype: Any) -> Any:
        return self._keep(np.zeros(shape, dtype))

    def empty(self, shape: Any, dtype: Any) -> Any:
        return self._keep(np.full(shape, 77, dtype))

    def asarray(self, array: Any) -> Any:
        return self._keep(array)

    def asnumpy(self, array: Any) -> Any:
        return np.array(array)


class _FakeDevice:
    id = 0

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy

    def __enter__(self) -> None:
        self._cupy.calls.append(("device", "entered"))

    def __exit__(self, *problem: object) -> None:
        self._cupy.calls.append(("device", "left"))


class _FakeKernel:
    ptr = 4711

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy

    def __call__(self, grid: Any, block: Any, args: Any, **options: Any) -> None:
        table, control, launch = args
        self._cupy.calls.append(("launch", (grid, block, int(launch), options)))
        # cupy passes a NumPy array by value, and only if it has one element
        assert type(table) is np.ndarray and table.size == 1
        spaces = [
            self._cupy.arrays[int(base)].view(np.ndarray).reshape(-1).view(np.uint8)
            for base in table["base"][0]
        ]
        report = self._cupy.emulator.launch(
            int(launch),
            blocks=grid[0],
            threads=block[0],
            arena_bytes=options["shared_mem"],
            spaces=spaces,
            control=control.view(np.ndarray),
        )
        assert report.ok, report.message


@pytest.fixture(scope="module", params=["waves", "per-op"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    from dataclasses import replace

    target = replace(find_target("h200"), sms=SMS)
    output: Path = tmp_path_factory.mktemp("cuda") / "net.cu"
    model = MODELS["lstm_cell"]()
    return ramforge.compile(model, target=target, output=output, schedule=request.param)


@pytest.fixture
def cupy(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy(artifact, blocks_per_sm=2)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    return fake


def test_the_driver_runs_the_program_as_the_host_does(artifact: Artifact, cupy: FakeCupy) -> None:
    inputs = arrays.made_up(artifact.inputs, seed=1)
    with ramforge.Session(artifact, "host") as host:
        expected = host.run(None, inputs)
    with ramforge.Session(artifact, "cuda") as session:
        assert session.device == "cuda, Stand-in"
        for _ in range(3):
            found = session.run(None, inputs)
            names = [port.name for port in artifact.outputs]
            verify.require(verify.differences(names, found, expected))


def test_every_launch_is_cooperative_with_the_sizes_of_the_plan(
    artifact: Artifact, cupy: FakeCupy
) -> None:
    with ramforge.Session(artifact, "cuda") as session:
        session.run(None, arrays.made_up(artifact.inputs, seed=1))
    assert ("load", b"\x7fELF") in cupy.calls
    assert ("function", "rf_kernel") in cupy.calls
    launches = [what for kind, what in cupy.calls if kind == "launch"]
    planned = artifact.manifest["schedule"]["launches"]
    assert [number for _, _, number, _ in launches] == list(range(len(planned)))
    for (grid, block, _, options), plan in zip(launches, planned, strict=True):
        assert grid == (min(plan["lanes"], 2 * SMS),)
        assert block == (plan["threads"],)
        assert options == {
            "shared_mem": plan["arena_bytes"],
            "enable_cooperative_groups": True,
        }


def test_fewer_resident_blocks_run_several_lanes_each(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeCupy(artifact, blocks_per_sm=1)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    inputs = arrays.made_up(artifact.inputs, seed=2)
    with ramforge.Session(artifact, "host") as host, ramforge.Session(artifact, "cuda") as device:
        names = [port.name for port in artifact.outputs]
        expected, found = host.run(None, inputs), device.run(None, inputs)
    verify.require(verify.differences(names, found, expected))
    assert {grid for kind, (grid, *_) in fake.calls if kind == "launch"} == {(SMS,)}


def test_a_program_that_does_not_fit_is_refused(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(artifact, blocks_per_sm=0))
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    with pytest.raises(DeviceError, match="not one block"):
        ramforge.Session(artifact, "cuda")


def test_a_run_copies_nothing_but_inputs_and_stays_on_the_device_it_was_made_for(
    artifact: Artifact, cupy: FakeCupy
) -> None:
    with ramforge.Session(artifact, "cuda") as session:
        before = len(cupy.arrays)
        cupy.calls.clear()
        session.run(None, arrays.made_up(artifact.inputs, seed=1))
    assert len(cupy.arrays) == before + len(artifact.inputs) + len(artifact.outputs)
    kinds = [kind for kind, _ in cupy.calls]
    assert kinds[0] == kinds[-1] == "device" and "launch" in kinds[1:-1]


def test_a_driver_that_is_too_old_is_named(
    artifact: Artifact, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(cubin: bytes) -> None:
        raise RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU")

    monkeypatch.setattr(cupy, "_load", refuse)
    cupy.cuda.function.Module = lambda: SimpleNamespace(load=refuse)
    with pytest.raises(DeviceError, match=r"NO_BINARY_FOR_GPU\n    fix: a driver"):
        ramforge.Session(artifact, "cuda")


def test_an_arena_that_the_device_does_not_have_is_refused(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SHARED_BYTES", 1024)
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(artifact, blocks_per_sm=1))
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    with pytest.raises(DeviceError, match="bytes of shared memory, there are 1024"):
        ramforge.Session(artifact, "cuda")


def test_a_program_without_launches_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx.parser

    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[0] x) => (float[0] y) { y = Neg(x) }'
    )
    empty = ramforge.compile(model, output=tmp_path / "empty.cu", schedule="per-op")
    assert empty.manifest["schedule"]["launches"] == []
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(empty, blocks_per_sm=1))
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    with ramforge.Session(empty, "cuda") as session:
        (found,) = session.run(None, {"x": np.zeros(0, np.float32)})
    assert found.shape == (0,)


def test_why_there_is_no_device_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError("libcuda.so.1: cannot open")

    monkeypatch.setattr(cuda.ctypes, "CDLL", fail)
    cuda.obstacle.cache_clear()
    try:
        assert not cuda.is_available()
        assert "libcuda.so.1: cannot open" in cuda.obstacle()
    finally:
        cuda.obstacle.cache_clear()


def test_nvcc_builds_where_nvrtc_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    from ramforge.codegen.build import nvcc, nvrtc, toolchain
    from ramforge.codegen.build.cubin import Cubin
    from ramforge.compiler.errors import ToolchainError

    def broken() -> tuple[int, int]:
        raise ToolchainError("libnvrtc.so.12 does not load")

    monkeypatch.setattr(nvrtc, "version", broken)
    monkeypatch.setattr(toolchain, "find_nvcc", lambda: toolchain.Nvcc("nvcc", "13.0"))
    monkeypatch.setattr(nvcc, "compile_cubin", lambda text, arch: Cubin(arch.encode(), ""))
    assert cuda.build_cubin("", "sm_80") == b"sm_80"
    monkeypatch.setattr(toolchain, "find_nvcc", lambda: None)
    with pytest.raises(ToolchainError, match="does not load"):
        cuda.build_cubin("", "sm_80")
