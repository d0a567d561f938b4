"""What ``bench.floors`` finds out about plans, and the page that is kept of all of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from ramforge.compiler.device import find_target
from ramforge.compiler.errors import ArtifactError
from ramforge.compiler.frontend import import_model
from ramforge.compiler.pipeline import Program, compile_graph, optimise
from ramforge.runtime.bench import floors, floors_child
from ramforge.runtime.bench.floors import Document, Row
from ramforge.runtime.bench.floors_child import PRECISIONS, Figures
from ramforge.runtime.gpu_cases import model_of
from ramforge.zoo import ZOO

DOCS = Path(__file__).parents[2] / "docs"
PLAN = Figures(
    *("fp32", 28, 21, 25, 24),
    *(40_000_000, 80_000_000, 500_000_000, 3.6e9, 50.0, 100.0, 150.0, "events", 1),
)
ROW = Row("resnet18", 69, 63, (PLAN, replace(PLAN, precision="fp16", floor_us=20.0)))


def program(model: onnx.ModelProto) -> Program:
    return compile_graph(import_model(model), find_target("h200"), "waves")


def touched(found: Program) -> list[int]:
    return [floors_child.touched_bytes(each, found.graph) for each in found.operators]


def test_what_many_rtasks_read_counts_once() -> None:
    """A product of 512 rows has several tiles, which read the same rows and the same weights."""
    model = model_of("g (float[512, 64] x) => (float[512, 96] y) { y = MatMul(x, w) }", w=(64, 96))
    found = program(model)
    assert found.tasks > 4
    assert touched(found) == [4 * (512 * 64 + 64 * 96 + 512 * 96)]


def test_of_a_table_only_what_is_looked_at_counts() -> None:
    model = model_of("g (int64[4] i) => (float[4, 8] y) { y = Gather<axis=0>(t, i) }", t=(9999, 8))
    (found,) = touched(program(model))
    assert 2 * 4 * 4 * 8 <= found < 4 * 9999


@pytest.mark.parametrize("precision", PRECISIONS)
def test_figures_are_in_order(precision: str) -> None:
    graph = optimise(import_model(ZOO["resnet18"].small()), precision)
    found = floors_child.figures(graph, precision)
    assert found.chain <= found.levels <= found.roperators
    assert 1 < found.bodies <= found.roperators
    assert found.least_bytes < found.moved_bytes < found.task_bytes
    assert 0 < found.floor_us < found.predicted_us


def test_a_network_is_planned_in_processes_of_their_own(tmp_path: Path) -> None:
    data, text = tmp_path / "floors.json", tmp_path / "page.md"
    arguments = ("alexnet", "--small", "--json", str(data), "--markdown", str(text))
    result = CliRunner().invoke(floors.main, arguments)
    assert result.exit_code == 0 and "alexnet: fp32" in result.output, result.output
    (row,) = floors.read(data).rows
    assert row.nodes > row.plans[0].roperators and not row.problem
    assert tuple(plan.precision for plan in row.plans) == PRECISIONS


def test_what_goes_wrong_is_told_on_the_page(tmp_path: Path) -> None:
    said = floors._run(["ramforge.runtime.bench.floors_child", "none.onnx", "out.json"])
    assert said.startswith("exit 1: ") and "none.onnx" in said
    assert "| llama_decode | exit 1 |" in floors.page(
        Document("0.0", "h200", (ROW, Row("llama_decode", problem="exit 1")))
    )


def test_a_document_comes_back_from_its_file(tmp_path: Path) -> None:
    document = Document("0.0", "h200", (ROW, Row("alexnet", problem="exit 1: no")))
    path = tmp_path / "floors.json"
    floors.write(document, path, tmp_path / "page.md")
    assert floors.read(path) == document
    page = (tmp_path / "page.md").read_text()
    assert "| 40.0 MB | 80.0 MB | 2.00 | 500.0 MB | 50.0 | 100.0 | 150.0 | 3.00 |" in page
    path.write_text("{}")
    with pytest.raises(ArtifactError, match="measure again"):
        floors.read(path)


def test_the_page_is_made_from_the_data() -> None:
    document = floors.read(DOCS / "results" / "floors.json")
    assert (DOCS / "FLOORS.md").read_text(encoding="utf-8") == floors.page(document)
    assert [row.network for row in document.rows] == list(ZOO)
    assert all(row.plans or row.problem for row in document.rows)
    assert json.loads(floors.as_json(document))["format"] == floors.FORMAT
