"""Compiles cases for a GPU, many in one program, and runs it in the emulator."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.codegen import artifact as artifacts
from ramforge.codegen.artifact import Artifact
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import PRECISIONS, THREADS, find_target
from ramforge.compiler.errors import RamforgeError
from ramforge.compiler.frontend import import_model
from ramforge.compiler.lower import Offer, lower
from ramforge.compiler.pipeline import Program, finish, optimise, search
from ramforge.compiler.rprogram import Candidate
from ramforge.compiler.schedule import POLICIES
from ramforge.compiler.schedule.selection import Rule
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.drivers.emulator import Order
from tests.helpers import Array, Case, difference, expected_of, model_of

SMS = 2
ORDERS = (
    Settings(order=Order.ASCENDING),
    Settings(order=Order.DESCENDING),
    Settings(order=Order.RANDOM, seed=1),
    Settings(order=Order.RANDOM, seed=2, blocks=3),
)
RACE_ORDERS = (Settings(order=Order.RANDOM, seed=3),)
Edit = Callable[[str], str]


@dataclass(frozen=True)
class Group:
    """Cases that are one program. Of each node that has several candidates the first such node
    takes the one of number ``first``, the next the one after it, and so on, counted round.
    """

    name: str
    cases: Callable[[], Sequence[Case]]
    precision: str = PRECISIONS[0]
    threads: int = THREADS[0]
    policy: str = "waves"
    first: int = 0
    is_large: bool = False  # too much for the race build


@dataclass(frozen=True)
class Failure:
    """What is wrong with a case in an order; without a case, with the whole run."""

    group: str
    case: str
    order: str
    text: str

    def __str__(self) -> str:
        return f"{self.group}: {self.case or 'the run'}, {self.order}: {self.text}"


def run(
    group: Group,
    orders: Sequence[Settings] = ORDERS,
    race_orders: Sequence[Settings] = RACE_ORDERS,
    edit: Edit = str,
) -> list[Failure]:
    """All cases in all orders, and in the race build in those; ``edit`` may break the text."""
    cases = list(group.cases())
    expected = [expected_of(case) for case in cases]
    with tempfile.TemporaryDirectory() as folder:
        artifact = artifacts.emit(compiled(group, cases), Path(folder, "cases.cu"), {})
        return [
            failure
            for race, tried in ((False, orders), (True, race_orders))
            if tried
            for failure in _failures(group, cases, expected, artifact, tried, race, edit)
        ]


def compiled(group: Group, cases: Sequence[Case]) -> Program:
    target = replace(find_target("h200"), sms=SMS, threads=group.threads)
    target = target.with_precision(group.precision)
    graph = optimise(import_model(model_of(cases)), group.precision)
    lowered = lower(graph, target, _one_after_the_other(group.first))
    made = search(lowered, AnalyticCost()).best((POLICIES[group.policy],), Rule.FASTEST)
    return finish(made, lowered)


def _one_after_the_other(first: int) -> Offer:
    numbers = itertools.count(first)

    def offer(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        number = next(numbers) if len(candidates) > 1 else 0
        return (candidates[number % len(candidates)],)

    return offer


def _failures(
    group: Group,
    cases: Sequence[Case],
    expected: Sequence[Sequence[Array]],
    artifact: Artifact,
    orders: Sequence[Settings],
    race: bool,
    edit: Edit,
) -> Iterator[Failure]:
    inputs = {
        f"c{number}_{name}": value
        for number, case in enumerate(cases)
        for name, value in case.inputs.items()
    }
    given = [np.ascontiguousarray(inputs[port.name]) for port in artifact.inputs]
    driver = EmulatedDriver(artifact, race=race, text=edit(artifact.text()), quick=True)
    for settings in orders:
        order = _name_of(settings, race)
        driver.settings = settings
        try:
            found = iter(driver.run(given))
        except RamforgeError as error:
            yield Failure(group.name, "", order, str(error).strip()[:500])
            continue
        for case, values in zip(cases, expected, strict=True):
            for wanted in values:
                if text := difference(next(found), wanted, case.tolerance):
                    yield Failure(group.name, case.name, order, text)


def _name_of(settings: Settings, race: bool) -> str:
    seed = f" {settings.seed}" if settings.order is Order.RANDOM else ""
    blocks = f", {settings.blocks} blocks" if settings.blocks else ""
    return f"{settings.order.name.lower()}{seed}{blocks}{', race build' if race else ''}"
