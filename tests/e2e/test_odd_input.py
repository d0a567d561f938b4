"""What people do that nobody planned for: odd names and sizes, damaged files, sessions misused."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import TensorProto, helper

import ramforge
from ramforge.codegen import artifact as artifacts
from ramforge.codegen.artifact import Artifact
from ramforge.runtime import arrays, cli
from ramforge.zoo import MODELS

README = Path(__file__).parents[2] / "README.md"


def command(*arguments: str | Path) -> tuple[int, str, str]:
    """The exit code of ``ramforge ...``, its stdout and its stderr."""
    done = CliRunner().invoke(_Script(), [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


class _Script:
    name = "ramforge"

    def main(self, args: list[str], prog_name: str, **extra: object) -> None:
        raise SystemExit(cli.run_command(cli.commands, args, "ramforge"))


def relu(shape: list[int | str], name: str = "x") -> onnx.ModelProto:
    made = f"{name}_made"
    ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, shape) for port in (name, made)]
    node = helper.make_node("Relu", [name], [made], name)
    graph = helper.make_graph([node], "g", ports[:1], ports[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("odd")
    return ramforge.compile(relu([2, 3], "file"), output=folder / "out.cu")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A run of it takes long enough to do something else meanwhile."""
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1024, 1024]) for n in "xy"]
    nodes = [helper.make_node("MatMul", ["x", "x"], ["a"])]
    nodes += [helper.make_node("MatMul", ["a", "x"], ["b"])]
    nodes += [helper.make_node("MatMul", ["b", "x"], ["y"])]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ramforge.compile(model, output=tmp_path_factory.mktemp("slow") / "out.cu")


@pytest.mark.parametrize("shape", [[2**40, 3], [2**62, 2**20], [2**20, 2**20]])
def test_a_tensor_that_no_device_holds_is_a_problem_of_the_model(shape: list[int | str]) -> None:
    with pytest.raises(ramforge.UnsupportedModel, match="64 GiB in all") as caught:
        ramforge.compile(relu(shape))
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--dim", "batch=²"), 2, "not of the form"),
        (("--dim", "batch=1", "--dim", "batch=2"), 2, "given twice"),
        (("--dim", "batch=99999999999999999999"), 3, "a whole number from 0 to"),
        (("--shapes", "x:99999999999999999999x3"), 3, "a whole number from 0 to"),
        (("--dim", "depth=1"), 3, "fix: give --shapes and --dim for these inputs: 'x' (batch, 3)"),
    ],
)
def test_odd_sizes_are_refused(
    arguments: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    onnx.save(relu(["batch", 3]), tmp_path / "m.onnx")
    found, _, text = command("compile", tmp_path / "m.onnx", *arguments)
    assert found == code
    assert said in text


def test_a_fix_can_be_pasted_into_a_shell(compiled: Artifact) -> None:
    with pytest.raises(ramforge.UnsupportedModel) as unnamed:
        ramforge.compile(relu(["seq len", 3]))
    assert "--dim 'seq len=1'" in str(unnamed.value)
    artifact = Artifact(
        compiled.source, {**compiled.manifest, "inputs": [dict(PORT, name="a b", shape=[2, 3])]}
    )
    with ramforge.Session(artifact, "host") as session, pytest.raises(ramforge.ShapeError) as wrong:
        session.run(None, {"a b": np.ones((2, 4), np.float32)})
    assert "--shapes 'a b:2x4'" in str(wrong.value)


PORT = {"dtype": "float32"}


def test_sizes_may_be_numpy_integers(tmp_path: Path) -> None:
    size = np.int64(2)
    made = ramforge.compile(
        relu(["batch", 3]),
        dims={"batch": size},  # type: ignore[dict-item]
        shapes={"x": tuple(np.array([2, 3]))},
        output=tmp_path / "out.cu",
    )
    assert ramforge.load(made).inputs[0].shape == (2, 3)


@pytest.mark.parametrize("output", ["", "folder", "two\nlines.cu", "\udcff.cu"])
def test_odd_output_names_are_path_errors(output: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    name = str(tmp_path / output) if output else ""
    with pytest.raises(ramforge.ArtifactError, match="fix:"):
        ramforge.compile(relu([2, 3]), output=name)
    assert not any(tmp_path.glob("*.*"))


def test_the_build_lines_of_a_file_with_spaces_work(tmp_path: Path) -> None:
    made = ramforge.compile(relu([2, 3]), output=tmp_path / "it's a file.cu")
    (line,) = re.findall(r"^// build for the GPU +(.*)$", made.text(), re.MULTILINE)
    assert shlex.split(line)[-3:] == ["it's a file.cu", "-o", "it's a file"]
    (line,) = re.findall(r"^// then run +(.*)$", made.text(), re.MULTILINE)
    assert shlex.split(line) == ["./it's a file", "--weights", "it's a file.safetensors"]


def test_an_artifact_prints_in_one_line(compiled: Artifact) -> None:
    assert repr(compiled) == f"Artifact(source={compiled.source!r})"


def test_what_is_not_an_artifact_is_said_to_be_none(compiled: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ramforge.ArtifactError, match=r"name the \.cu file"):
        artifacts.load(compiled.source.with_suffix(".json"))
    copy = tmp_path / "out.cu"
    copy.write_text("")
    copy.with_suffix(".json").write_text('{"format": 1}')
    with pytest.raises(ramforge.ArtifactError, match=r"the manifest lacks inputs, .* weights"):
        artifacts.load(copy)


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "npy", "pickled"])
def test_damaged_inputs_are_path_errors(damage: str, compiled: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "in.npz"
    arrays.save(path, {"file": np.ones((2, 3), np.float32)})
    data = bytearray(path.read_bytes())
    if damage == "pickled":
        np.savez(path, file_=np.array([{}], dtype=object))
    elif damage == "npy":
        np.save(tmp_path / "in.npy", np.ones(3))
        path = tmp_path / "in.npy"
    else:
        data[150] ^= 255
        path.write_bytes({"empty": b"", "cut": data[:-30], "changed": data}[damage])
    code, _, said = command("run", compiled.source, "--load-inputs", path, "--device", "host")
    assert code == 4
    assert "cannot be read as an .npz file" in said


def test_outputs_are_saved_under_any_name_with_the_usual_rights(
    compiled: Artifact, tmp_path: Path
) -> None:
    for name in ("file", "allow_pickle", "a/b:c d", "arr_0"):
        arrays.save(tmp_path / "x.npz", {name: np.arange(3)})
        with np.load(tmp_path / "x.npz") as saved:
            assert saved[name].tolist() == [0, 1, 2]
        assert arrays.load(tmp_path / "x.npz")[name].tolist() == [0, 1, 2]
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "x.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_where_outputs_cannot_go_is_found_before_the_run(
    compiled: Artifact, tmp_path: Path
) -> None:
    for target in (tmp_path, tmp_path / "nowhere" / "x.npz"):
        code, out, said = command(
            "run", compiled.source, "--save-outputs", target, "--device", "host"
        )
        assert (code, out) == (4, "")
        assert "fix:" in said and "building" not in said


def test_names_do_not_reach_the_terminal_raw() -> None:
    table = arrays.table(["a\nb\x1b[2J"], [np.ones(2)])
    assert len(table.splitlines()) == 2
    assert "a\\nb\\x1b[2J" in table


def test_quiet_is_quiet(compiled: Artifact) -> None:
    code, out, said = command("run", "-q", compiled.source, "--device", "host")
    assert (code, said) == (0, "")
    assert "file_made" in out
    assert "not a measurement" in command("run", compiled.source, "--device", "host")[2]


@pytest.mark.parametrize("name", ["doctor", "targets", "compile", "run"])
def test_every_command_has_a_version(name: str) -> None:
    assert command(name, "--version")[:2] == (0, f"ramforge, version {ramforge.__version__}\n")


def test_verbose_shows_the_traceback_of_a_bug(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("ramforge.runtime.api.compile", broken)
    log = tmp_path / "log.txt"
    code, _, said = command("compile", "m.onnx", "-v", "--log-file", log)
    assert code == 1
    assert "Traceback" in said and "in broken" in said and "Traceback" in log.read_text()
    assert "Traceback" not in command("compile", "m.onnx")[2]


def test_a_cache_that_cannot_be_written_is_exit_code_4(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    onnx.save(relu([2, 3]), tmp_path / "m.onnx")
    monkeypatch.setenv("RAMFORGE_CACHE", "/dev/null")
    code, _, said = command("compile", tmp_path / "m.onnx")
    assert code == 4
    assert "RAMFORGE_CACHE" in said and "bug" not in said


def test_closed_streams_do_not_matter(tmp_path: Path) -> None:
    onnx.save(relu([2, 3]), tmp_path / "m.onnx")
    line = f"exec {shlex.quote(sys.executable)} -m ramforge.runtime.cli compile m.onnx"

    def compiled(number: int, closed: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-c", f"{line} -o out{number}.cu {closed}"],
            cwd=tmp_path,
            capture_output=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )

    ways = ("<&-", ">&-", "2>&-", "2>/dev/full")
    with ThreadPoolExecutor() as pool:
        for number, done in enumerate(pool.map(compiled, range(len(ways)), ways)):
            assert done.returncode == 0, (ways[number], done.stderr)
            assert (tmp_path / f"out{number}.cu").exists(), ways[number]


def test_outputs_are_a_list(compiled: Artifact) -> None:
    with ramforge.Session(compiled, "host") as session:
        given = {"file": np.ones((2, 3), np.float32)}
        with pytest.raises(ramforge.ShapeError, match=r"give a list: \['file_made'\]"):
            session.run("file_made", given)


def _busy(session: ramforge.Session, x: NDArray[np.float32], ended: list[str]) -> None:
    try:
        while True:
            session.run(None, {"x": x})
    except ramforge.DeviceError as error:
        ended.append(str(error))


def test_close_waits_for_the_run_in_flight(slow: Artifact) -> None:
    x = np.ones((1024, 1024), np.float32)
    for _ in range(3):
        session = ramforge.Session(slow, "host")
        ended: list[str] = []
        thread = threading.Thread(target=_busy, args=(session, x, ended))
        thread.start()
        time.sleep(0.05)
        session.close()
        thread.join()
        assert len(ended) == 1


def test_a_session_does_not_cross_a_fork(compiled: Artifact) -> None:
    code = """
import os, sys, numpy, ramforge
session = ramforge.Session(sys.argv[1], "host:2")
given = {"file": numpy.ones((2, 3), numpy.float32)}
session.run(None, given)
child = os.fork()
if child == 0:
    try:
        session.run(None, given)
    except ramforge.DeviceError as error:
        os._exit(7 if "fork" in str(error) else 8)
    os._exit(9)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, compiled.source], timeout=60)
    assert done.returncode == 7


def test_the_readme_shows_what_is_emitted(tmp_path: Path) -> None:
    models = {name: MODELS[name]() for name in ("encoder_small", "resnet_small")}
    made = [ramforge.compile(m, output=tmp_path / f"{n}.cu") for n, m in models.items()]
    emitted = "\n".join(artifact.text() for artifact in made)
    blocks = re.findall(r"```cuda\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for line in "\n".join(blocks).splitlines():
        # three dots stand for what is left out
        assert all(part.strip() in emitted for part in line.split("...")), line
