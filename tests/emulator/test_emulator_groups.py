"""A small part of ``make emulator``, and that it finds what is broken on purpose."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from click.testing import CliRunner

from ramforge.compiler.device import PRECISIONS, THREADS
from ramforge.compiler.registry import families
from ramforge.kernels.tiles import TILES
from tests.emulator import __main__ as command
from tests.emulator import groups as all_groups
from tests.emulator.groups import FEW, MANY, SIZES, SOURCES, groups, product
from tests.emulator.running import ORDERS, RACE_ORDERS, Group, compiled, run
from tests.helpers import Case

SMALL = [(m, n, k) for m, n, k in ((1, 7, 65), (7, 65, 63), (65, 63, 7), (65, 65, 65), (3, 7, 1))]
QUICK = (ORDERS[1], ORDERS[3])


def some_products() -> list[Case]:
    return [product(source, *each) for source in SOURCES for each in SMALL]


def long_rows() -> list[Case]:
    return [case for case in all_groups.rows() if "7x1000" in case.name]


def other_bodies() -> list[Case]:
    """A few of all others."""
    makers = (
        *(all_groups.rows, all_groups.reductions, all_groups.windows, all_groups.maps),
        *(all_groups.integer_products, all_groups.convolutions, all_groups.attentions),
    )
    some = [case for maker in makers for case in list(maker())[5::17]]
    return [*some, *list(all_groups.cells())[2:]]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_products_are_right_in_every_order(precision: str) -> None:
    assert run(Group("products", some_products, precision), QUICK) == []


def test_other_bodies_are_right_in_every_order() -> None:
    assert run(Group("others", other_bodies, threads=128), QUICK) == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_tile_is_run_in_every_precision(precision: str) -> None:
    name = f"products, {precision}, packed, {THREADS[0]} threads"
    (group,) = (group for group in groups() if group.name == name)
    summaries = [each.variant.body.summary for each in compiled(group, group.cases()).operators]
    found = {summary.rpartition("tiles of ")[2] for summary in summaries}
    assert {f"{tile.m} x {tile.n}" for tile in TILES} <= found


def test_every_family_is_run() -> None:
    found = {
        operator.variant.body.family
        for group in (Group("others", other_bodies), Group("products", some_products))
        for operator in compiled(group, group.cases()).operators
    }
    assert found == {family.name for family in families()}


def test_sizes_are_in_every_place_of_a_product() -> None:
    sizes = [*all_groups.sizes(1, FEW), *all_groups.sizes(FEW + 1, MANY)]
    for place in range(3):
        assert set(SIZES) <= {each[place] for each in sizes}
    assert (1000, 7, 65) in sizes and (65, 1000, 63) in sizes and (1, 1, 1) in sizes


@dataclass(frozen=True)
class Fault:
    """What stands in the text of a program, and what is put in its place."""

    old: str
    new: str
    cases: Callable[[], Sequence[Case]] = some_products


STORED = r"if \(m < P::M && n < P::N\)"
FAULTS = {
    "a stage is read before it is there": Fault(r"rf_sync\(\);(?=  // all have what)", ""),
    "a stage is waited for too late": Fault(r"(?<=rf_copies_wait<TILE::STAGES - )2", "1"),
    "the last row is not stored": Fault(STORED, "if (m < P::M - 1 && n < P::N)"),
    "a row too many is stored": Fault(STORED, "if (m <= P::M && n < P::N)"),
    "the last column is not brought": Fault(r"n0 \+ n < P::N;", "n0 + n < P::N - 1;"),
    "warps of a row do not wait for each other": Fault(
        r"(?<=told\[threadIdx\.x / 32\] = sum;\n)  rf_sync\(\);", "", long_rows
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_broken_on_purpose_is_found(name: str) -> None:
    fault = FAULTS[name]

    def broken(text: str) -> str:
        changed, times = re.subn(fault.old, fault.new, text)
        assert times, f"{fault.old} is not there"
        return changed

    failures = run(Group("broken", lambda: list(fault.cases())), (), RACE_ORDERS, broken)
    assert failures
    print(failures[0])


def test_a_failure_tells_the_case_and_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(product("dense", 7, 7, 7), expected=(np.zeros((7, 7), np.float32),))
    monkeypatch.setattr(command, "groups", lambda: [Group("one", lambda: [wrong])])
    result = command.run_named("one", float("inf"))
    assert result is not None
    failures, cases, _ = result
    assert cases == 1 and len(failures) == len(ORDERS) + len(RACE_ORDERS)
    assert str(failures[0]).startswith("one: [7 x 7] by [7 x 7], dense, ascending: off by")
    assert command.run_named("one", 0.0) is None


def test_the_command_tells_the_groups_it_knows() -> None:
    result = CliRunner().invoke(command.main, ("--list", "--only", "rows"))
    assert result.exit_code == 0 and result.output.splitlines() == ["rows", "rows, 128 threads"]
    result = CliRunner().invoke(command.main, ("--only", "nothing of the kind"))
    assert result.exit_code == 2
