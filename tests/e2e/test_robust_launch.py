"""Runs that hang, fail or never end: they are told of, and the run after them is right."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from emulated_runs import (
    HEADER,
    ORDERS,
    Fault,
    are_equal,
    emitted,
    inputs_of,
    staged,
)

import ramforge
from ramforge.codegen.artifact import Artifact
from ramforge.compiler.errors import DeviceError
from ramforge.compiler.ir import Array
from ramforge.runtime import gpu_cases
from ramforge.runtime import session as sessions
from ramforge.runtime.drivers import debug, emulated
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.drivers.host import HostDriver

pytestmark = pytest.mark.usefixtures("quick_host")
# On a core a poll beyond the first 4000 takes a millisecond
QUICK = "#define RF_SPIN_CAP 4100u\n"
MANY = Settings(blocks=3)
NEAR_WRAP = (0xFFFFFFFE, 0x7FFFFFFE)


def model() -> onnx.ModelProto:
    """Two branches that join, and more behind that: three levels for each of two launches."""
    return gpu_cases.model_of(
        "g (float[130, 12] x) => (float[130, 20] y) {"
        "  a = MatMul(x, w) s = Softmax(a)"
        "  h = MatMul(x, v) i = Sigmoid(h) t = Transpose<perm=[1, 0]>(i)"
        "  c = MatMul(s, t) d = Softmax(c)"
        "  e = MatMul(d, u) y = Softmax(e) }",
        w=(12, 16),
        v=(12, 16),
        u=(130, 20),
    )


@pytest.fixture(scope="module", params=["waves", "events"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Two launches by two kernels."""
    program = staged(model(), request.param, blocks=(2, 1))
    assert len(program.plan.launches) == 2
    assert all(launch.events.counters for launch in program.plan.launches)
    return emitted(program, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def inputs(artifact: Artifact) -> list[Array]:
    return inputs_of(artifact)


@pytest.fixture(scope="module")
def watched(artifact: Artifact) -> EmulatedDriver:
    """A debug build in the emulator."""
    return EmulatedDriver(artifact, debug=True, quick=True)


@pytest.fixture
def host(artifact: Artifact) -> Iterator[HostDriver]:
    driver = HostDriver(artifact, 3)
    yield driver
    driver.close()


def quick(artifact: Artifact, folder: Path, *edits: Fault) -> Artifact:
    """The same artefact elsewhere, with faults, and less patience in a debug build."""
    text = artifact.text()
    for edit in edits:
        text = edit(text)
    for path in (artifact.weights, artifact.source.with_suffix(".json")):
        shutil.copy(path, folder)
    source = folder / artifact.source.name
    source.write_text(QUICK + text)
    return Artifact(source, artifact.manifest)


def control_of(driver: Any, words: int) -> Array:
    """The control block of a host session: the first thing that its handle points to."""
    address = ctypes.cast(driver._session, ctypes.POINTER(ctypes.c_void_p))[0]
    assert address
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_uint32)), (words,))


def words_of(artifact: Artifact) -> int:
    return int(artifact.manifest["schedule"]["control_words"])


# Epochs.


def after(control: Array, epoch: int, full: Array) -> None:
    """Bring a control block to where so many runs have left it."""
    control[0] = epoch
    control[HEADER:] = (full * np.uint64(epoch)) & np.uint64(0xFFFFFFFF)


@pytest.mark.parametrize("epoch", NEAR_WRAP)
def test_counters_go_on_across_their_wrap(
    epoch: int, artifact: Artifact, inputs: list[Array]
) -> None:
    driver = EmulatedDriver(artifact, quick=True)
    expected = driver.run(inputs)
    full = driver.control[HEADER:].astype(np.uint64)  # what one run adds to each counter
    assert driver.control[0] == 1 and (full > 0).all() and not driver.control[1:HEADER].any()
    after(driver.control, epoch, full)
    for settings in (*ORDERS[:3], MANY):
        driver.settings = settings
        assert are_equal(driver.run(inputs), expected)
    assert driver.control[0] == (epoch + 4) & 0xFFFFFFFF
    assert (driver.control[HEADER:] == (full * np.uint64(epoch + 4)) & np.uint64(0xFFFFFFFF)).all()


@pytest.mark.parametrize("epoch", NEAR_WRAP)
def test_counters_of_the_host_go_on_across_their_wrap(
    epoch: int, artifact: Artifact, inputs: list[Array], host: HostDriver
) -> None:
    control = control_of(host, words_of(artifact))
    expected = host.run(inputs)
    full = control[HEADER:].astype(np.uint64)
    assert control[0] == 1 and (full > 0).all()
    after(control, epoch, full)
    for _ in range(4):
        assert are_equal(host.run(inputs), expected)
    assert control[0] == (epoch + 4) & 0xFFFFFFFF


def test_runs_of_the_host_are_told_apart_across_the_wrap_of_their_number(
    artifact: Artifact, inputs: list[Array], host: HostDriver, tmp_path: Path
) -> None:
    place = "  session->workspace = rf_aligned(RF_WORKSPACE_BYTES);\n"
    started = "  session->started = 0xfffffffeu;\n"
    met = "  session->meetings = 0xfffffffeu * RF_LAUNCHES * (unsigned)session->count;\n"
    late = quick(
        artifact,
        tmp_path,
        Fault(place, place + started + met),
        Fault("for (unsigned run = 0;; ++run)", "for (unsigned run = 0xfffffffeu;; ++run)"),
    )
    driver = HostDriver(late, 3)
    expected = host.run(inputs)
    for _ in range(6):
        assert are_equal(driver.run(inputs), expected)
    driver.close()


def test_many_runs_in_a_row_stay_right(
    artifact: Artifact, inputs: list[Array], host: HostDriver
) -> None:
    expected = host.run(inputs)
    for _ in range(300):
        assert are_equal(host.run(inputs), expected)
    driver = EmulatedDriver(artifact, quick=True)
    driver.settings = MANY
    first = driver.run(inputs)
    for seed in range(12):
        driver.settings = replace(ORDERS[2], seed=seed)
        assert are_equal(driver.run(inputs), first)
    assert driver.control[0] == 13


def test_the_same_launches_again_and_again_need_no_work_of_the_host(
    artifact: Artifact, inputs: list[Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that is replayed: the arguments are those of the first time."""
    driver = EmulatedDriver(artifact, quick=True)
    recorded: list[tuple[Any, dict[str, Any]]] = []
    launch = driver._emulator.launch

    def record(*arguments: Any, **options: Any) -> Any:
        recorded.append((arguments, options))
        return launch(*arguments, **options)

    monkeypatch.setattr(driver._emulator, "launch", record)
    expected = driver.run(inputs)
    workspace, *_, output = recorded[0][1]["spaces"]
    for byte in (0, 1, 0x55):
        workspace[:], output[:] = byte, byte
        for arguments, options in recorded:
            assert launch(*arguments, **options).ok
        assert output[: expected[0].nbytes].tobytes() == expected[0].tobytes()


# Waits that see no end.


def assert_told(message: str, artifact: Artifact) -> None:
    """The report names a wait that is there, and rOperators that it has to do with."""
    found = re.match(
        r"gave up a wait in launch (\d): vEU (\d+) \(block (\d+), entry (\d+)\), about to run "
        r"(.+), waited for event (\d+) behind (.+): counter (\d+) has (\d+) of (\d+) signals\n"
        r"    fix: ",
        message,
    )
    assert found, message
    launch, lane, _, entry, event, counter, seen, wanted = (
        int(found[group]) for group in (1, 2, 3, 4, 6, 8, 9, 10)
    )
    text = artifact.text()
    entries = text[text.index("rf_entries[] =") : text.index("rf_event rf_events[]")]
    rows = re.findall(r"{RF_(\w+), ([-\d, ]+)},(?:  // \d+ of \d+ tasks of (.*))?", entries)
    events = re.findall(r"^    {(\d+), (\d+), (\d+)},$", text.split("rf_events[] =")[1], re.M)
    ranges = re.findall(r"^    {(\d+), (\d+), \d+, \d+},$", text.split("rf_launches[] =")[1], re.M)
    kind, numbers, _ = rows[entry]
    first, lanes, _, what, *_ = map(int, numbers.split(","))
    assert kind == "WAIT" and what == event and first <= lane < first + lanes
    start, size, group = map(int, events[event])
    assert start <= counter < start + -(-size // group) and group == wanted > seen
    begin, end = map(int, ranges[launch])
    assert begin <= entry < end
    own = [
        (kind, name)
        for kind, numbers, name in rows[entry:end]
        if (at := [int(n) for n in numbers.split(",")]) and at[0] <= lane < at[0] + at[1]
    ]
    assert found[5].split(" (")[0] == next(name for kind, name in own if kind == "RUN")
    signal = next(
        number
        for number in range(begin, end)
        if rows[number][0] == "SIGNAL" and int(rows[number][1].split(",")[3]) == event
    )
    assert found[7].split(" (")[0] in [name for _, _, name in rows[begin:signal] if name]


@pytest.mark.parametrize("settings", [*ORDERS[:3], MANY])
def test_a_wait_that_sees_no_end_is_given_up_and_told(
    settings: Settings, artifact: Artifact, inputs: list[Array], watched: EmulatedDriver
) -> None:
    watched.settings = settings
    watched.control[:] = 0
    expected = watched.run(inputs)
    watched.control[HEADER:] -= 1  # nothing will be full
    with pytest.raises(DeviceError) as caught:
        watched.run(inputs)
    assert_told(str(caught.value), artifact)
    assert not watched.control.any()
    assert are_equal(watched.run(inputs), expected)


CHAIN = """
g (float[40, 50] x) => (float[40, 50] y) {
  a = Softmax(x) t = Transpose<perm=[1, 0]>(a)
  b = Softmax(t) u = Transpose<perm=[1, 0]>(b)
  y = Softmax(u)
}"""


@pytest.mark.parametrize("blocks", [(1,), (2, 1)])
def test_behind_a_wait_that_was_given_up_nothing_runs(
    blocks: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither rTasks of the same launch nor the next launch, which waits for nothing."""
    program = staged(gpu_cases.model_of(CHAIN), "waves", blocks=blocks)
    artifact = emitted(program, tmp_path)
    assert len(program.plan.launches) == len(blocks) and program.plan.waves == 3
    driver = EmulatedDriver(artifact, debug=True, quick=True)
    inputs = inputs_of(artifact)
    monkeypatch.setattr(emulated, "POISON", 0x11)  # numbers, which a sum does not hand on
    for settings in (*ORDERS[:3], replace(ORDERS[2], blocks=1)):
        driver.settings = settings
        driver.control[HEADER:] = 0xFFFFFFFF
        outputs = driver.attempt(inputs)
        assert driver.report.ok, driver.report.message  # it came to its end
        assert driver.control[1] > 0 and driver.control[2] == 0
        assert debug.report_of(driver.control).launch == 0
        assert all((array.view(np.uint8) == 0x11).all() for array in outputs)
        driver.control[:] = 0


def test_the_counter_that_lacks_a_signal_is_told(
    artifact: Artifact, inputs: list[Array], watched: EmulatedDriver
) -> None:
    watched.control[:] = 0
    expected = watched.run(inputs)
    told = 0
    for counter in range(words_of(artifact) - HEADER):
        watched.settings = ORDERS[counter % 3]
        watched.control[:] = 0
        watched.control[HEADER + counter] = 0xFFFFFFFF
        try:
            outputs = watched.run(inputs)
        except DeviceError as problem:
            told += 1
            assert_told(str(problem), artifact)
            found = re.search(r"counter (\d+) has (\d+) of (\d+)", str(problem))
            assert found and int(found[1]) == counter and int(found[2]) == int(found[3]) - 1
        else:  # whoever needs this group has done it itself
            assert are_equal(outputs, expected)
    assert 2 * told > words_of(artifact) - HEADER


@pytest.mark.parametrize("threads", [1, 3])
def test_the_host_gives_up_a_wait_and_goes_on(
    threads: int, artifact: Artifact, inputs: list[Array], tmp_path: Path
) -> None:
    driver = HostDriver(quick(artifact, tmp_path), threads, debug=True)
    control = control_of(driver, words_of(artifact))
    expected = driver.run(inputs)
    for words in (slice(HEADER, None), slice(-1, None)):
        control[words] -= 1
        with pytest.raises(DeviceError) as caught:
            driver.run(inputs)
        assert_told(str(caught.value), artifact)
        assert not control.any()
        for _ in range(3):
            assert are_equal(driver.run(inputs), expected)
    driver.close()


def test_a_program_by_itself_tells_it_too(artifact: Artifact, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++ on this machine")
    signal = "  rf_advance(&control->counters[counter], amount);\n"
    last = words_of(artifact) - HEADER - 1
    silent = quick(
        artifact, tmp_path, Fault(signal, f"  if (counter != {last}) {signal.strip()}\n")
    )
    build = "g++ -x c++ -std=c++17 -O1 -march=native -fno-strict-aliasing -pthread -DRF_DEBUG"
    command = [*build.split(), silent.source.name, "-o", "out"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    ended = subprocess.run(["./out"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith("the run failed: gave up a wait in launch 1: vEU ")
    assert f"counter {last} has 0 of " in ended.stderr


def test_a_release_build_waits_on_but_ends_when_it_is_told_to(
    artifact: Artifact, inputs: list[Array]
) -> None:
    driver = EmulatedDriver(artifact, quick=True)
    expected = driver.run(inputs)
    driver.control[HEADER:] -= 1
    driver.settings = Settings(spin_seconds=1)
    with pytest.raises(DeviceError, match=r"livelock: nothing but spinning for 1 s"):
        driver.run(inputs)
    assert are_equal(driver.run(inputs), expected)
    for settings in (*ORDERS[:3], MANY):
        driver.settings = settings
        driver.control[HEADER:] -= 1
        driver.control[1] = 1
        outputs = driver.attempt(inputs)
        assert driver.report.ok, driver.report.message
        assert driver.control[1] == 1 and driver.control[2] == 0
        assert not are_equal(outputs, expected)
        driver.control[:] = 0
        assert are_equal(driver.run(inputs), expected)


@pytest.mark.parametrize("problem", [OSError("gone"), KeyboardInterrupt()])
def test_after_a_run_that_ended_between_launches_the_next_is_right(
    problem: BaseException,
    artifact: Artifact,
    inputs: list[Array],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = EmulatedDriver(artifact, quick=True)
    expected = driver.run(inputs)
    launch = driver._emulator.launch

    def fail(number: int, **options: Any) -> Any:
        if number == 1:
            raise problem
        return launch(number, **options)

    with monkeypatch.context() as patch:
        patch.setattr(driver._emulator, "launch", fail)
        with pytest.raises(type(problem)):
            driver.run(inputs)
    assert are_equal(driver.run(inputs), expected)


def test_a_debug_build_does_not_race_before_or_after_it_gives_up(
    artifact: Artifact, inputs: list[Array]
) -> None:
    driver = EmulatedDriver(artifact, race=True, debug=True, quick=True)
    driver.settings = ORDERS[2]
    driver.run(inputs)
    driver.control[HEADER:] -= 1
    driver.attempt(inputs)
    assert driver.control[1] and driver.report.ok, driver.report.race_text


# How to ask for it.


def test_a_session_is_debugged_by_argument_or_by_environment(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    plain = sessions.open_driver

    def note(artifact: Artifact, device: str, *, debug: bool = False) -> Any:
        asked.append(debug)
        return plain(artifact, device, debug=debug)

    monkeypatch.setattr(sessions, "open_driver", note)
    monkeypatch.delenv("RAMFORGE_DEBUG", raising=False)
    for value, argument in (("0", None), ("1", None), ("1", False), ("0", True)):
        monkeypatch.setenv("RAMFORGE_DEBUG", value)
        ramforge.Session(artifact, "host:1", debug=argument).close()
    assert asked == [False, True, False, True]


def test_the_words_of_the_report_are_those_of_the_struct(artifact: Artifact) -> None:
    text = artifact.text()
    body = text[text.index("struct rf_report {") : text.index("struct rf_control {")]
    declared = re.findall(r"^  (?:int|unsigned) ([\w, ]+);", body, re.M)
    names = [name for line in declared for name in line.split(", ")]
    assert tuple(names) == debug.Report._fields
    header = text[text.index("struct rf_control {") : text.index("  unsigned counters[1];")]
    (padding,) = re.findall(r"unused\[(\d+)\]", header)
    assert 5 + len(names) + int(padding) == HEADER
