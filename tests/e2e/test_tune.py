"""Measurements on this machine's cores: the file that they make, and the program that it makes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import ramforge
from ramforge.compiler.cost.tuned import Measured
from ramforge.compiler.device import find_target
from ramforge.compiler.frontend import import_model
from ramforge.compiler.pipeline import Program, compile_graph
from ramforge.compiler.rprogram import Candidate
from ramforge.runtime import arrays, cli, gpu_cases, tune, verify
from ramforge.runtime.drivers import host

pytestmark = pytest.mark.usefixtures("quick_host")
TARGET = f"host:{min(2, host.cores())}"
MOST_OPTIONS = 4


def model() -> onnx.ModelProto:
    """Three products with different ends, and a softmax: small, for there are few tiles to try."""
    return gpu_cases.model_of(
        "g (float[40, 16] x) => (float[40, 8] y) {"
        "  a = MatMul(x, w) b = Relu(a) c = MatMul(b, v) d = Tanh(c)"
        "  e = MatMul(d, u) y = Softmax(e) }",
        w=(16, 16),
        v=(16, 16),
        u=(16, 8),
    )


def compile_command(*arguments: str | Path) -> int:
    return cli.run_command(cli.compile_command, [str(each) for each in arguments], "compile")


def rows_of(file: Path) -> dict[str, Measured]:
    return {row.name: row for row in tune.tuning_file.read(file, find_target(TARGET)).bodies}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was compiled with --tune."""
    folder = tmp_path_factory.mktemp("tune")
    onnx.save(model(), folder / "model.onnx")
    file = folder / "tuning.json"
    arguments = (folder / "model.onnx", "-o", folder / "tuned.cu", "--target", TARGET)
    assert compile_command(*arguments, "--tune", file) == 0
    return folder


@pytest.fixture
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[Measured]:
        raise AssertionError("something is measured")

    monkeypatch.setattr(tune, "measure", refuse)


def names_by_hand() -> set[str]:
    """The bodies of all programs with one launch for each rOperator."""
    target, graph, names = find_target(TARGET), import_model(model(), shapes={}, dims={}), set()
    for number in range(MOST_OPTIONS + 1):

        def only(candidates: Sequence[Candidate], number: int = number) -> tuple[Candidate, ...]:
            assert len(candidates) <= MOST_OPTIONS
            return (candidates[number % len(candidates)],)

        program = compile_graph(graph, target, "per-op", offer=only)
        names |= {operator.variant.body.name for operator in program.operators}
    return names


def test_the_file_has_every_body_that_the_model_could_use(folder: Path) -> None:
    names = names_by_hand()
    assert len(names) > 4
    assert rows_of(folder / "tuning.json").keys() == names


def test_every_time_is_one(folder: Path) -> None:
    for row in rows_of(folder / "tuning.json").values():
        assert 0 < row.task_ns < 1e9 and math.isfinite(row.task_ns)
        assert 1 <= row.units <= find_target(TARGET).sms and row.blocks_per_sm == 1


def test_the_program_is_right_and_says_by_which_file_it_was_made(folder: Path) -> None:
    artifact = ramforge.load(folder / "tuned.cu")
    digest = hashlib.sha256((folder / "tuning.json").read_bytes()).hexdigest()
    assert artifact.manifest["options"]["tuning"] == digest
    plain = ramforge.compile(model(), target=TARGET, output=folder / "plain.cu")
    assert "tuning" not in plain.manifest["options"]
    inputs = arrays.made_up(artifact.inputs, seed=5)
    with ramforge.Session(artifact, TARGET) as session:
        (found,) = session.run(None, inputs)
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in model().graph.initializer}
    hidden = np.tanh(np.maximum(inputs["x"] @ weights["w"], 0) @ weights["v"]) @ weights["u"]
    power = np.exp(hidden - hidden.max(axis=1, keepdims=True))
    assert verify.difference("y", found, power / power.sum(axis=1, keepdims=True)).ok


def test_what_is_known_is_not_measured_again(folder: Path, no_measuring: None) -> None:
    file = folder / "tuning.json"
    before = file.read_bytes()
    arguments = (folder / "model.onnx", "-o", folder / "again.cu", "--target", TARGET)
    assert compile_command(*arguments, "--tune", file) == 0
    assert file.read_bytes() == before


def test_compiling_with_a_file_measures_nothing_and_gives_the_same_bytes(
    folder: Path, no_measuring: None
) -> None:
    first = [(folder / "tuned").with_suffix(end).read_bytes() for end in (".cu", ".json")]
    other = folder / "other"
    other.mkdir()
    options = ("--target", TARGET, "--tuning", folder / "tuning.json")
    assert compile_command(folder / "model.onnx", "-o", other / "tuned.cu", *options) == 0
    assert [(other / "tuned").with_suffix(end).read_bytes() for end in (".cu", ".json")] == first


def test_a_file_is_extended_by_what_it_lacks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quick(program: Program, budget: tune.Budget) -> list[Measured]:
        return tune.told(program, np.full(len(program.plan.launches), 4.2e9))

    document = json.loads((folder / "tuning.json").read_text())
    lost = [document["bodies"].pop(at)["name"] for at in (-1, 0)]
    document["sync"] = {"barrier_ns": 77.0}
    file = tmp_path / "part.json"
    file.write_text(json.dumps(document))
    kept = rows_of(file)
    monkeypatch.setattr(tune, "measure", quick)
    tune.tune(model(), find_target(TARGET), file)
    found = rows_of(file)
    assert found.keys() == kept.keys() | set(lost)
    assert {name: found[name] for name in kept} == kept
    assert all(found[name].task_ns > 1e6 for name in lost)
    assert json.loads(file.read_text())["sync"] == {"barrier_ns": 77.0}


def test_when_the_time_is_over_nothing_more_is_measured(
    tmp_path: Path, no_measuring: None, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tuning.json"
    with caplog.at_level("INFO", "ramforge"):
        tuning = tune.tune(model(), find_target(TARGET), file, seconds=0)
    assert tuning.bodies == () and rows_of(file) == {}
    assert "run again to go on" in caplog.text


def test_a_file_of_another_machine_is_left_alone(folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "tuning.json").read_text())
    document["machine"] = "another one"
    file = tmp_path / "tuning.json"
    file.write_text(json.dumps(document))
    before = file.read_bytes()
    with pytest.raises(ramforge.CompileError, match=r"'another one'.*\n    fix: "):
        tune.tune(model(), find_target(TARGET), file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--tune", "a.json", "--tuning", "a.json"), 2),
        (("--tune", "a.json", "--tune-seconds", "-1"), 2),
        (("--tuning", "missing.json"), 4),
        (("--tune", "missing/a.json"), 4),
        (("--tuning", "model.onnx"), 4),
        (("--tuning", "tuning.json", "--target", "h200"), 2),
    ],
)
def test_mistakes_have_their_exit_codes_and_write_nothing(
    arguments: tuple[str, ...], code: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    given = ("--target", TARGET, *arguments)
    assert compile_command("model.onnx", "-o", "mistake.cu", *given) == code
    assert not (folder / "mistake.cu").exists() and not (folder / "a.json").exists()


def test_a_timing_build_tells_the_time_of_each_launch_of_the_last_run(tmp_path: Path) -> None:
    target = find_target(TARGET)
    option = tune.options_of(tune.optimise(import_model(model(), shapes={}, dims={})), target)[0]
    program = option.program()
    artifact = tune.artifacts.emit(program, tmp_path / "timed.cu", {})
    text = artifact.text()
    inputs = list(arrays.made_up(artifact.inputs, seed=0).values())
    expected = host.HostDriver(artifact, target.sms).run(inputs)
    for define, is_full in ((tune.TIMING, True), (tune.TIMING + tune.EMPTY, False)):
        artifact.source.write_text(define + text)
        driver = host.HostDriver(artifact, target.sms)
        runs = [driver.launch_ns(inputs) for _ in range(3)]
        assert all(len(times) == len(program.plan.launches) for times in runs)
        assert all(time > 0 for times in runs for time in times) and runs[0] != runs[1]
        (found,) = driver.run(inputs)
        assert np.array_equal(found, expected[0]) == is_full
        driver.close()
