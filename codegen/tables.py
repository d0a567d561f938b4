"""The schedule as rows of text: neighbouring lanes that do the same on neighbouring tasks are one
row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ramforge.compiler.rprogram import Launch, Plan, Prefetch, ROperator, Run, Signal, Wait


@dataclass(frozen=True, slots=True)
class Row:
    """One rf_entry: ``lanes`` lanes from ``lane`` on."""

    rank: int
    kind: str
    lane: int
    lanes: int
    what: int
    first: int
    count: int


def _next_key(row: Row) -> tuple[int, str, int, int, int, int]:
    """What the row of the next lane must look like to be the same row."""
    return (row.rank, row.kind, row.what, row.count, row.lane + 1, row.first + row.count)


def _key(row: Row) -> tuple[int, str, int, int, int, int]:
    return (row.rank, row.kind, row.what, row.count, row.lane, row.first)


def rows(launch: Launch) -> list[Row]:
    """The rows of a launch in topological order."""
    single = sorted(_single_rows(launch), key=lambda row: (row.rank, row.lane))
    starts = [
        number
        for number, row in enumerate(single)
        if number == 0 or _next_key(single[number - 1]) != _key(row)
    ]
    bounds = pairwise([*starts, len(single)])
    return [replace(single[start], lanes=end - start) for start, end in bounds]


def _single_rows(launch: Launch) -> Iterator[Row]:
    for lane, entries in enumerate(launch.lanes):
        for entry in entries:
            if isinstance(entry, Run | Prefetch):
                kind = "RF_RUN" if isinstance(entry, Run) else "RF_PREFETCH"
                yield Row(entry.rank, kind, lane, 1, entry.operator, entry.first, entry.count)
            elif isinstance(entry, Wait):
                yield Row(entry.rank, "RF_WAIT", lane, 1, entry.counter, entry.full, 0)
            else:
                assert isinstance(entry, Signal)
                yield Row(entry.rank, "RF_SIGNAL", lane, 1, entry.counter, 0, 0)


def table(plan: Plan, operators: Sequence[ROperator]) -> tuple[list[str], list[str]]:
    """The texts of rf_entries and rf_launches, and the number of entries.

    The launches of a run share one epoch, so each has counters of its own in the control block.
    """
    texts: list[str] = []
    launches: list[str] = []
    end = first_counter = 0
    for launch in plan.launches:
        found = rows(launch)
        for row in found:
            what = row.what + (first_counter if row.kind in ("RF_WAIT", "RF_SIGNAL") else 0)
            numbers = f"{row.lane}, {row.lanes}, {what}, {row.first}, {row.count}"
            texts.append(f"{{{row.kind}, {numbers}}},{_comment(row, operators)}")
        launches.append(f"{{{end}, {end + len(found)}, {len(launch.lanes)}}},")
        end += len(found)
        first_counter += launch.counters
    return texts, launches


def _comment(row: Row, operators: Sequence[ROperator]) -> str:
    if row.kind == "RF_RUN":
        name = printable(operators[row.what].name)
        return f"  // {row.lanes * row.count} of {operators[row.what].tasks} tasks of {name}"
    return ""


def printable(name: str) -> str:
    """A name that is safe in a C comment: one line, and no backslash that would join the next."""
    return "".join(c if c.isprintable() and c not in "\\?" else "_" for c in name)
