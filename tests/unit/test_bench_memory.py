"""What ``bench.memory`` measures, and what it makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from ramforge.codegen import artifact as artifacts
from ramforge.compiler.errors import ArtifactError
from ramforge.compiler.frontend import import_model
from ramforge.compiler.pipeline import finish, optimise
from ramforge.compiler.schedule import SCHEDULES
from ramforge.runtime.bench import memory, memory_child
from ramforge.runtime.bench.memory import Document, Row
from ramforge.runtime.bench.memory_child import HOST, TARGETS, Binary, Workspace
from ramforge.zoo import ZOO
from ramforge.zoo.encoder import encoder

DOCS = Path(__file__).parents[2] / "docs"
MB = 1_000_000
LARGE = Binary(100 * MB, 10 * MB, 1 * MB, 120 * MB, 2 * MB)
TIGHT = Workspace(HOST, "waves", 1000, 950)
ROW = Row("resnet18", (TIGHT,), LARGE)


def test_a_program_takes_little_more_than_its_weights_and_its_workspace(tmp_path: Path) -> None:
    """Weights are mapped and not copied; arenas, tables and stacks are small beside them."""
    graph = optimise(import_model(encoder(layers=1, width=768, heads=12)))
    _, scheduled, lowered = memory_child.workspaces(graph)
    artifact = artifacts.emit(finish(scheduled, lowered), tmp_path / "net.cu", {})
    found = memory_child.binary(artifact, tmp_path)
    print(found, found.ratio)
    assert found.planned_bytes > memory.LARGE
    assert 0 < found.empty_bytes < 5 * MB
    # what it computes with has been there
    assert found.peak_bytes > 0.8 * found.planned_bytes
    assert found.ratio <= memory.MOST_PROGRAM


def test_every_policy_is_measured_on_every_target() -> None:
    graph = optimise(import_model(ZOO["resnet18"].small()))
    found, scheduled, _ = memory_child.workspaces(graph)
    assert {(each.target, each.policy) for each in found} == {
        (target, policy) for target in TARGETS for policy in SCHEDULES
    }
    (auto,) = (each for each in found if (each.target, each.policy) == (HOST, "auto"))
    assert auto.workspace_bytes == scheduled.memory.workspace_bytes
    assert all(each.ratio >= 1 for each in found)


@pytest.mark.parametrize(
    ("row", "ok"),
    [
        (ROW, True),
        (replace(ROW, plans=(TIGHT, replace(TIGHT, workspace_bytes=1050))), False),
        (replace(ROW, binary=replace(LARGE, peak_bytes=150 * MB)), False),
        (replace(ROW, binary=Binary(1 * MB, 1 * MB, 0, 9 * MB, 0)), True),  # too small to count
        (Row("resnet18", problem="exit 1"), False),
    ],
)
def test_a_row_keeps_what_is_promised_or_not(row: Row, ok: bool) -> None:
    assert row.ok is ok


def test_a_document_comes_back_from_its_file(tmp_path: Path) -> None:
    document = Document("0.0", (ROW, Row("alexnet", problem="exit 1: no")))
    path = tmp_path / "memory.json"
    memory.write(document, path, tmp_path / "page.md")
    assert memory.read(path) == document
    row = json.loads(path.read_text())["rows"][0]
    assert row["plans"][0]["ratio"] == 1.0526 and row["binary"]["ratio"] == 1.0909
    page = (tmp_path / "page.md").read_text()
    assert "| resnet18 | 1.053 |" in page and "| 120.0 MB | 1.091 |" in page
    path.write_text("{}")
    with pytest.raises(ArtifactError, match="measure again"):
        memory.read(path)


def test_the_command_measures_some_and_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, text = tmp_path / "memory.json", tmp_path / "page.md"
    arguments = ["--json", str(data), "--markdown", str(text)]
    rows = {"alexnet": replace(ROW, network="alexnet"), "resnet18": ROW}
    monkeypatch.setattr(memory, "measure", lambda name, small: rows[name])
    for name in ("resnet18", "alexnet"):
        assert CliRunner().invoke(memory.main, [name, *arguments]).exit_code == 0
    assert memory.read(data).rows == (rows["alexnet"], ROW)  # in the order of the zoo
    rows["alexnet"] = Row("alexnet", problem="exit 1: no")
    failed = CliRunner().invoke(memory.main, ["alexnet", *arguments])
    assert failed.exit_code and "alexnet: exit 1: no" in failed.output
    unknown = CliRunner().invoke(memory.main, ["nobody", *arguments])
    assert unknown.exit_code == 2 and "nobody" in unknown.output


def test_what_goes_wrong_in_a_child_is_told(tmp_path: Path) -> None:
    onnx.save(ZOO["resnet18"].small(), tmp_path / "net.onnx")
    module = "ramforge.runtime.bench.memory_child"
    said = memory._run([module, str(tmp_path / "none.onnx"), str(tmp_path / "out.json")])
    assert said.startswith("exit 1: ") and "none.onnx" in said


def test_the_page_is_made_from_the_data() -> None:
    document = memory.read(DOCS / "results" / "memory.json")
    assert (DOCS / "MEMORY.md").read_text(encoding="utf-8") == memory.page(document)
    assert [row.network for row in document.rows] == list(ZOO)
    assert all(row.ok for row in document.rows)
