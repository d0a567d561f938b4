"""The benchmark of schedules: its figures are the compiler's, and its texts say the figures."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

import ramforge
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import find_target
from ramforge.compiler.errors import ArtifactError
from ramforge.compiler.frontend import import_model
from ramforge.compiler.pipeline import compile_graph, optimise
from ramforge.compiler.schedule import POLICIES
from ramforge.compiler.schedule.selection import Rule
from ramforge.runtime import predict
from ramforge.runtime.bench import schedule, schedule_figures, schedule_report
from ramforge.runtime.bench.schedule_report import EXACT, PLANS, STATUS, Document, Figures, Lanes
from ramforge.zoo import BENCHMARKED, PAPER, ZOO

NAMES = ("resnet50", "resnext29", "lstm_tc")
TARGET = find_target("h200")
# So small that waves ask for more vEUs than there are.
TINY = replace(TARGET, sms=2)
DOCS = Path(ramforge.__file__).resolve().parent.parent / "docs"


@cache
def measured(name: str, tiny: bool = False) -> Figures:
    target = TINY if tiny else TARGET
    return schedule.measure(name, ZOO[name].small, target, lambda text: None)


@cache
def document() -> Document:
    models = [measured(name) for name in NAMES] + [measured("resnext29", tiny=True)]
    return Document("0", "h200", "the command", models)


def test_the_benchmarked_networks_are_the_papers_and_two_more() -> None:
    assert set(PAPER) < set(BENCHMARKED) and len(BENCHMARKED) == len(PAPER) + 2


@pytest.mark.parametrize("name", NAMES)
def test_auto_is_what_the_compiler_takes(name: str) -> None:
    found = measured(name)
    program = compile_graph(import_model(ZOO[name].small()), TARGET, "auto")
    assert PLANS[found.auto][0] == program.plan.policy
    assert found.best.makespan_us == pytest.approx(program.predicted_ns / 1e3, abs=1e-3)
    assert found.best.waits == program.plan.waits
    assert found.best.utilisation == pytest.approx(program.timeline.utilisation, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("label", [label for label in PLANS if label not in EXACT])
def test_each_plan_is_what_the_compiler_makes_by_its_policy_and_rule(name: str, label: str) -> None:
    policy, rule = PLANS[label]
    graph = import_model(ZOO[name].small())
    program = compile_graph(graph, TARGET, policy, rule=Rule(rule))
    found = measured(name).plans[label]
    assert found.makespan_us == pytest.approx(program.predicted_ns / 1e3, abs=1e-3)
    assert (found.rtasks, found.roperators) == (program.tasks, len(program.operators))
    assert (found.waits, found.waves) == (program.plan.waits, program.plan.waves)


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_of_selection_alone_is_that_and_no_better_than_the_compiler_takes(
    name: str,
) -> None:
    graph = optimise(import_model(ZOO[name].small()))
    _, found = predict.searches(graph, TARGET, AnalyticCost())[0]
    waves = POLICIES["waves"]
    alone = found.plan(waves, found.selection(waves, Rule.SELECTED)).timeline.makespan_ns
    plans = measured(name).plans
    assert plans["waves-selected"].makespan_us == pytest.approx(alone / 1e3, abs=1e-3)
    assert plans["waves"].makespan_us <= plans["waves-selected"].makespan_us


@pytest.mark.parametrize("name", NAMES)
def test_launches_barriers_and_events_are_what_the_policies_are_made_of(name: str) -> None:
    found = measured(name)
    base, waves, events = (found.plans[label] for label in ("base", "waves", "events"))
    assert (base.launches, base.barriers, base.waits) == (base.roperators, 0, 0)
    assert waves.launches + waves.barriers == waves.waves < waves.roperators
    assert events.events > 0 == events.barriers
    assert events.implied > 0 == waves.implied
    assert base.check_s > 0 and waves.check_s > 0 and events.check_s > 0


def test_the_wave_with_the_largest_gain_is_faster_with_the_selected_kernels() -> None:
    wave = measured("resnext29", tiny=True).wave
    assert wave is not None and wave.gain > 1
    assert wave.fast.kernels != wave.selected.kernels
    assert sum(wave.fast.kernels.values()) == wave.roperators


@pytest.mark.parametrize("side", ["fast", "selected"])
def test_the_boxes_of_a_wave_are_runs_that_do_not_overlap(side: str) -> None:
    wave = measured("resnext29", tiny=True).wave
    assert wave is not None
    lanes: Lanes = getattr(wave, side)
    runs = defaultdict(list)
    for box in lanes.boxes:
        for lane in range(box.lane, box.lane + box.lanes):
            runs[lane].append((box.start_us, box.end_us))
    assert max(runs) < lanes.units
    for of_lane in runs.values():
        ordered = sorted(of_lane)
        assert all(a[1] <= b[0] + 1e-9 for a, b in pairwise(ordered))
    assert max(end for of_lane in runs.values() for _, end in of_lane) == lanes.time_us
    assert {box.operator for box in lanes.boxes} == set(range(wave.roperators))


def test_json_is_read_back_as_it_was() -> None:
    text = document().to_json()
    assert json.loads(text)["format"] == 1 and json.loads(text)["status"] == STATUS
    assert Document.from_json(text) == document()
    with pytest.raises(ArtifactError, match="format 2"):
        Document.from_json(text.replace('"format": 1', '"format": 2', 1))


def test_the_plain_tables_fit_and_say_that_they_are_predictions() -> None:
    text = schedule_report.plain(document())
    assert STATUS in text
    assert max(map(len, text.splitlines())) <= schedule_report.WIDTH
    # as large as the largest networks get
    large = replace(measured("lstm_tc"), model="encoder_large", auto="events")
    plans = {
        label: replace(
            plan,
            roperators=99999,
            rtasks=999999,
            waves=9999,
            launches=99999,
            waits=999999,
            implied=999999,
            makespan_us=99999.9,
        )
        for label, plan in large.plans.items()
    }
    wide = replace(document(), models=[replace(large, plans=plans)])
    assert max(map(len, schedule_report.plain(wide).splitlines())) <= schedule_report.WIDTH


def test_the_page_has_every_figure_of_the_tables_and_the_command() -> None:
    page = schedule_report.markdown(document())
    assert f"    {document().command}\n" in page and STATUS in page
    assert "figures/selection.svg" in page
    cells = {cell for line in page.splitlines() for cell in line.strip("| ").split(" | ")}
    for table in schedule_report.tables(document()):
        assert {cell for row in table.rows for cell in row} <= cells
    plain = [line for line in page.splitlines() if not line.startswith(("|", "    "))]
    assert max(map(len, plain)) <= 100


def rectangles(svg: str) -> list[dict[str, str]]:
    root = ElementTree.fromstring(svg)
    return [part.attrib for part in root if part.tag.endswith("rect")]


def test_bars_are_as_long_as_the_times_and_the_timeline_as_the_wave() -> None:
    svg = schedule_figures.selection(document())
    assert schedule_figures.selection(document()) == svg
    page, *boxes = rectangles(svg)
    height = float(page["height"])
    for box in boxes:
        assert float(box["x"]) >= 0 and float(box["y"]) + float(box["height"]) <= height + 0.1
        assert float(box["x"]) + float(box["width"]) <= schedule_figures.WIDTH
    bars = [float(box["width"]) for box in boxes[3 : 3 + 3 * len(document().models)]]
    for model, three in zip(document().models, zip(*[iter(bars)] * 3, strict=True), strict=True):
        labels = ("waves-fast", "waves-efficient", "waves-selected")
        times = [model.plans[label].makespan_us for label in labels]
        assert [width / three[0] for width in three] == pytest.approx(
            [time / times[0] for time in times], rel=0.01
        )
    assert re.search(r"resnext29, wave \d+", svg) and STATUS in svg


def test_names_are_escaped() -> None:
    odd = replace(document(), models=[replace(document().models[0], model="a<b&c")])
    ElementTree.fromstring(schedule_figures.selection(odd))


def test_the_command_writes_all_it_is_asked_for_and_draws_it_again_without_scheduling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        schedule, "_known_models", lambda: {name: ZOO[name].small for name in BENCHMARKED}
    )
    figures = tmp_path / "a.json"
    arguments = ["alexnet", "--json", str(figures), "--markdown", str(tmp_path / "docs" / "a.md")]
    ran = CliRunner().invoke(schedule.main, [*arguments, "--figures", str(tmp_path / "svg")])
    assert ran.exit_code == 0, ran.output
    assert "alexnet: planning events" in ran.stderr and "planning" not in ran.stdout
    assert (tmp_path / "svg" / "selection.svg").is_file()
    page = (tmp_path / "docs" / "a.md").read_text()
    assert f"python -m ramforge.runtime.bench.schedule {arguments[0]} --target h200" in page

    monkeypatch.setattr(schedule, "_run", None)
    again = CliRunner().invoke(
        schedule.main, ["--from", str(figures), "--markdown", str(tmp_path / "b.md")]
    )
    assert again.exit_code == 0 and again.stdout == ran.stdout
    assert (tmp_path / "b.md").read_text() == page


@pytest.mark.parametrize("arguments", [["nothing"], ["alexnet", "--target", "nothing"]])
def test_unknown_names_are_refused(arguments: list[str]) -> None:
    found = CliRunner().invoke(schedule.main, arguments)
    assert found.exit_code != 0 and "nothing" in found.stderr and not found.stdout


def test_the_page_and_the_figure_in_docs_are_drawn_from_the_figures_beside_them() -> None:
    data = DOCS / "results" / "schedule.json"
    if not data.is_file():
        pytest.skip("docs/results/schedule.json has not been made")
    told = Document.from_json(data.read_text(encoding="utf-8"))
    assert (DOCS / "SCHEDULES.md").read_text(encoding="utf-8") == schedule_report.markdown(told)
    drawn = (DOCS / "figures" / "selection.svg").read_text(encoding="utf-8")
    assert drawn == schedule_figures.selection(told)
    assert [model.model for model in told.models] == list(BENCHMARKED)
