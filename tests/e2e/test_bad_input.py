"""What a user sees when something is wrong: one screen, a fix, the right exit code, and no stray
file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.parser
import pytest
from click.testing import CliRunner, Result

import ramforge
from ramforge.codegen.artifact import Artifact
from ramforge.runtime import cli
from ramforge.runtime.drivers import cuda
from ramforge.zoo import MODELS

ONE_SCREEN = 24


def command(*arguments: str | Path) -> tuple[int, str]:
    """The exit code of a command, and what it wrote to stderr."""
    result: Result = CliRunner().invoke(_Script(), [str(argument) for argument in arguments])
    return result.exit_code, result.stderr


class _Script:
    """The scripts as click's runner wants them: errors become exit codes in ``run_command``."""

    name = "ramforge"

    def main(self, args: list[str], prog_name: str, **extra: object) -> None:
        raise SystemExit(cli.run_command(cli.commands, args, "ramforge"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(MODELS["mlp"](), path)
    return path


def unknown_operators() -> onnx.ModelProto:
    nodes = [
        onnx.helper.make_node("Mystery", ["x"], ["a"], "first", domain="nowhere"),
        onnx.helper.make_node("Enigma", ["a"], ["y"], "second", domain="nowhere"),
    ]
    info = [onnx.helper.make_tensor_value_info(n, 1, [2, 3]) for n in "xy"]
    graph = onnx.helper.make_graph(nodes, "g", info[:1], info[1:])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("nowhere", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets)


def truncated(path: Path) -> None:
    path.write_bytes(MODELS["resnet_small"]().SerializeToString()[:-5000])


def text(path: Path) -> None:
    path.write_text("this is not a model\n" * 10)


def unknown(path: Path) -> None:
    onnx.save(unknown_operators(), path)


def without_data(path: Path) -> None:
    onnx.save(MODELS["resnet_small"](), path, save_as_external_data=True, location="weights.bin")
    (path.parent / "weights.bin").unlink()


def unresolved(path: Path) -> None:
    onnx.save(MODELS["mlp"](), path)


CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "truncated file": (truncated, ("bad.onnx", "fix:")),
    "text file": (text, ("bad.onnx", "fix:")),
    "unknown operators": (unknown, ("first", "Mystery", "second", "Enigma", "fix:")),
    "missing external data": (without_data, ("weights.bin", "fix:")),
    "unresolved dimension": (unresolved, ("batch", "--dim batch=1")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_model_is_one_message_with_a_fix_and_leaves_nothing(
    case: str, tmp_path: Path
) -> None:
    make, expected = CASES[case]
    make(tmp_path / "bad.onnx")
    before = sorted(tmp_path.iterdir())
    code, said = command("compile", tmp_path / "bad.onnx", "-o", tmp_path / "out.cu")
    assert code == 3
    assert all(part in said for part in expected), said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= ONE_SCREEN
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_model_is_a_path_error(tmp_path: Path) -> None:
    code, said = command("compile", tmp_path / "nope.onnx", "-o", tmp_path / "out.cu")
    assert code == 4
    assert "nope.onnx" in said and "fix:" in said


@pytest.mark.parametrize("output", ["nowhere/out.cu", "folder.cu", "out.txt", "/proc/out.cu"])
def test_an_unwritable_output_is_found_before_any_work(
    output: str, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder.cu").mkdir()
    before = sorted(tmp_path.iterdir())
    code, said = command("compile", model, "--dim", "batch=1", "-o", tmp_path / output)
    assert code == 4
    assert "fix:" in said and "Traceback" not in said
    assert sorted(tmp_path.iterdir()) == before


def test_a_failure_while_writing_leaves_no_file(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ramforge.codegen.artifact._put", full)
    code, said = command("compile", model, "--dim", "batch=1", "-o", tmp_path / "out.cu")
    assert code == 4
    assert "No space left" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]


@pytest.mark.parametrize(
    "arguments",
    [("--target", "nonsense"), ("--shapes", "x"), ("--dim", "batch"), ("--frobnicate",)],
)
def test_wrong_options_are_refused(arguments: tuple[str, ...], model: Path, tmp_path: Path) -> None:
    code, said = command("compile", model, *arguments, "-o", tmp_path / "out.cu")
    assert code in (2, 3)
    assert "Traceback" not in said
    assert not (tmp_path / "out.cu").exists()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    output = tmp_path_factory.mktemp("mlp") / "mlp.cu"
    return ramforge.compile(MODELS["mlp"](), dims={"batch": 2}, output=output)


def test_wrong_inputs_at_run_time_say_what_was_expected(artifact: Artifact) -> None:
    (port,) = artifact.inputs
    good = np.ones(port.shape, dtype=port.dtype)
    with ramforge.Session(artifact, "host") as session:
        with pytest.raises(ramforge.ShapeError, match=r"axis 0 must be 2"):
            session.run(None, {port.name: good[:1]})
        with pytest.raises(ramforge.ShapeError, match=r"got float64, compiled for float32"):
            session.run(None, {port.name: good.astype(np.float64)})
        with pytest.raises(ramforge.ShapeError, match=r"is missing"):
            session.run(None, {})
        with pytest.raises(ramforge.ShapeError, match=r"unknown inputs \['z'\]"):
            session.run(None, {port.name: good, "z": good})
        with pytest.raises(ramforge.ShapeError, match=r"unknown output 'q'"):
            session.run(["q"], {port.name: good})
    with pytest.raises(ramforge.DeviceError, match="closed"):
        session.run(None, {port.name: good})


def test_wrong_inputs_on_the_command_line_are_exit_code_3(
    artifact: Artifact, tmp_path: Path
) -> None:
    (port,) = artifact.inputs
    np.savez(tmp_path / "in.npz", **{port.name: np.ones((1, 1), np.float32)})
    code, said = command("run", artifact.source, "--load-inputs", tmp_path / "in.npz")
    assert code == 3
    assert "compiled for" in said


def test_a_broken_artifact_is_exit_code_4(artifact: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "mlp.cu"
    copy.write_bytes(artifact.source.read_bytes())
    assert command("run", copy)[0] == 4  # no manifest
    copy.with_suffix(".json").write_bytes(artifact.source.with_suffix(".json").read_bytes())
    assert command("run", copy)[0] == 4  # no weights
    weights = artifact.weights.read_bytes()
    copy.with_suffix(".safetensors").write_bytes(weights[: len(weights) // 2])
    code, said = command("run", copy, "--device", "host")
    assert code == 4 and "truncated" in said
    other = weights.replace(artifact.manifest["weights"]["sha256"].encode(), b"0" * 64)
    copy.with_suffix(".safetensors").write_bytes(other)
    code, said = command("run", copy, "--device", "host")
    assert code == 4 and "another program" in said


def test_a_named_device_is_never_replaced(artifact: Artifact) -> None:
    if cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    code, said = command("run", artifact.source, "--device", "cuda")
    assert code == 4
    assert "no CUDA device" in said and "--device host" in said
