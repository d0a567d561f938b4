"""The paper's main insight, on layers of its own networks: the kernel that is the fastest alone on
the device is the wrong one where others run beside it.
"""

from __future__ import annotations

from functools import cache

import onnx
import pytest

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.compiler.cost import alone_ns, busy_ns
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import find_target
from ramforge.compiler.frontend import import_model
from ramforge.compiler.lower import Lowered, lower
from ramforge.compiler.pipeline import optimise, search
from ramforge.compiler.schedule import POLICIES
from ramforge.compiler.schedule.arrangement import levels
from ramforge.compiler.schedule.search import Search
from ramforge.compiler.schedule.selection import Rule
from ramforge.runtime.bench.schedule import Choice, WaveChoices
from ramforge.zoo.encoder import encoder
from ramforge.zoo.recurrent import lstm_tc
from ramforge.zoo.resnext import resnext29

TARGET = find_target("h200")
COST = AnalyticCost()
BRANCHES = 16
STEPS = 14


def lowered(model: onnx.ModelProto) -> Lowered:
    return lower(optimise(import_model(model)), TARGET)


@cache
def resnext() -> tuple[Lowered, Search]:
    """ResNeXt-29 with one block a stage: each has the sixteen convolutions of the whole one."""
    found = lowered(resnext29(branches=BRANCHES, blocks=1))
    return found, search(found, COST)


def branches() -> list[int]:
    """The convolutions side by side of the first block."""
    found, _ = resnext()
    return [
        number
        for number, node in enumerate(found.nodes)
        if node.op == "Conv" and node.name.startswith("/stage0.0/middle/")
    ]


def chosen(rule: Rule) -> Choice:
    """What a rule takes for them, on the vDevice where that ends first."""
    found, _ = resnext()
    choices = [found.candidates[number] for number in branches()]
    return WaveChoices(TARGET, COST).choose(choices, rule)


def variants(found: Lowered, name: str) -> int:
    (number,) = (n for n, node in enumerate(found.nodes) if node.name.startswith(name))
    return len({candidate.cost for candidate in found.candidates[number]})


def test_products_and_convolutions_have_three_variants_or_more() -> None:
    assert variants(resnext()[0], "/stage0.0/middle/0/") >= 3
    assert variants(lowered(encoder(layers=1)), "/layers.0/linear1") >= 3


def test_the_branches_of_a_block_are_one_wave() -> None:
    _, found = resnext()
    (wave,) = (wave for wave in levels(found.reads, found.writes) if branches()[0] in wave)
    assert wave == branches() and len(wave) == BRANCHES


def test_the_fastest_kernels_alone_are_not_the_fastest_together() -> None:
    fast, selected = chosen(Rule.FASTEST), chosen(Rule.SELECTED)
    assert selected.time_ns < fast.time_ns / 1.2
    for quick, frugal in zip(fast.works, selected.works, strict=True):
        # alone the one is faster, but it takes more of the device
        assert alone_ns(COST, quick, fast.device) < alone_ns(COST, frugal, selected.device)
        assert busy_ns(COST, quick, fast.device) > busy_ns(COST, frugal, fast.device)


def test_on_one_vdevice_the_selected_kernels_are_never_slower_and_here_they_are_faster() -> None:
    found, _ = resnext()
    choices = [found.candidates[number] for number in branches()]
    gains = []
    for number in range(len(WaveChoices(TARGET, COST).devices)):
        both = [
            WaveChoices(TARGET, COST).wave(choices, rule, number)
            for rule in (Rule.FASTEST, Rule.SELECTED)
        ]
        if both[0] is None or both[1] is None:
            continue  # with so many blocks on an SM no tile of a product has the registers it wants
        gains.append(both[0].time_ns / both[1].time_ns)
    assert len(gains) >= 2 and min(gains) >= 1 and max(gains) > 1.2


def test_the_plan_of_the_fastest_kernels_is_longer() -> None:
    _, found = resnext()
    waves = POLICIES["waves"]
    makespan = {
        rule: found.plan(waves, found.selection(waves, rule)).timeline.makespan_ns for rule in Rule
    }
    assert makespan[Rule.FASTEST] > 1.05 * makespan[Rule.SELECTED]
    assert makespan[Rule.EFFICIENT] > makespan[Rule.SELECTED]


def test_products_of_an_unrolled_lstm_gain_as_well() -> None:
    """Those of the input, which wait for nothing: one a step, of four gates."""
    found = lowered(lstm_tc(layers=2, steps=STEPS))
    made = search(found, COST)
    wave = levels(made.reads, made.writes)[0]
    choices = [found.candidates[number] for number in wave]
    fast, selected = (
        WaveChoices(TARGET, COST).choose(choices, rule) for rule in (Rule.FASTEST, Rule.SELECTED)
    )
    assert len(wave) == STEPS
    assert selected.time_ns < fast.time_ns


@pytest.mark.parametrize("rule", [Rule.FASTEST, Rule.EFFICIENT])
def test_alone_on_the_device_selection_changes_nothing(rule: Rule) -> None:
    """A single convolution does not ask for more vEUs than there are."""
    found, _ = resnext()
    choices = [found.candidates[branches()[0]]]
    time_ns = WaveChoices(TARGET, COST).choose(choices, rule).time_ns
    assert WaveChoices(TARGET, COST).choose(choices, Rule.SELECTED).time_ns <= time_ns
