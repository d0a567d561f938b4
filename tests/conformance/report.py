"""docs/conformance.json and docs/CONFORMANCE.md, from the rows of a whole run.

The same rows give the same bytes: there is no time and no path in them.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import onnx

from tests.conformance.devices import ARCHITECTURES, BLOCKS, TARGET, facets
from tests.conformance.runner import CONSTANT, IDLE, OUTCOMES, PASSED, REFUSED, Row

FOLDER = Path(__file__).parents[2] / "docs"
TABLE, PAGE = FOLDER / "conformance.json", FOLDER / "CONFORMANCE.md"

# Why something is refused: (heading, what it means, whether a row is of this kind), first fit.
_KINDS: Sequence[tuple[str, str, Callable[[Row], bool]]] = (
    (
        "Operators of other domains",
        "only the operators of ONNX itself (ai.onnx) are there",
        lambda row: any("." in name for name in row.operators),
    ),
    (
        "Sequences",
        "a program has dense tensors of fixed shapes; a list whose length a run decides is none",
        lambda row: "sequence" in row.foreign or any("Sequence" in op for op in row.operators),
    ),
    (
        "Optional values",
        "whether an input is there would have to be known at compile time",
        lambda row: "optional" in row.foreign or any("Optional" in op for op in row.operators),
    ),
    ("Strings", "no kernel reads or writes text", lambda row: "string" in row.foreign),
    (
        "Old opsets",
        "models older than opset 9 are refused; onnx.version_converter upgrades them",
        lambda row: "is older than" in row.reason,
    ),
    (
        "Random numbers without a seed",
        "a compiled program gives the same numbers in every run, so the model has to name them by "
        "a seed that is not 0; what the suite expects comes from NumPy's own generator",
        lambda row: "set the attribute 'seed'" in row.reason,
    ),
    (
        "Shapes that depend on run-time values",
        "memory is planned at compile time: such a shape has to be declared, or its operand given",
        lambda row: bool(re.search("depends on run-time|decides a shape", row.reason)),
    ),
    (
        "Control flow",
        "a loop or a branch that only a run decides",
        lambda row: "control flow" in row.reason,
    ),
)
_OTHER = "Other reasons"


def write(rows: Sequence[Row]) -> None:
    TABLE.write_text(json_text(rows), encoding="utf-8")
    PAGE.write_text(page(rows), encoding="utf-8")


def read() -> tuple[str, list[Row]]:
    """The onnx version and the rows of docs/conformance.json."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    known = {field.name for field in fields(Row)}
    rows = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        for row in table["tests"]
    ]
    assert all(row.keys() <= known for row in rows)
    return table["onnx_version"], [Row(**row) for row in rows]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    counts = Counter(row.outcome for row in rows)
    return {
        "onnx_version": onnx.__version__,
        "total": len(rows),
        **{outcome: counts[outcome] for outcome in OUTCOMES},
        "nvrtc": _column(rows, "nvrtc"),
        "emulator": _column(rows, "emulator"),
    }


def _column(rows: Sequence[Row], name: str) -> dict[str, int]:
    asked = [getattr(row, name) for row in rows if getattr(row, name)]
    return {"total": len(asked), "passed": asked.count(PASSED)}


def json_text(rows: Sequence[Row]) -> str:
    """One line for each test, so that a change is one line of a diff."""
    head = json.dumps(summary(rows), indent=1)[:-2]
    lines = ",\n".join("  " + json.dumps(_compact(row)) for row in rows)
    return f'{head},\n "tests": [\n{lines}\n ]\n}}\n'


def _compact(row: Row) -> dict[str, Any]:
    table = asdict(row)
    del table["seconds"]
    return {key: value for key, value in table.items() if value not in ("", ())}


def page(rows: Sequence[Row]) -> str:
    return "\n".join([*_head(rows), *_by_operator(rows), *_refusals(rows), *_failures(rows),
                      *_folded(rows), *_bound(rows)])  # fmt: skip


def _head(rows: Sequence[Row]) -> Iterator[str]:
    counts = summary(rows)
    yield "# Conformance"
    yield ""
    yield (
        f"The backend test suite of onnx {counts['onnx_version']}, all of it but the large models "
        "that it would have to fetch. `make conformance` writes this page and "
        "[conformance.json](conformance.json), a row for each test."
    )
    yield ""
    yield from _table(
        ("", "tests"),
        [("all", counts["total"]), *((name, counts[name]) for name in OUTCOMES)],
    )
    yield ""
    yield (
        "- **host**: run through `ramforge.onnx_backend` on the CPU, compared at the suite's own "
        "tolerances."
    )
    yield (
        f"- **NVRTC**: the CUDA text of every test that passed, compiled for {TARGET}, goes "
        f"through NVRTC for {' and '.join(ARCHITECTURES)}: {_share(counts['nvrtc'])}."
    )
    yield (
        "- **emulator**: the same text with every CUDA thread a fiber, in random order, on "
        f"{BLOCKS} blocks, for a few tests that together have every operator and element type: "
        f"{_share(counts['emulator'])}."
    )
    absent = _never_emulated(rows)
    if absent and counts["emulator"]["total"]:
        yield (
            "  What it has not run, for the compiler computes it in each test that passed: "
            f"{', '.join(absent)}."
        )


def _share(column: dict[str, int]) -> str:
    return (
        f"{column['passed']} of {column['total']}" if column["total"] else "not run for this page"
    )


def _never_emulated(rows: Sequence[Row]) -> list[str]:
    passed = {name for row in rows if row.outcome == PASSED for name in facets(row)}
    return sorted(passed - {name for row in rows if row.emulator for name in facets(row)})


def _by_operator(rows: Sequence[Row]) -> Iterator[str]:
    of: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        for name in row.operators:
            of[name].append(row)
    yield from ("", "## By operator", "", "A test counts for every operator of its model.", "")
    lines = []
    for name, mine in sorted(of.items()):
        passed = sum(row.outcome == PASSED for row in mine)
        columns = [_column(mine, column) for column in ("nvrtc", "emulator")]
        shares = [f"{c['passed']}/{c['total']}" if c["total"] else "" for c in columns]
        lines.append((name, f"{passed}/{len(mine)}", *shares))
    yield from _table(("operator", "host", "NVRTC", "emulator"), lines)


def _refusals(rows: Sequence[Row]) -> Iterator[str]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.outcome == REFUSED:
            kind = next((title for title, _, fits in _KINDS if fits(row)), _OTHER)
            found[kind].append(row)
    yield from ("", "## Refused", "", "Each with an error that names the node and a fix.")
    meanings = {title: meaning for title, meaning, _ in _KINDS}
    for title in (*meanings, _OTHER):
        mine = found.get(title, [])
        if not mine:
            continue
        yield from ("", f"### {title}: {len(mine)}", "")
        if title in meanings:
            yield from (_sentence(meanings[title]), "", _names(mine))
        else:
            yield from _by_reason(mine)


def _by_reason(rows: Iterable[Row]) -> Iterator[str]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[main_reason(row.reason)].append(row)
    for reason, mine in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        yield f"- {reason}: {_names(mine)}"


def main_reason(text: str) -> str:
    """The problem without its heading, its fix, and the names of this one model."""
    lines = [line.strip() for line in text.splitlines()]
    body = [line for line in lines if line and not line.startswith("fix:")]
    first = body[1] if len(body) > 1 and re.search(r"\d problems?$", body[0]) else body[0]
    return re.sub(r"'[^']*'", "'_'", first).replace("|", "/")


def _failures(rows: Sequence[Row]) -> Iterator[str]:
    """What nobody meant: there should be none."""
    failed = [row for row in rows if row.outcome not in (PASSED, REFUSED)]
    lines = [f"- {row.name}: {row.outcome}: {_last(row.reason)}" for row in failed]
    for row in rows:
        for place, text in (("NVRTC", row.nvrtc), ("emulator", row.emulator)):
            if text not in ("", PASSED):
                lines.append(f"- {row.name}: {place}: {_last(text)}")
    if lines:
        yield from ("", "## Failed", "", *lines)


def _last(text: str) -> str:
    return (text.splitlines() or [""])[-1].strip()


def _folded(rows: Sequence[Row]) -> Iterator[str]:
    yield from (
        "",
        "## Known at compile time",
        "",
        "Tests that passed although little or nothing was left to a run, so that they show what "
        "the compiler computes and not what its programs do.",
    )
    for what in (IDLE, CONSTANT):
        mine = [row for row in rows if row.outcome == PASSED and row.folded == what]
        yield from ("", f"### {_sentence(what)[:-1]}: {len(mine)}", "", _names(mine))


def _bound(rows: Sequence[Row]) -> Iterator[str]:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.bound:
            groups[", ".join(row.operators), ", ".join(row.bound)].append(row)
    total = sum(len(mine) for mine in groups.values())
    yield from (
        "",
        "## Inputs that were made constants",
        "",
        f"In {total} tests an input decides a shape: its value was given to the compiler, as a "
        "user would by `--bind`.",
        "",
    )
    yield from _table(
        ("operators", "inputs", "tests"),
        [(*names, len(mine)) for names, mine in sorted(groups.items())],
    )
    yield ""


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join(['---'] * len(head))}|"
    for line in lines:
        yield f"| {' | '.join(map(str, line))} |"


def _names(rows: Iterable[Row]) -> str:
    return ", ".join(row.name.removeprefix("test_") for row in rows) or "none"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
