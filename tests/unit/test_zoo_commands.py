"""``ramforge zoo``, and the table of all networks that is made by it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import pytest
from click.testing import CliRunner

from ramforge.compiler.errors import EXIT_CHECK, EXIT_USAGE
from ramforge.runtime import cli, onnx_files
from ramforge.runtime.bench import zoo
from ramforge.runtime.bench.zoo_child import Figures
from ramforge.zoo import ZOO, Entry

DOCS = Path(__file__).parents[2] / "docs"
NAME = "resnet18"


class _Script:
    """The scripts as click's runner wants them: errors become exit codes in ``run_command``."""

    name = "ramforge"

    def main(self, args: list[str], prog_name: str, **extra: object) -> None:
        raise SystemExit(cli.run_command(cli.commands, args, "ramforge"))


def command(*arguments: str | Path) -> tuple[int, str, str]:
    """The exit code, stdout and stderr."""
    found = CliRunner().invoke(_Script(), ["zoo", *map(str, arguments)])
    assert "Traceback" not in found.stderr
    return found.exit_code, found.stdout, found.stderr


def figures(**changes: Any) -> Figures:
    measured = Figures(
        nodes=9,
        levels=8,
        roperators=7,
        rtasks=6,
        waves=5,
        weight_bytes=4_000_000,
        workspace_bytes=3_000_000,
        peak_bytes=200_000_000,
        compile_s=0.3,
        build_s=2.0,
        run_s=0.1,
        reference="ort",
        error=1e-6,
        tolerance=1e-4,
        ok=True,
    )
    return replace(measured, **changes)


def test_the_list_has_every_network() -> None:
    code, out, _ = command("list")
    assert code == 0
    for line, (name, entry) in zip(out.splitlines()[1:], ZOO.items(), strict=True):
        assert line.split() == [name, *entry.summary.split()]
    assert [row["name"] for row in json.loads(command("list", "--json")[1])] == list(ZOO)


def test_the_list_counts_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ZOO[NAME]
    monkeypatch.setattr("ramforge.zoo.ZOO", {NAME: entry})
    (row,) = json.loads(command("list", "--sizes", "--small", "--json")[1])
    model = entry.small()
    weights = sum(onnx.numpy_helper.to_array(each).nbytes for each in model.graph.initializer)
    assert (row["nodes"], row["weight_bytes"]) == (len(model.graph.node), weights)
    assert f"{weights / 1e6:.1f} MB" in command("list", "--sizes", "--small")[1]


def test_a_network_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    code, out, _ = command("build", NAME, "--small", "-o", path)
    assert (code, out.strip()) == (0, str(path))
    assert onnx.load(path) == ZOO[NAME].small()


def test_weights_that_protobuf_cannot_hold_go_beside_the_model(tmp_path: Path) -> None:
    path, beside = tmp_path / "net.onnx", tmp_path / "net.onnx.data"
    model = ZOO[NAME].small()
    onnx_files.save(ZOO[NAME].small(), path)
    assert not beside.exists()
    for _ in range(2):  # what is there is replaced
        onnx_files.save(ZOO[NAME].small(), path, most_bytes=10_000)
        assert path.stat().st_size < beside.stat().st_size < 1.1 * model.ByteSize()
    for kept, made in zip(onnx.load(path).graph.initializer, model.graph.initializer, strict=True):
        assert np.array_equal(onnx.numpy_helper.to_array(kept), onnx.numpy_helper.to_array(made))


def test_a_network_is_verified_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    code, out, said = command("verify", NAME, "--small", "--json", path)
    assert code == 0, said
    assert out.splitlines()[1].split()[:2] == [NAME, "ok"]
    (row,) = json.loads(path.read_text())
    found = Figures(**row["figures"])
    assert found.nodes == len(ZOO[NAME].small().graph.node)
    assert 0 < found.error < found.tolerance == 1e-4
    assert 2e7 < found.peak_bytes < 4e9
    assert 0 < found.waves <= found.roperators < found.nodes and found.levels <= found.nodes


@pytest.mark.parametrize("arguments", [("build", "nothing"), ("verify", "nothing")])
def test_unknown_networks_are_usage_errors(arguments: tuple[str, str]) -> None:
    code, _, said = command(*arguments)
    assert code == EXIT_USAGE and NAME in said


def test_what_is_wrong_or_cannot_be_made_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: Mapping[str, zoo.Row] = {
        "right": zoo.Row("right", "", 1.0, figures()),
        "wrong": zoo.Row("wrong", "", 1.0, figures(ok=False, error=0.5)),
        "broken": zoo.Row("broken", "", problem="exit 3: error: it is too large"),
    }
    entry = Entry("", onnx.ModelProto, onnx.ModelProto)
    monkeypatch.setattr("ramforge.zoo.ZOO", dict.fromkeys(rows, entry))
    monkeypatch.setattr(zoo, "measure", lambda name, **options: rows[name])
    code, out, said = command("verify", "all")
    assert code == EXIT_CHECK
    lines = out.splitlines()
    assert lines[1].split()[:2] == ["right", "ok"] and "WRONG" in lines[2]
    assert "too large" in lines[3]
    assert "2 of 3 networks are wrong: wrong, broken" in said


def test_a_process_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ZOO, "impossible", Entry("", onnx.ModelProto, onnx.ModelProto))
    row = zoo.measure("impossible", small=True)  # the child has no such entry
    assert not row.ok and "no network 'impossible'" in row.problem
    assert "no result in 0 s" in zoo.measure(NAME, small=True, most_seconds=0.01).problem


def test_what_was_not_measured_again_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(name: str, **options: object) -> zoo.Row:
        return zoo.Row(name, "", 1.0, figures(host_ms=len(name)))

    monkeypatch.setattr(zoo, "measure", measured)
    first, second, third = tuple(ZOO)[:3]
    for names in ((), (first,), (second,)):
        document = zoo.renew(names, tmp_path, 2, 0, False, lambda text: None)
        assert [row.name for row in document.rows] == list(ZOO)
    rows = {row.name: row for row in zoo.read(tmp_path).rows}
    assert rows[first].ok and rows[second].ok
    assert rows[third].verdict == zoo.NOT_RUN and rows[third].summary == ZOO[third].summary
    assert (tmp_path / "ZOO.md").read_text() == zoo.page(document)


def test_the_page_comes_from_the_table() -> None:
    assert (DOCS / "ZOO.md").read_text(encoding="utf-8") == zoo.page(zoo.read(DOCS))


def test_the_page_names_every_network() -> None:
    """If not: ``python -m ramforge.runtime.bench.zoo --page-only``, or ``make zoo``."""
    assert [(row.name, row.summary) for row in zoo.read(DOCS).rows] == [
        (name, entry.summary) for name, entry in ZOO.items()
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no /proc")
def test_a_peak_is_that_of_the_process_and_not_of_the_one_that_started_it() -> None:
    much = np.ones(500_000_000, np.uint8)
    code = "from ramforge.runtime.bench.zoo_child import peak_bytes; print(peak_bytes())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 1e7 < int(told.stdout) < much.nbytes
