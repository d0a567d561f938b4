"""The weights of the zoo show mistakes: its small forms here, the full ones by `make mutants`."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from ramforge.zoo import ZOO
from ramforge.zoo.builder import Builder
from tests.mutation import mutants, report
from tests.mutation.study import study

COUNT = 40


@pytest.mark.parametrize("name", ZOO)
def test_a_small_network_shows_nearly_every_mistake(name: str) -> None:
    found = study(name, ZOO[name].small(), COUNT)
    assert len(found.counted) >= COUNT
    missed = [f"{item.title} ({item.change:.2g} tolerances)" for item in found.missed]
    assert found.share >= report.LEAST, missed


def small(gain: float) -> onnx.ModelProto:
    """Two convolutions with a bias and a ReLU; a gain of 0 hides what comes before."""
    builder = Builder("small", seed=1)
    x = builder.input("x", (1, 3, 8, 8))
    for number in range(2):
        x = builder.convolution(x, f"/conv{number}", 3, 3, 3, bias=True, gain=gain)
        x = builder.node("Relu", [x], f"/relu{number}")
    return builder.finish([x])


def test_weights_that_hide_mistakes_are_found_out() -> None:
    """With small weights the first layer is lost in what the second one adds."""
    assert study("loud", small(1.5), 16).share == 1
    hidden = study("hidden", small(1e-4), 16)
    assert hidden.share < 0.8
    assert any("/conv0" in found.title for found in hidden.missed)


def test_each_mutant_is_one_mistake_and_they_come_from_all_over_the_graph() -> None:
    model = ZOO["resnet50"].small()
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    every = mutants.mutants(mutants.Model(model, held), 0)
    chosen = mutants.spread(every, 24, 0)
    assert len({id(mutant) for mutant in chosen}) == len(chosen) == 24
    assert {mutant.kind for mutant in chosen} == {mutant.kind for mutant in every}
    places = np.array([mutant.number for mutant in chosen]) / len(model.graph.node)
    assert places.min() < 0.2 and places.max() > 0.8
    for mutant in chosen:
        changed = mutant.applied(model).graph.node
        before = [node for node in model.graph.node if node not in changed]
        assert [node.name for node in before] == [mutant.node]


def test_the_page_is_made_from_the_figures_and_they_are_good_enough() -> None:
    rows = json.loads(report.TABLE.read_text(encoding="utf-8"))
    assert report.PAGE.read_text(encoding="utf-8") == report.page(rows)
    assert [row["model"] for row in rows] == [n for n in ZOO if n not in report.TOO_LARGE]
    for row in rows:
        assert row["mutants"] >= 40, row["model"]
        assert row["caught"] >= report.LEAST * row["mutants"], row["model"]
