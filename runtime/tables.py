"""Tables of text: for a terminal, and for a page of Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_NUMBER = re.compile(r"-?[\d.,]+(e[-+]\d+)?( ?[%x]| [kMGTu]?[Bs])?")


def cell(name: str) -> str:
    """A name on one line, with nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text under a title; columns of numbers are aligned to the right."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def plain(self) -> str:
        columns = list(zip(self.head, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        right = self._numeric()
        lines = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(row, widths, right, strict=True)
            ).rstrip()
            for row in (self.head, *self.rows)
        ]
        return "\n".join([self.title, *lines])

    def markdown(self) -> str:
        rule = ["---:" if number else "---" for number in self._numeric()]
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.head, rule, *self.rows))

    def _numeric(self) -> list[bool]:
        columns = zip(*self.rows, strict=True) if self.rows else [[] for _ in self.head]
        return [
            bool(column) and all(not cell or _NUMBER.fullmatch(cell) for cell in column)
            for column in columns
        ]
