"""A fixed part of the suite: every operator that can be sampled, and then by lot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from tests.conformance.runner import PASSED, REFUSED, Row

SIZE = 300
# Files of the suite that take many seconds to make what they expect.
SLOW_FILES = ("averagepool", "lppool", "maxpool")


def chosen(rows: Iterable[Row], known: Iterable[str]) -> list[Row]:
    """SIZE of the rows whose tests are known, always the same ones."""
    names = set(known)
    lots = sorted(
        (row for row in rows if row.outcome in (PASSED, REFUSED) and row.name in names),
        key=lambda row: hashlib.sha256(row.name.encode()).digest(),
    )
    seen: set[str] = set()
    first, others = [], []
    for row in lots:
        (others if seen.issuperset(row.operators) else first).append(row)
        seen.update(row.operators)
    return [*first, *others][:SIZE]
