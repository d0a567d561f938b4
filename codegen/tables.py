"""The schedule as text: the rows of a plan, with the nodes they serve in a comment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ramforge.compiler.plan import Kind, Plan, Row
from ramforge.compiler.rprogram import ROperator


@dataclass(frozen=True, slots=True)
class Tables:
    """The rows of rf_entries, rf_events and rf_launches."""

    entries: list[str]
    events: list[str]
    launches: list[str]


def tables(plan: Plan, operators: Sequence[ROperator], kernels: Sequence[int]) -> Tables:
    """``kernels`` says which kernel each launch starts.

    The launches of a run share one epoch, so each has events of its own in the control block.
    """
    found = Tables([], [], [])
    event = counter = 0
    for launch, kernel in zip(plan.launches, kernels, strict=True):
        begin = len(found.entries)
        for row in launch.rows:
            what = row.what + (event if row.kind in (Kind.WAIT, Kind.SIGNAL) else 0)
            numbers = (row.lane, row.lanes, row.per, what, row.first, row.units, row.step)
            text = f"{{RF_{row.kind.name}, {', '.join(map(str, numbers))}}},"
            found.entries.append(text + _comment(row, operators))
        for size, group, groups in zip(
            launch.events.size.tolist(),
            launch.events.group.tolist(),
            launch.events.groups.tolist(),
            strict=True,
        ):
            found.events.append(f"{{{counter}, {size}, {group}}},")
            counter += groups
        event += len(launch.events)
        found.launches.append(f"{{{begin}, {len(found.entries)}, {launch.lanes}, {kernel}}},")
    return found


def _comment(row: Row, operators: Sequence[ROperator]) -> str:
    if row.kind is Kind.RUN:
        name = printable(operators[row.what].name)
        return f"  // {row.lanes * row.units} of {operators[row.what].tasks} tasks of {name}"
    return ""


def printable(name: str) -> str:
    """A name that is safe in a C comment: one line, and no backslash that would join the next."""
    return "".join(c if c.isprintable() and c not in "\\?" else "_" for c in name)
