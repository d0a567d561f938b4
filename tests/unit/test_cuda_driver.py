"""The CUDA driver without a GPU: a stand-in for cupy records all calls, the emulator is its kernel.

So the machine code is really built, and what the driver passes (the order of spaces, the control
block, sizes) is what the program then runs with.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ramforge
from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import cubin, nvcc, nvrtc, toolchain
from ramforge.codegen.build.cubin import Cubin
from ramforge.codegen.render import CONTROL_HEADER_WORDS as HEADER
from ramforge.compiler.device import find_target
from ramforge.compiler.errors import DeviceError, ToolchainError
from ramforge.runtime import arrays, verify
from ramforge.runtime.drivers import cuda, debug
from ramforge.runtime.drivers.emulator import Emulator, build
from ramforge.zoo import MODELS

SMS = 3
PER_SM = 2  # blocks that the stand-in holds
SHARED_BYTES = 232448


class FakeArray(np.ndarray):  # type: ignore[type-arg]
    """An array of the device: its address stands where cupy has it."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)


class FakeStream:
    """A stream on which everything is done at once; it remembers what waits for what."""

    def __init__(self, cupy: FakeCupy, ptr: int, capturing: bool = False) -> None:
        self.ptr = ptr
        self._cupy = cupy
        self._capturing = capturing

    def is_capturing(self) -> bool:
        return self._capturing

    def record(self) -> str:
        return f"all of stream {self.ptr}"

    def wait_event(self, event: str) -> None:
        self._cupy.calls.append(("wait", (self.ptr, event)))

    def synchronize(self) -> None:
        self._cupy.calls.append(("synchronize", self.ptr))


class FakeCupy(ModuleType):
    """Just what the driver uses, and a list of what it did.

    ``failing`` is the number of the launch, counted from the beginning, that fails; a ``sticky``
    failure is one that every later call tells of.
    """

    uint8, uint32 = np.uint8, np.uint32

    def __init__(self, artifact: Artifact, blocks_per_sm: int) -> None:
        super().__init__("cupy")
        self.text = artifact.text()
        self.calls: list[tuple[str, Any]] = []
        self.arrays: dict[int, np.ndarray[Any, Any]] = {}
        properties = {
            "major": 9,
            "minor": 0,
            "multiProcessorCount": SMS,
            "name": b"Stand-in",
            "sharedMemPerBlockOptin": SHARED_BYTES,
            "cooperativeLaunch": 1,
        }
        self.properties: dict[str, Any] = properties
        self.stream = FakeStream(self, 0)
        self.failing: int | None = None
        self.problem: BaseException = RuntimeError("CUDA_ERROR_LAUNCH_FAILED")
        self.sticky = False
        self.launched: list[tuple[_FakeKernel, tuple[Any, ...], dict[str, Any]]] = []
        runtime = SimpleNamespace(
            getDeviceCount=lambda: 1, getDeviceProperties=lambda device: properties
        )
        driver = SimpleNamespace(
            funcSetAttribute=lambda *a: self.calls.append(("attribute", a)),
            occupancyMaxActiveBlocksPerMultiprocessor=lambda *a: blocks_per_sm,
        )
        function = SimpleNamespace(Module=lambda: SimpleNamespace(load=self._load, **self._get()))
        self.cuda = SimpleNamespace(
            runtime=runtime,
            driver=driver,
            function=function,
            Device=lambda: _FakeDevice(self),
            get_current_stream=lambda: self.stream,
        )

    def complain(self) -> None:
        """What every call of a dead device does."""
        if self.sticky and self.failing is not None and len(self.launched) > self.failing:
            raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")

    def _load(self, cubin: bytes) -> None:
        self.calls.append(("load", cubin[:4]))

    def _get(self) -> dict[str, Any]:
        self.emulator = Emulator(build(self.text, quick=True))
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
        self.complain()
        return np.array(array)


class _FakeDevice:
    id = 0

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy

    def __enter__(self) -> None:
        self._cupy.calls.append(("device", "entered"))

    def __exit__(self, *problem: object) -> None:
        self._cupy.calls.append(("device", "left"))

    def synchronize(self) -> None:
        self._cupy.complain()


class _FakeKernel:
    ptr = 4711

    def __init__(self, cupy: FakeCupy) -> None:
        self._cupy = cupy

    def __call__(self, grid: Any, block: Any, args: Any, **options: Any) -> None:
        cupy = self._cupy
        cupy.launched.append((self, (grid, block, args), options))
        if cupy.failing == len(cupy.launched) - 1 and not cupy.sticky:
            raise cupy.problem
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


@pytest.fixture(scope="module", params=["waves", "events", "per-op"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    target = replace(find_target("h200"), sms=SMS)
    output: Path = tmp_path_factory.mktemp("cuda") / "net.cu"
    model = MODELS["lstm_cell"]()
    return ramforge.compile(model, target=target, output=output, schedule=request.param)


def planned_of(artifact: Artifact) -> list[dict[str, Any]]:
    return list(artifact.manifest["schedule"]["launches"])


@pytest.fixture
def cupy(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    fake = FakeCupy(artifact, blocks_per_sm=PER_SM)
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
    launches = [what for kind, what in cupy.calls if kind == "launch"]
    planned = planned_of(artifact)
    kernels = {what for kind, what in cupy.calls if kind == "function"}
    assert kernels == {plan["kernel"] for plan in planned}
    assert [number for _, _, number, _ in launches] == list(range(len(planned)))
    for (grid, block, _, options), plan in zip(launches, planned, strict=True):
        assert grid == (min(plan["lanes"], PER_SM * SMS),)
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
    grids = {what[0] for kind, what in fake.calls if kind == "launch"}
    assert grids == {(min(SMS, plan["lanes"]),) for plan in planned_of(artifact)}


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


def test_a_second_stream_waits_for_the_run_on_the_first(artifact: Artifact, cupy: FakeCupy) -> None:
    inputs = arrays.made_up(artifact.inputs, seed=1)
    with ramforge.Session(artifact, "cuda") as session:
        session.run(None, inputs)
        session.run(None, inputs)
        assert not [what for kind, what in cupy.calls if kind == "wait"]
        cupy.stream = FakeStream(cupy, 7)
        session.run(None, inputs)
        assert [what for kind, what in cupy.calls if kind == "wait"] == [(7, "all of stream 0")]
        cupy.stream = FakeStream(cupy, 8, capturing=True)  # it runs when it is replayed
        session.run(None, inputs)
        cupy.stream = FakeStream(cupy, 0)
        session.run(None, inputs)
    waits = [what for kind, what in cupy.calls if kind == "wait"]
    assert waits == [(7, "all of stream 0"), (0, "all of stream 7")]


def test_a_new_session_is_ready_before_any_other_stream_may_run_it(
    artifact: Artifact, cupy: FakeCupy
) -> None:
    with ramforge.Session(artifact, "cuda"):
        assert cupy.calls[-1] == ("synchronize", 0)


def test_launches_that_are_replayed_with_the_same_arguments_give_the_same_again(
    artifact: Artifact, cupy: FakeCupy
) -> None:
    """What a captured graph does: no work of the host between the runs."""
    inputs = arrays.made_up(artifact.inputs, seed=1)
    with ramforge.Session(artifact, "cuda") as session:
        expected = session.run(None, inputs)
        recorded = list(cupy.launched)
        table = recorded[0][1][2][0]["base"][0]
        for settings in range(1, 5):
            for base in [table[0], *table[2 + len(inputs) :]]:
                cupy.arrays[int(base)].fill(settings)  # workspace and outputs
            for kernel, arguments, options in recorded:
                kernel(*arguments, **options)
            found = [cupy.arrays[int(base)] for base in table[2 + len(inputs) :]]
            for one, other in zip(found, expected, strict=True):
                assert one.tobytes() == other.tobytes()


def test_an_address_that_no_copy_of_16_bytes_can_begin_at_is_refused(
    artifact: Artifact, cupy: FakeCupy
) -> None:
    driver = cuda.CudaDriver(artifact)
    made = arrays.made_up(artifact.inputs, seed=1)
    given = [cupy.asarray(array) for array in made.values()]
    taken = [cupy.empty(port.shape, port.dtype) for port in artifact.outputs]
    odd = cupy.empty(given[0].nbytes + 16, "uint8")
    offset = (4 - odd.ctypes.data) % 16  # as a part of an array may lie
    given[0] = odd[offset : offset + given[0].nbytes]
    with pytest.raises(DeviceError, match="multiple of 16 bytes"):
        driver.launch(given, taken)


@pytest.mark.parametrize("problem", [RuntimeError("TOO_LARGE"), KeyboardInterrupt()])
def test_after_a_run_that_failed_between_launches_the_next_is_right(
    problem: BaseException, artifact: Artifact, cupy: FakeCupy
) -> None:
    inputs = arrays.made_up(artifact.inputs, seed=1)
    launches = len(planned_of(artifact))
    cupy.problem = problem
    with ramforge.Session(artifact, "cuda") as session:
        expected = session.run(None, inputs)
        for failing in {0, launches // 2, launches - 1}:
            cupy.failing = len(cupy.launched) + failing
            if isinstance(problem, Exception):
                with pytest.raises(DeviceError, match=r"the run failed: TOO_LARGE\n    fix: "):
                    session.run(None, inputs)
            else:
                with pytest.raises(KeyboardInterrupt):
                    session.run(None, inputs)
            # launches of it that did start have counted
            assert not session._driver._control.any()  # type: ignore[union-attr]
            for _ in range(2):
                for one, other in zip(session.run(None, inputs), expected, strict=True):
                    assert one.tobytes() == other.tobytes()


def test_after_a_trap_the_session_is_dead_and_says_so(artifact: Artifact, cupy: FakeCupy) -> None:
    inputs = arrays.made_up(artifact.inputs, seed=1)
    cupy.sticky, cupy.failing = True, 0
    with ramforge.Session(artifact, "cuda") as session:
        for _ in range(3):
            launched = len(cupy.launched)
            with pytest.raises(
                DeviceError, match=r"session is dead.*ILLEGAL_ADDRESS\n    fix: open"
            ):
                session.run(None, inputs)
        assert len(cupy.launched) == launched


def test_a_wait_that_is_given_up_is_told_in_a_debug_build(
    artifact: Artifact, cupy: FakeCupy
) -> None:
    inputs = arrays.made_up(artifact.inputs, seed=1)
    cupy.text = debug.text_of(cupy.text, True)
    with ramforge.Session(artifact, "cuda", debug=True) as session:
        expected = session.run(None, inputs)
        control = session._driver._control  # type: ignore[union-attr]
        if control.size == HEADER:
            pytest.skip("no launch of this schedule waits for anything")
        control[HEADER:] -= 1  # nothing will be full
        with pytest.raises(DeviceError, match=r"gave up a wait in launch 0: vEU \d+"):
            session.run(None, inputs)
        for one, other in zip(session.run(None, inputs), expected, strict=True):
            assert one.tobytes() == other.tobytes()


def test_a_release_build_does_not_read_the_control_block(
    artifact: Artifact, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    plain = cupy.asnumpy
    with ramforge.Session(artifact, "cuda") as session:
        monkeypatch.setattr(cupy, "asnumpy", lambda array: read.append(array.size) or plain(array))
        session.run(None, arrays.made_up(artifact.inputs, seed=1))
    assert len(read) == len(artifact.outputs)


def test_a_device_without_cooperative_launches_is_refused(
    artifact: Artifact, cupy: FakeCupy
) -> None:
    cupy.properties["cooperativeLaunch"] = 0
    with pytest.raises(DeviceError, match="takes no cooperative launches\n    fix: "):
        ramforge.Session(artifact, "cuda")


def log_of(kernel: str, registers: int, spills: int) -> str:
    return (
        f"ptxas info    : Compiling entry function '{kernel}' for 'sm_90a'\n"
        f"    0 bytes stack frame, {spills} bytes spill stores, 0 bytes spill loads\n"
        f"ptxas info    : Used {registers} registers, used 1 barriers\n"
    )


@pytest.mark.parametrize(
    ("change", "spills", "said"),
    [(0, 0, ""), (1, 0, "rf_kernel_0 takes"), (0, 144, ""), (0, 148, "a_body spills 148 bytes")],
)
def test_what_the_assembler_made_is_held_against_the_plan(
    change: int,
    spills: int,
    said: str,
    artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    launch = next(row for row in planned_of(artifact) if row["kernel"] == "rf_kernel_0")
    most = 65536 // (launch["threads"] * launch["blocks_per_sm"]) // 8 * 8
    log = log_of("rf_kernel_0", most + change, spills)
    log += "ptxas info    : Function properties for a_body\n"
    log += f"    0 bytes stack frame, {spills} bytes spill stores, 0 bytes spill loads\n"
    monkeypatch.setattr(cuda.device, "compile_cubin", lambda text, arch: Cubin(b"code", log))
    monkeypatch.setattr(cubin, "usage", lambda built: cubin.resource_usage(built.log))
    assert cuda.build_cubin(artifact, "sm_90a") == b"code"
    assert (said in caplog.text) if said else not caplog.text


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
    monkeypatch.setattr(sys.modules[__name__], "SHARED_BYTES", 256)
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy(artifact, blocks_per_sm=1))
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    with pytest.raises(DeviceError, match="bytes of shared memory, there are 256"):
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


def test_nvcc_builds_where_nvrtc_does_not_load(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> tuple[int, int]:
        raise ToolchainError("libnvrtc.so.12 does not load")

    monkeypatch.setattr(nvrtc, "version", broken)
    monkeypatch.setattr(toolchain, "find_nvcc", lambda: toolchain.Nvcc("nvcc", "13.0"))
    monkeypatch.setattr(nvcc, "compile_cubin", lambda text, arch: Cubin(arch.encode(), ""))
    monkeypatch.setattr(cubin, "usage", lambda built: {})
    assert cuda.build_cubin(artifact, "sm_80") == b"sm_80"
    monkeypatch.setattr(toolchain, "find_nvcc", lambda: None)
    with pytest.raises(ToolchainError, match="does not load"):
        cuda.build_cubin(artifact, "sm_80")
