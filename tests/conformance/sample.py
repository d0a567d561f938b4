"""A fixed part of the suite: every operator, and then by lot among small models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from tests.conformance.runner import PASSED, REFUSED, Row
from tests.conformance.suite import SuiteTest

SIZE = 200
# Files of the suite that take many seconds to make what they expect.
SLOW_FILES = ("averagepool", "lppool", "maxpool")


def chosen(rows: Iterable[Row], tests: Mapping[str, SuiteTest]) -> list[Row]:
    """SIZE of the rows that have a test, always the same ones, those of few nodes first."""
    lots = sorted(
        (row for row in rows if row.outcome in (PASSED, REFUSED) and row.name in tests),
        key=lambda row: (_weight(tests[row.name]), hashlib.sha256(row.name.encode()).digest()),
    )
    seen: set[str] = set()
    first, others = [], []
    for row in lots:
        (others if seen.issuperset(row.operators) else first).append(row)
        seen.update(row.operators)
    return [*first, *others][:SIZE]


def _weight(test: SuiteTest) -> int:
    return len(test.model().graph.node) // 4
