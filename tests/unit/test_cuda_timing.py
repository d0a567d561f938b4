"""How the CUDA driver takes the time of launches, seen from a stand-in for cupy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_cuda_driver import PER_SM, SMS, FakeCupy, FakeStream

import ramforge
from ramforge.codegen.artifact import Artifact
from ramforge.compiler.device import find_target
from ramforge.compiler.errors import DeviceError
from ramforge.runtime import arrays
from ramforge.runtime.drivers import cuda
from ramforge.zoo import MODELS

Held = Callable[[Any], bool]


class TimedStream(FakeStream):
    """A stream that remembers what holds it, and whether that was let go by the time of the
    next.
    """

    def __init__(self, cupy: FakeCupy) -> None:
        super().__init__(cupy, 0)
        self.holds: list[Held] = []

    def launch_host_func(self, held: Held, argument: Any) -> None:
        assert all(before(None) for before in self.holds), "the launches before are held still"
        self.holds.append(held)
        self._cupy.calls.append(("hold", len(self.holds)))


class TimedCupy(FakeCupy):
    """Every event tells its number; between two of them lies a millisecond for each call."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact, PER_SM)
        self.stream = self.timed = TimedStream(self)
        self.cuda.Event = lambda: _Event(self)
        self.cuda.get_elapsed_time = lambda start, end: float(end.at - start.at)


class _Event:
    at = -1

    def __init__(self, cupy: TimedCupy) -> None:
        self._cupy = cupy

    def record(self, stream: Any) -> None:
        assert stream is self._cupy.stream
        self.at = len(self._cupy.calls)
        self._cupy.calls.append(("event", self.at))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    target = replace(find_target("h200"), sms=SMS)
    output: Path = tmp_path_factory.mktemp("timing") / "net.cu"
    return ramforge.compile(MODELS["lstm_cell"](), target=target, output=output, schedule="per-op")


@pytest.fixture
def cupy(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> TimedCupy:
    fake = TimedCupy(artifact)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "_MOST_HELD_S", 0.0)
    monkeypatch.setattr(cuda, "_TOGETHER", 2)
    return fake


def test_every_launch_stands_between_two_events_and_nothing_else_does(
    artifact: Artifact, cupy: TimedCupy
) -> None:
    driver = cuda.CudaDriver(artifact)
    cupy.calls.clear()
    times = driver.launch_ns(list(arrays.made_up(artifact.inputs, seed=1).values()))
    launches = len(artifact.manifest["schedule"]["launches"])
    assert launches > 2
    assert times == [2e6] * launches  # the event before, and the launch
    kinds = [kind for kind, _ in cupy.calls if kind in ("event", "launch", "hold")]
    expected = []
    for number in range(launches):
        expected += ["hold"] * (number % 2 == 0) + ["event", "launch", "event"]
    assert kinds == expected
    assert all(held(None) for held in cupy.timed.holds), "the stream is held for good"


def test_a_run_takes_no_times(artifact: Artifact, cupy: TimedCupy) -> None:
    driver = cuda.CudaDriver(artifact)
    driver.run(list(arrays.made_up(artifact.inputs, seed=1).values()))
    assert not {"event", "hold"} & {kind for kind, _ in cupy.calls}


def test_a_launch_that_fails_leaves_the_stream_free(artifact: Artifact, cupy: TimedCupy) -> None:
    driver = cuda.CudaDriver(artifact)
    cupy.failing = 1
    with pytest.raises(DeviceError, match="CUDA_ERROR_LAUNCH_FAILED"):
        driver.launch_ns(list(arrays.made_up(artifact.inputs, seed=1).values()))
    assert cupy.timed.holds and all(held(None) for held in cupy.timed.holds)


def test_tuning_asks_the_driver_of_the_target(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ramforge.runtime import tune

    opened: list[str] = []
    fake = SimpleNamespace(launch_ns=lambda inputs: [1.0], close=lambda: opened.append("closed"))
    monkeypatch.setattr(tune.cuda, "CudaDriver", lambda *_: opened.append("cuda") or fake)
    monkeypatch.setattr(tune.host, "HostDriver", lambda *_: opened.append("host") or fake)
    for name in ("h200", "host:1"):
        tune.launch_ns(artifact, find_target(name), tune.Budget.of(0))
    assert opened == ["cuda", "closed", "host", "closed"]
