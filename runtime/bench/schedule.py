"""What the schedules of the benchmarked networks are predicted to do, without the device.

    python -m ramforge.runtime.bench.schedule [MODELS...] --target h200

Each network is imported and lowered once, and planned by every policy and rule of ``PLANS``.
Nothing is rendered, built or run: every figure comes from the cost model.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.compiler.check import check_plan
from ramforge.compiler.cost import CostModel
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import DEFAULT_TARGET, Target, VDevice, find_target, vdevices
from ramforge.compiler.errors import RamforgeError
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import Graph
from ramforge.compiler.lower import Lowered
from ramforge.compiler.pipeline import optimise
from ramforge.compiler.schedule import POLICIES
from ramforge.compiler.schedule.arrangement import levels, place
from ramforge.compiler.schedule.bounds import bounds
from ramforge.compiler.schedule.policy import Policy
from ramforge.compiler.schedule.search import Scheduled, Search
from ramforge.compiler.schedule.selection import (
    Option,
    Options,
    Rule,
    Selection,
    Selector,
    WaveChoice,
    active_in,
)
from ramforge.compiler.version import VERSION
from ramforge.runtime import predict, progress
from ramforge.runtime.bench import schedule_figures
from ramforge.runtime.bench.schedule_report import (
    EXACT,
    PLANS,
    Box,
    Document,
    Figures,
    Lanes,
    Planned,
    Wave,
    markdown,
    plain,
)
from ramforge.zoo import BENCHMARKED, ZOO

Models = dict[str, Callable[[], onnx.ModelProto]]
CHECKED = ("base", "waves", "events")
# In the order of the policies: of equally good plans the first is taken.
AUTO = ("waves", "events", "base")


class Stopwatch:
    """The seconds since it was last asked."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        before, self._last = self._last, time.perf_counter()
        return round(self._last - before, 3)


Attempt = tuple[int, int]  # the threads of a block, and which graph it makes tasks of


class Planner:
    """Plans of one graph. What two plans share is worked out once: the selections of policies that
    run rOperators side by side are the same, and so are plans of the same variants.
    """

    def __init__(self, graph: Graph, target: Target, cost: CostModel) -> None:
        self._attempts = {
            rule: {
                (lowered.target.threads, id(lowered.graph)): (lowered, search)
                for lowered, search in predict.searches(graph, target, cost, rule)
            }
            for rule in Rule
        }
        self._selections: dict[tuple[Attempt, bool, Rule], tuple[Selection, float]] = {}
        self._plans: dict[tuple[Attempt, str, tuple[int, ...]], tuple[Scheduled, float]] = {}

    @property
    def attempts(self) -> tuple[tuple[Lowered, Search], ...]:
        """What the compiler tries by itself; first the graph without any sum cut."""
        return tuple(self._attempts[Rule.SELECTED].values())

    def exact(self, policy: Policy, rule: Rule) -> Plans:
        """The plan of a policy and a rule alone, of the graph without any sum cut."""
        attempt, (_, search) = next(iter(self._attempts[rule].items()))
        tried = self._plan(attempt, search, policy, rule)
        return Plans(search, tried.made, tried.choose_s, tried.plan_s)

    def plan(self, policy: Policy, rule: Rule) -> Plans:
        """The best of all that the compiler tries for a policy and a rule."""
        rules = [rule]
        if rule is Rule.SELECTED and not policy.is_alone:
            rules.append(Rule.FASTEST)
        found = [
            self._plan(attempt, search, policy, each)
            for attempt, (_, search) in self._attempts[rule].items()
            for each in rules
        ]
        best = min(found, key=lambda tried: tried.made.timeline.makespan_ns)
        return Plans(
            best.search,
            best.made,
            sum(tried.choose_s for tried in found),
            sum(tried.plan_s for tried in found),
        )

    def _plan(self, attempt: Attempt, search: Search, policy: Policy, rule: Rule) -> Tried:
        chosen, choose_s = self._selection(attempt, search, policy, rule)
        key = (attempt, policy.name, chosen.options)
        if key not in self._plans:
            watch = Stopwatch()
            made = search.plan(policy, chosen)
            assert made.timeline.makespan_ns >= 0  # worked out here, where it is timed
            self._plans[key] = made, watch.lap()
        return Tried(search, choose_s, *self._plans[key])

    def _selection(
        self, attempt: Attempt, search: Search, policy: Policy, rule: Rule
    ) -> tuple[Selection, float]:
        key = (attempt, policy.is_alone, rule)
        if key not in self._selections:
            watch = Stopwatch()
            chosen = search.selection(policy, rule)
            self._selections[key] = chosen, watch.lap()
        return self._selections[key]


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """One plan of one of the Searches, and the seconds that it took."""

    search: Search
    choose_s: float
    made: Scheduled
    plan_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Plans:
    """The best of the plans that were tried, whose it is, and the seconds of all of them."""

    search: Search
    best: Scheduled
    choose_s: float
    plan_s: float


def measure(
    name: str, make: Callable[[], onnx.ModelProto], target: Target, report: progress.Report
) -> Figures:
    """Everything about one network."""
    watch = Stopwatch()
    seconds: dict[str, float] = {}
    report(f"{name}: building")
    model = make()
    seconds["build"] = watch.lap()
    report(f"{name}: importing {len(model.graph.node)} nodes")
    graph = import_model(model)
    del model
    seconds["import"] = watch.lap()
    report(f"{name}: optimising {len(graph.nodes)} nodes")
    graph = optimise(graph)
    seconds["optimise"] = watch.lap()
    report(f"{name}: lowering {len(graph.nodes)} nodes")
    planner = Planner(graph, target, AnalyticCost())
    seconds["lower"] = watch.lap()
    limits = [bounds(search) for _, search in planner.attempts]
    plans = {}
    for label, (policy, rule) in PLANS.items():
        report(f"{name}: planning {label}")
        make_plan = planner.exact if label in EXACT else planner.plan
        plans[label] = _planned(make_plan(POLICIES[policy], Rule(rule)), label in CHECKED)
    auto = min(AUTO, key=lambda label: plans[label].makespan_us)
    return Figures(
        name,
        round(min(limit.floor_ns for limit in limits) / 1e3, 3),
        round(min(limit.critical_path_ns for limit in limits) / 1e3, 3),
        seconds,
        plans,
        auto,
        widest_wave(*planner.attempts[0]),
    )


def _planned(found: Plans, is_checked: bool) -> Planned:
    made, plan, timeline = found.best, found.best.plan, found.best.timeline
    watch = Stopwatch()
    if is_checked:
        check_plan(made.operators, plan, found.search.target, made.memory, found.search.graph)
    check_s = watch.lap() if is_checked else 0.0
    are_barriers = plan.policy == "waves"
    return Planned(
        len(made.operators),
        sum(operator.tasks for operator in made.operators),
        plan.waves,
        len(plan.launches),
        0 if are_barriers else plan.events,
        plan.events if are_barriers else 0,
        plan.waits,
        plan.implied,
        round(timeline.makespan_ns / 1e3, 3),
        round(timeline.utilisation, 4),
        round(found.choose_s, 3),
        round(found.plan_s, 3),
        check_s,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A wave by one rule, on the vDevice where it ends first."""

    device: VDevice
    works: tuple[Option, ...]
    options: tuple[int, ...]
    time_ns: float


class WaveChoices:
    """For waves of rOperators what each rule chooses."""

    def __init__(self, target: Target, cost: CostModel) -> None:
        self.devices = vdevices(target)
        self._selectors = {rule: Selector(self.devices, cost, rule) for rule in Rule}

    def wave(self, choices: Sequence[Options], rule: Rule, device: int) -> WaveChoice | None:
        """On one of the vDevices, if all of them can run there."""
        return self._selectors[rule].wave(choices, device)

    def choose(self, choices: Sequence[Options], rule: Rule) -> Choice:
        found = [
            (wave.time_ns, number, wave.options)
            for number in range(len(self.devices))
            if (wave := self.wave(choices, rule, number)) is not None
        ]
        time_ns, number, options = min(found)
        works = tuple(choice[option] for choice, option in zip(choices, options, strict=True))
        return Choice(self.devices[number], works, options, time_ns)


def widest_wave(lowered: Lowered, found: Search) -> Wave | None:
    """The wave that ends soonest with selected variants, compared with the fastest alone."""
    chooser = WaveChoices(found.target, found.cost)
    best: tuple[float, int, Choice, Choice] | None = None
    waves = levels(found.reads, found.writes)
    for number, wave in enumerate(waves):
        choices = [found.choices[operator] for operator in wave]
        fast, selected = (chooser.choose(choices, r) for r in (Rule.FASTEST, Rule.SELECTED))
        gain = fast.time_ns / selected.time_ns
        if gain > (best[0] if best else 1.0):
            best = gain, number, fast, selected
    if best is None:
        return None
    _, number, fast, selected = best
    return Wave(
        number,
        len(waves[number]),
        lowered.nodes[waves[number][0]].name,
        _lanes(fast, found.cost),
        _lanes(selected, found.cost),
    )


def _lanes(choice: Choice, cost: CostModel) -> Lanes:
    """The longest rTasks first, as the wave policy places them."""
    active = active_in(choice.works, choice.device)
    times = [cost.task_ns(work, choice.device, active) for work in choice.works]
    ready = np.zeros(choice.device.units)
    boxes: list[Box] = []
    for number in sorted(range(len(times)), key=lambda n: -times[n]):
        before = ready.copy()
        lane = place(choice.works[number].tasks, times[number], ready).lane
        runs = np.stack([before[lane], ready[lane]], axis=1) / 1e3
        new = (np.diff(lane) != 1) | (np.diff(runs, axis=0) != 0).any(axis=1)
        for piece in np.split(np.arange(len(lane)), np.flatnonzero(new) + 1):
            start, end = runs[piece[0]].round(3).tolist()
            boxes.append(Box(int(lane[piece[0]]), len(piece), number, start, end))
    kernels = Counter(work.body.summary for work in choice.works)
    time_us = round(float(ready.max()) / 1e3, 3)
    return Lanes(choice.device.units, time_us, dict(kernels), boxes)


def _known_models() -> Models:
    return {name: ZOO[name].full for name in BENCHMARKED}


def _run(names: Sequence[str], target: Target, command: str) -> Document:
    known = _known_models()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"unknown models {unknown}; use some of {', '.join(known)}")
    with progress.reporting() as report:
        models = [measure(name, known[name], target, report) for name in names or known]
    return Document(VERSION, target.name, command, models)


@click.command()
@click.argument("models", nargs=-1)
@click.option("--target", default=DEFAULT_TARGET, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Write a page of them.")
@click.option("--figures", type=click.Path(path_type=Path), help="Write SVG into this folder.")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="Take the figures of an earlier --json instead of scheduling.",
)
def main(
    models: tuple[str, ...],
    target: str,
    json_path: Path | None,
    page: Path | None,
    figures: Path | None,
    source: Path | None,
) -> None:
    """Schedule MODELS (all that the benchmarks run, without any) by every policy, and print what
    each plan is made of and how long it is predicted to take.
    """
    options = {"target": target, "json": json_path, "markdown": page, "figures": figures}
    flags = [f"--{name} {shlex.quote(str(value))}" for name, value in options.items() if value]
    command = " ".join(["python -m ramforge.runtime.bench.schedule", *models, *flags])
    try:
        if source:
            document = Document.from_json(source.read_text(encoding="utf-8"))
        else:
            document = _run(models, find_target(target), command)
    except RamforgeError as error:
        raise click.ClickException(str(error)) from None
    click.echo(plain(document))
    if json_path:
        _write(json_path, document.to_json())
    if page:
        _write(page, markdown(document))
    if figures:
        _write(figures / "selection.svg", schedule_figures.selection(document))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
