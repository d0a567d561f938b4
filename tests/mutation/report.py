"""docs/mutation.json and docs/MUTATION.md, from the studies of the full-size networks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ramforge.zoo import ZOO
from tests.mutation.mutants import SHARPER
from tests.mutation.study import COUNT, Study

FOLDER = Path(__file__).parents[2] / "docs"
TABLE, PAGE = FOLDER / "mutation.json", FOLDER / "MUTATION.md"
LEAST = 0.95
# More than a machine of 24 GB should be asked for.
TOO_LARGE = ("llama_decode",)


def enter(study: Study) -> None:
    """In the place of what was known of this network; rows stand in the order of the zoo."""
    known = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else []
    by_model = {row["model"]: row for row in [*known, study.as_json()]}
    rows = [by_model[name] for name in ZOO if name in by_model]
    TABLE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(rows), encoding="utf-8")


def page(rows: Sequence[dict[str, Any]]) -> str:
    return "\n".join([*_head(), *_by_model(rows), *_missed(rows), *_equivalent(rows)]) + "\n"


def _head() -> Iterator[str]:
    yield "# Do the random weights show mistakes?"
    yield ""
    yield (
        f"Each network of the zoo at full size, with {COUNT} mistakes from all over the graph, one "
        "at a time: an activation or a bias left out, the weights of one channel used for its "
        f"neighbour, a window shifted by one, a softmax sharpened by {SHARPER}, the other kind of "
        "pooling, a shortcut left out, two parts of a Concat exchanged. A mistake is caught if an "
        "output changes by more than the tolerance at which results are compared. "
        "`make mutants` writes this page and [mutation.json](mutation.json); at least "
        f"{LEAST:.0%} have to be caught."
    )
    yield ""


def _by_model(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "| network | nodes | mutants | caught | share |"
    yield "|---|---:|---:|---:|---:|"
    for row in rows:
        share = row["caught"] / max(row["mutants"], 1)
        yield (
            f"| {row['model']} | {row['nodes']} | {row['mutants']} | {row['caught']} "
            f"| {share:.0%} |"
        )


def _missed(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from ("", "## Not caught", "")
    lines = [f"- {row['model']}: {title}" for row in rows for title in row["missed"]]
    yield from lines or ["none"]


def _equivalent(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from ("", "## Mistakes that are none, and do not count", "")
    lines = [
        f"- {row['model']}: {item['title']}: {item['why']}"
        for row in rows
        for item in row["equivalent"]
    ]
    yield from lines or ["none"]
