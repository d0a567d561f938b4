"""The figures of ``bench.schedule`` as data, and as text: plain tables, and a page of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ramforge.compiler.errors import ArtifactError
from ramforge.runtime.tables import Table

FORMAT = 1
STATUS = "predicted by the cost model, not yet confirmed on a GPU"
WIDTH = 120

# What a plan is called in the tables, and its policy and rule. Base is the paper's RammerBase.
# By the rule "selected" the compiler takes the best of all that it tries, the fastest variants and
# sums in parts among them; the plans in EXACT have selected variants and nothing else.
PLANS: dict[str, tuple[str, str]] = {
    "base-fast": ("per-op", "fastest"),
    "base-efficient": ("per-op", "efficient"),
    "base": ("per-op", "selected"),
    "waves-fast": ("waves", "fastest"),
    "waves-efficient": ("waves", "efficient"),
    "waves-selected": ("waves", "selected"),
    "waves": ("waves", "selected"),
    "events": ("events", "selected"),
}
EXACT = ("waves-selected",)


@dataclass(frozen=True, slots=True)
class Planned:
    """One plan of a model. ``waits`` are those that are left, ``implied`` those that fell away;
    ``check_s`` is 0 where the plan was not checked.
    """

    roperators: int
    rtasks: int
    waves: int
    launches: int
    events: int
    barriers: int
    waits: int
    implied: int
    makespan_us: float
    utilisation: float
    choose_s: float
    plan_s: float
    check_s: float


class Box(NamedTuple):
    """Neighbouring lanes that run rTasks of one rOperator of a wave, from when to when."""

    lane: int
    lanes: int
    operator: int
    start_us: float
    end_us: float


@dataclass(frozen=True, slots=True)
class Lanes:
    """A wave as the wave policy puts it on the vEUs; ``kernels`` says how many rOperators run each
    of them.
    """

    units: int
    time_us: float
    kernels: dict[str, int]
    boxes: list[Box]

    @property
    def kernel(self) -> str:
        """The one that most rOperators run."""
        return max(self.kernels, key=self.kernels.__getitem__)


@dataclass(frozen=True, slots=True)
class Wave:
    """The wave of a model that gains most by selection, and the first of its rOperators."""

    number: int
    roperators: int
    first: str
    fast: Lanes
    selected: Lanes

    @property
    def gain(self) -> float:
        return self.fast.time_us / self.selected.time_us


@dataclass(frozen=True, slots=True)
class Figures:
    """A model: its size, its bounds, its plans by the names of PLANS, and what auto takes."""

    model: str
    floor_us: float
    critical_path_us: float
    seconds: dict[str, float]
    plans: dict[str, Planned]
    auto: str
    wave: Wave | None

    @property
    def selection_gain(self) -> float:
        return self.plans["waves-fast"].makespan_us / self.plans["waves-selected"].makespan_us

    @property
    def best(self) -> Planned:
        return self.plans[self.auto]


@dataclass(frozen=True, slots=True)
class Document:
    """All that a run of the benchmark found."""

    ramforge: str
    target: str
    command: str
    models: list[Figures]

    def to_json(self) -> str:
        table = {"format": FORMAT, "status": STATUS, **asdict(self)}
        text = json.dumps(table, indent=1)
        # columns of numbers on one line
        return re.sub(r"\[\s+([-\d.e,\s]+?)\s+\]", _on_one_line, text) + "\n"

    @staticmethod
    def from_json(text: str) -> Document:
        table = json.loads(text)
        if table.get("format") != FORMAT:
            raise ArtifactError(
                f"figures of format {table.get('format')}, this ramforge reads {FORMAT}\n"
                "    fix: run the benchmark again"
            )
        models = [_figures(row) for row in table["models"]]
        return Document(table["ramforge"], table["target"], table["command"], models)


def _on_one_line(match: re.Match[str]) -> str:
    return f"[{' '.join(match[1].split())}]"


def _figures(row: dict[str, Any]) -> Figures:
    plans = {name: Planned(**plan) for name, plan in row["plans"].items()}
    wave = row["wave"]
    if wave is not None:
        sides = {name: _lanes(wave[name]) for name in ("fast", "selected")}
        wave = Wave(**{**wave, **sides})
    return Figures(**{**row, "plans": plans, "wave": wave})


def _lanes(row: dict[str, Any]) -> Lanes:
    return Lanes(**{**row, "boxes": [Box(*box) for box in row["boxes"]]})


def tables(document: Document) -> tuple[Table, ...]:
    return (
        _sizes(document),
        _of_plans(document, "Predicted time in microseconds", _time_of),
        _of_plans(document, "vEUs busy", _busy_of),
        _gains(document),
        _seconds(document),
    )


def plain(document: Document) -> str:
    head = f"{document.target}, batch 1, fp32: {STATUS}"
    return "\n\n".join([head, *(table.plain() for table in tables(document))])


def _sizes(document: Document) -> Table:
    head = (
        *("model", "rOperators", "cut", "rTasks", "waves", "launches: base", "waves", "events"),
        *("barriers", "events", "waits: all", "kept"),
    )
    rows = []
    for model in document.models:
        base, waves, events = (model.plans[name] for name in ("base-fast", "waves", "events"))
        numbers = (
            *(base.roperators, events.roperators, events.rtasks, events.waves),
            *(base.launches, waves.launches, events.launches),
            *(waves.barriers, events.events, events.waits + events.implied, events.waits),
        )
        rows.append((model.model, *map(str, numbers)))
    return Table("What the schedules are made of", head, rows)


def _of_plans(document: Document, title: str, cell: Callable[[Planned], str]) -> Table:
    """A cell for each plan of each model."""
    rows = [
        (model.model, *(cell(model.plans[name]) for name in PLANS)) for model in document.models
    ]
    return Table(title, ("model", *PLANS), rows)


def _time_of(plan: Planned) -> str:
    return _microseconds(plan.makespan_us)


def _busy_of(plan: Planned) -> str:
    return f"{plan.utilisation:.0%}"


def _gains(document: Document) -> Table:
    head = (
        *("model", "auto takes", "us", "base / auto", "selection"),
        *("floor us", "critical path us", "floor / auto", "path / auto"),
    )
    rows = [
        (
            model.model,
            model.auto,
            _microseconds(model.best.makespan_us),
            f"{model.plans['base-fast'].makespan_us / model.best.makespan_us:.2f}",
            f"{model.selection_gain:.2f}",
            _microseconds(model.floor_us),
            _microseconds(model.critical_path_us),
            f"{model.floor_us / model.best.makespan_us:.0%}",
            f"{model.critical_path_us / model.best.makespan_us:.0%}",
        )
        for model in document.models
    ]
    return Table("Gains and bounds", head, rows)


def _seconds(document: Document) -> Table:
    names = ("base", "waves", "events")
    head = (
        *("model", "import", "optimise", "lower"),
        *("choose: base", "waves", "plan: base", "waves", "events"),
        *("check: base", "waves", "events"),
    )
    rows = []
    for model in document.models:
        plans = [model.plans[name] for name in names]
        numbers = (
            *(model.seconds[name] for name in ("import", "optimise", "lower")),
            *(plan.choose_s for plan in plans[:2]),
            *(plan.plan_s for plan in plans),
            *(plan.check_s for plan in plans),
        )
        rows.append((model.model, *(f"{number:.1f}" for number in numbers)))
    return Table("Seconds that compiling takes", head, rows)


def _microseconds(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


_PAGE = """\
# Schedules, predicted

All figures here are **{status}**.
They say what the compiler believes, and so what decides its choices; they are no measurements.
Target {target}, batch 1, fp32, ramforge {version}.

    {command}

makes this page, its figures, and the data behind both (`docs/results/schedule.json`); with
`--from docs/results/schedule.json` it draws them again without scheduling anything.

## What the schedules are made of

{sizes}

*cut* counts the rOperators once long sums are cut into parts, where that pays. *base* launches each
rOperator by itself (`--schedule per-op`, the paper's RammerBase). *waves* puts a barrier after
each level, *events* lets each rTask wait for what it reads. *all* counts the waits of all lanes
for regions that they read or overwrite, *kept* those that no earlier wait implies.

## Predicted time in microseconds

{times}

*fast* plans take the variant of each rOperator that is the fastest alone on the device,
*efficient* ones that with the least vEU time in all, and waves-selected those with which each wave
ends first. *base*, *waves* and *events* are what the compiler takes by `--schedule per-op`, `waves`
and `events`: the best of selected variants, fastest variants, and both of these with long sums
cut.

## vEUs busy

{busy}

The part of all vEUs' time that is spent on rTasks.

## Gains and bounds

{gains}

*base / auto* is the gain over base-fast, *selection* that of waves-selected over waves-fast. The
*floor* is one launch and either all arithmetic at the device's peak rate or all constants, inputs
and outputs once through its memory, whichever is longer. The *critical path* is the longest chain
of rOperators: one rTask of each, and an event wherever the next one folds over many of them.

## Selection

![Predicted times of the waves schedule, and one wave](figures/selection.svg)

The bars are waves-fast, waves-efficient and waves-selected of the table above, as parts of
waves-fast.
{wave}
## Time to schedule

{seconds}

Seconds on the machine that made this page. *lower* is done for each rule and has the choice of
block sizes and of sums to cut in it; *choose* is the choice of variants, *plan* the arrangement,
memory, synchronisation and prediction of all plans that are tried, *check* the proof of the best
one.
"""

_WAVE = """\
Below them is the wave that gains most by selection, vEUs down, time across: {count} rOperators of
{model} that run side by side (`{first}` is the first).
The variants that are the fastest alone,

    {fast}

are done in {fast_us:.1f} us together, those that are selected,

    {selected}

in {selected_us:.1f} us: {gain:.2f} times as fast.
"""


def markdown(document: Document) -> str:
    sizes, times, busy, gains, seconds = (table.markdown() for table in tables(document))
    return _PAGE.format(
        status=STATUS,
        target=document.target,
        version=document.ramforge,
        command=document.command,
        sizes=sizes,
        times=times,
        busy=busy,
        gains=gains,
        seconds=seconds,
        wave=_wave_text(document),
    )


def widest_gain(document: Document) -> Figures | None:
    """The model with the wave that gains most."""
    found = [model for model in document.models if model.wave is not None]
    return max(found, key=lambda model: model.wave.gain if model.wave else 0.0, default=None)


def _wave_text(document: Document) -> str:
    model = widest_gain(document)
    if model is None or model.wave is None:
        return ""
    wave = model.wave
    return _WAVE.format(
        count=wave.roperators,
        model=model.model,
        first=wave.first,
        fast=wave.fast.kernel,
        fast_us=wave.fast.time_us,
        selected=wave.selected.kernel,
        selected_us=wave.selected.time_us,
        gain=wave.gain,
    )
