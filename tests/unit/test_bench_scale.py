"""The benchmark of large graphs: its graphs are what it says, and it reports both sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from ramforge.compiler.check import check_plan
from ramforge.compiler.device import find_target
from ramforge.runtime.bench import scale


def test_a_synthetic_graph_has_levels_of_tiles_that_read_earlier_ones() -> None:
    operators, graph = scale.synthetic(6, side=5)
    assert len(operators) == 6 * scale.PARALLEL
    writer = {name: n for n, operator in enumerate(operators) for name in operator.variant.writes}
    halos = transposed = 0
    for number, operator in enumerate(operators):
        (written,) = operator.variant.writes.values()
        cells = np.prod(written.stop - written.start, axis=1).sum()
        assert cells == graph.tensor(operator.name).size  # every element, once
        assert bool(operator.variant.reads) == (number >= scale.PARALLEL)
        for name, boxes in operator.variant.reads.items():
            assert writer[name] // scale.PARALLEL < number // scale.PARALLEL
            assert (boxes.start >= 0).all() and (boxes.stop <= graph.tensor(name).shape).all()
            width = (boxes.stop - boxes.start)[:, 0].max()
            halos += bool(3 * scale.TILE <= width < graph.tensor(name).shape[0])
            forward = np.diff(boxes.start[: written.tasks, 0])
            transposed += bool((forward < 0).any())
    assert halos and transposed


def test_its_plan_is_checked() -> None:
    target = find_target("h200")
    operators, graph = scale.synthetic(8)
    found = scale.scheduled(operators, graph, target)
    check_plan(operators, found.plan, target, found.memory, graph)
    assert found.plan.policy == "events" and found.plan.waves == 8


def test_both_sizes_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scale.json"
    done = CliRunner().invoke(scale.main, ["--levels", "3", "--json", str(path)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert len(lines) == 3 and "30 rOperators, 3 levels" in lines[0]
    small, large = json.loads(path.read_text())["graphs"]
    assert large["roperators"] == 2 * small["roperators"] == 60
    assert small["waits"] > 0 and small["schedule_s"] > 0 and small["check_s"] > 0
