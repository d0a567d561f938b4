"""docs/ADDING_AN_OPERATOR.md quotes the code that it is about."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_is_quoted_is_in_the_operator() -> None:
    page = (ROOT / "docs/ADDING_AN_OPERATOR.md").read_text()
    code = textwrap.dedent((ROOT / "kernels/operators/max_roi_pool.py").read_text())
    plain = "\n".join(line.strip() for line in code.splitlines())
    quotes = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(quotes) == 2
    for quote in quotes:
        for part in quote.split("\n\n"):
            lines = [line.strip() for line in part.splitlines() if line.strip()]
            assert "\n".join(lines) in plain
