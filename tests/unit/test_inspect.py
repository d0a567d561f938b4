"""What ``ramforge inspect`` says, against the model itself and against what compile makes of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnx.helper
import pytest
from click.testing import CliRunner

import ramforge
from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import linked, toolchain
from ramforge.compiler.errors import UnsupportedModel
from ramforge.runtime import cli
from ramforge.zoo import MODELS

NAME = "resnet_small"
needs_linker = pytest.mark.skipif(bool(linked.obstacle()), reason=linked.obstacle())
WIDTH = 120


class _Script:
    """The script as click's runner wants it: errors become exit codes in ``run_command``."""

    name = "ramforge"

    def main(self, args: list[str], prog_name: str, **extra: object) -> None:
        raise SystemExit(cli.run_command(cli.commands, args, "ramforge"))


def inspect(*arguments: str | Path) -> tuple[int, str, str]:
    """The exit code, stdout and stderr."""
    found = CliRunner().invoke(_Script(), ["inspect", *map(str, arguments)])
    assert "Traceback" not in found.stderr
    return found.exit_code, found.stdout, found.stderr


def document(*arguments: str | Path) -> dict[str, Any]:
    code, out, said = inspect(*arguments, "--json")
    assert code == 0, said
    found = json.loads(out)
    assert isinstance(found, dict) and found["format"] == 1
    return found


def mysterious() -> onnx.ModelProto:
    """Two nodes that nobody knows, and one that is fine."""
    nodes = [
        onnx.helper.make_node("Mystery", ["x"], ["a"], "first", domain="nowhere"),
        onnx.helper.make_node("Relu", ["a"], ["b"], "fine"),
        onnx.helper.make_node("Mystery", ["b"], ["y"], "second", domain="nowhere"),
    ]
    info = [onnx.helper.make_tensor_value_info(n, 1, [2, 3]) for n in "xy"]
    graph = onnx.helper.make_graph(nodes, "g", info[:1], info[1:])
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("nowhere", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("model") / "net.onnx"
    onnx.save(MODELS[NAME](), path)
    return path


@pytest.fixture(scope="module")
def artifact(model: Path) -> Artifact:
    return ramforge.compile(model, output=model.with_suffix(".cu"))


@pytest.fixture(scope="module")
def found(model: Path) -> dict[str, Any]:
    return document(model)


def test_operators_are_counted_as_the_model_has_them(found: dict[str, Any]) -> None:
    expected = Counter(node.op_type for node in MODELS[NAME]().graph.node)
    assert {row["operator"]: row["nodes"] for row in found["operators"]} == dict(expected)
    assert not any(row["unsupported"] for row in found["operators"]) and not found["problems"]


def test_it_foretells_what_compile_makes(found: dict[str, Any], artifact: Artifact) -> None:
    manifest = artifact.manifest
    made = manifest["schedule"]
    chosen = next(row for row in found["schedules"] if row["policy"] == found["schedule"])
    assert chosen["policy"] == made["policy"]
    names = ("predicted_us", "rtasks", "waves", "events", "waits")
    assert [chosen[name] for name in names] == [made[name] for name in names]
    assert chosen["launches"] == len(made["launches"])
    assert found["memory"]["workspace_bytes"] == manifest["memory"]["workspace_bytes"]
    bodies = Counter(row["body"] for row in manifest["roperators"])
    assert {row["name"]: row["roperators"] for row in found["kernels"]} == bodies
    assert found["inputs"] == manifest["inputs"] and found["outputs"] == manifest["outputs"]
    (launch,) = found["launches"]
    assert launch["veus"] == made["launches"][0]["lanes"]
    assert launch["arena_bytes"] == made["launches"][0]["arena_bytes"]
    assert launch["veus"] == 132 * launch["blocks_per_sm"]
    threads = launch["threads"] * launch["blocks_per_sm"]
    assert launch["register_cap"] * threads <= 65536 < (launch["register_cap"] + 8) * threads


def test_auto_is_the_best_of_all_schedules_and_a_named_one_is_kept(
    found: dict[str, Any], model: Path
) -> None:
    times = {row["policy"]: row["predicted_us"] for row in found["schedules"]}
    assert set(times) == {"waves", "events", "per-op"}
    assert times[found["schedule"]] == min(times.values())
    named = document(model, "--schedule", "per-op")
    assert named["schedule"] == "per-op" and named["schedules"] == found["schedules"]
    count = sum(row["launches"] for row in named["launches"])
    assert count == sum(row["roperators"] for row in named["kernels"])


@pytest.mark.parametrize("schedule", ["waves", "events", "per-op"])
def test_parts_add_up_to_the_whole(schedule: str, model: Path) -> None:
    found = document(model, "--schedule", schedule)
    chosen = next(row for row in found["schedules"] if row["policy"] == schedule)
    for part in ("kernels", "families", "waves"):
        assert sum(row["rtasks"] for row in found[part]) == chosen["rtasks"]
        assert sum(row["roperators"] for row in found[part]) == sum(
            row["roperators"] for row in found["kernels"]
        )
    for part in ("kernels", "families"):
        assert sum(row["share"] for row in found[part]) == pytest.approx(1, abs=0.01)
    assert len(found["waves"]) == chosen["waves"]
    for wave in found["waves"]:
        assert 0 <= wave["start_us"] < wave["end_us"] <= chosen["predicted_us"] + 1e-3
        assert 0 < wave["utilisation"] <= 1
    bounds = found["bounds"]
    assert 0 < bounds["floor_us"] < chosen["predicted_us"]
    assert len(bounds["critical_path"]) <= chosen["waves"]


def test_the_table_has_all_parts_and_fits_a_terminal(model: Path, found: dict[str, Any]) -> None:
    code, out, said = inspect(model)
    assert code == 0
    titles = ("Operators", "Inputs", "Schedules", "floor", "critical path", "Memory", "Launches")
    for title in (*titles, "Kernel families", "Kernels", "Waves"):
        assert any(line.startswith(title) for line in out.splitlines()), title
    assert max(map(len, out.splitlines())) <= WIDTH
    assert f"{found['schedule']} (chosen)" in out
    assert "scheduling" in said and "scheduling" not in out  # progress is no data


def test_quiet_says_nothing_but_the_table(model: Path) -> None:
    assert inspect(model, "-q")[2] == ""


def test_unsupported_operators_are_listed_as_compile_would_and_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    onnx.save(mysterious(), path)
    with pytest.raises(UnsupportedModel) as refused:
        ramforge.compile(path, output=tmp_path / "odd.cu")
    code, out, _ = inspect(path)
    assert code == 0 and str(refused.value) in out
    rows = {tuple(line.split()) for line in out.splitlines()}
    assert ("nowhere.Mystery", "2", "no") in rows and ("Relu", "1", "yes") in rows
    told = document(path)
    assert [problem["node"] for problem in told["problems"]] == ["first", "second"]
    assert "schedules" not in told


def test_a_dimension_without_a_size_is_listed_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "mlp.onnx"
    onnx.save(MODELS["mlp"](), path)
    code, out, _ = inspect(path)
    assert code == 0 and "fix: --dim batch=1" in out
    assert document(path, "--dim", "batch=3")["inputs"][0]["shape"][0] == 3


def test_another_target_is_another_device(model: Path) -> None:
    host = document(model, "--target", "host:2")
    assert host["target"]["sms"] == 2
    assert host["launches"][0]["register_cap"] is None
    assert inspect(model, "--target", "host:2")[0] == 0


@pytest.mark.parametrize(
    ("content", "arguments", "code"),
    [
        (None, (), 4),
        (b"this is not a model\n" * 10, (), 3),
        (b"", ("--target", "nonsense"), 2),
        (b"", ("--schedule", "best"), 2),
    ],
)
def test_what_cannot_be_read_fails_as_compile_does(
    content: bytes | None, arguments: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    path = tmp_path / "bad.onnx"
    if content is not None:
        path.write_bytes(content)
    found, out, said = inspect(path, *arguments)
    assert (found, out) == (code, "") and said


@pytest.mark.parametrize("by_folder", [False, True])
def test_an_artefact_says_what_its_manifest_says(by_folder: bool, artifact: Artifact) -> None:
    path = artifact.source.parent if by_folder else artifact.source
    told = document(path)
    manifest = artifact.manifest
    assert told["kind"] == "artifact" and told["schedule"] == manifest["schedule"]
    assert told["weights"] == manifest["weights"] and told["options"] == manifest["options"]
    assert told["memory"]["buffers"] == len(manifest["memory"]["buffers"])
    assert sum(row["rtasks"] for row in told["kernels"]) == manifest["schedule"]["rtasks"]
    code, out, _ = inspect(path)
    assert code == 0 and manifest["weights"]["file"] in out
    assert str(manifest["schedule"]["predicted_us"]) in out


@pytest.mark.parametrize("option", [("--target", "h200"), ("--dim", "n=1"), ("--schedule", "auto")])
def test_an_artefact_takes_no_options_of_compiling(
    option: tuple[str, str], artifact: Artifact
) -> None:
    code, out, said = inspect(artifact.source, *option)
    assert (code, out) == (2, "") and option[0] in said


def test_a_broken_artefact_is_exit_code_4(artifact: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "net.cu"
    copy.write_bytes(artifact.source.read_bytes())
    code, _, said = inspect(copy)
    assert code == 4 and "fix:" in said


@needs_linker
def test_what_is_built_is_told_of_every_kernel_and_every_body(artifact: Artifact) -> None:
    built = document(artifact.source, "--kernels")["built"]
    launches = artifact.manifest["schedule"]["launches"]
    assert built["architecture"] == artifact.manifest["target"]["architecture"]
    assert {row["name"] for row in built["kernels"]} == {row["kernel"] for row in launches}
    for row in built["kernels"]:
        own = [launch for launch in launches if launch["kernel"] == row["name"]]
        assert row["shared_bytes"] == max(launch["arena_bytes"] for launch in own)
        assert 0 < row["registers"] <= row["register_cap"] and row["code_bytes"] > 0
    arenas = {row["body"]: row["arena_bytes"] for row in artifact.manifest["roperators"]}
    assert {row["name"]: row["shared_bytes"] for row in built["bodies"]} == arenas
    assert any(arenas.values())
    (cap,) = {row["register_cap"] for row in built["kernels"]}
    assert {row["form"] for row in built["bodies"]} == {f"r{cap}"}
    assert all(0 < row["registers"] <= cap for row in built["bodies"])
    if toolchain.find_nvdisasm():
        assert all(0 <= row["math_share"] < 1 for row in built["bodies"])
        assert max(row["math_share"] for row in built["bodies"]) > 0.3
        assert not any(row["stack_accesses_in_loops"] for row in built["bodies"])


@needs_linker
def test_bodies_are_told_of_in_one_file_too(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linked, "obstacle", lambda: "no linker")
    rows = document(artifact.source, "--kernels")["built"]["bodies"]
    assert {row["name"] for row in rows} == {r["body"] for r in artifact.manifest["roperators"]}
    assert {(row["form"], row["registers"]) for row in rows} == {("rf_kernel_0", None)}
    assert all(row["code_bytes"] > 0 for row in rows)


@needs_linker
def test_what_is_built_has_tables_for_a_model_too(model: Path, artifact: Artifact) -> None:
    code, out, said = inspect(model, "--kernels")
    assert code == 0, said
    lines = out.splitlines()
    assert "Kernels, built for sm_90a" in lines and max(map(len, lines)) <= WIDTH
    bodies = lines[next(at for at, line in enumerate(lines) if line.startswith("Bodies")) + 2 :]
    assert {line.split()[0] for line in bodies} == {
        row["body"] for row in artifact.manifest["roperators"]
    }


def test_the_host_has_no_registers_to_tell_of(model: Path) -> None:
    code, out, said = inspect(model, "--kernels", "--target", "host:2")
    assert (code, out) == (4, "") and "--target h200" in said
