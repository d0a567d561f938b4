"""The comparison of the host body with ONNX Runtime, on small networks."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from ramforge.runtime.bench import host
from ramforge.runtime.bench.compare import Timing
from ramforge.zoo import ZOO


def test_it_prints_a_ratio_for_each_network_and_writes_the_figures(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    arguments = ["resnet18", "alexnet", "--small", "--rounds", "3", "--json", str(path)]
    result = CliRunner().invoke(host.main, arguments)
    assert result.exit_code == 0, result.output
    rows = json.loads(path.read_text())
    assert [row["network"] for row in rows] == ["resnet18", "alexnet"]
    assert all(row["ours"]["median_ms"] > 0 < row["theirs"]["median_ms"] for row in rows)


def test_the_mean_is_the_geometric_one() -> None:
    def result(name: str, ratio: float) -> host.Result:
        return host.Result(name, Timing("ramforge", 1, 1, ratio, ratio, ratio), BASE)

    shown = host.table([result("a", 0.5), result("b", 2.0)]).splitlines()
    assert shown[-1].split() == ["geometric", "mean", "1.00"]


BASE = Timing("onnxruntime", 1, 1, 1, 1, 1)


def test_the_networks_are_in_the_zoo() -> None:
    assert len(host.NETWORKS) == 6 and set(host.NETWORKS) <= set(ZOO)


def test_a_network_that_is_unknown_is_refused() -> None:
    result = CliRunner().invoke(host.main, ["nothing"])
    assert result.exit_code == 2 and "'resnet50'" in result.output
