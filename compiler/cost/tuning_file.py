"""A Tuning as a file: JSON with a version, checked when it is read.

``text`` writes the same Tuning as the same bytes, so its digest stands for all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ramforge.compiler.cost import SyncCost
from ramforge.compiler.cost.tuned import Measured, Tuning
from ramforge.compiler.device import Target
from ramforge.compiler.errors import ArtifactError, OptionError
from ramforge.compiler.rprogram import TaskCost
from ramforge.compiler.version import VERSION

FORMAT = 1
_FIX = "measure again with compile MODEL --tune and another file"
_MOST_PROBLEMS = 5
_MUCH = 1e30

Checks = dict[str, tuple[Callable[[Any], bool], str]]


def text(tuning: Tuning) -> str:
    document = {
        "format": FORMAT,
        "ramforge": VERSION,
        "target": {"name": tuning.target, "sms": tuning.sms},
        "machine": tuning.machine,
        "sync": dict(sorted(tuning.sync.items())),
        "bodies": [asdict(row) for row in sorted(tuning.bodies, key=lambda row: row.place)],
    }
    return json.dumps(document, indent=1) + "\n"


def digest(tuning: Tuning) -> str:
    return hashlib.sha256(text(tuning).encode()).hexdigest()


def read(path: str | os.PathLike[str], target: Target) -> Tuning:
    """The measurements in a file; an error if they are for another target than this one."""
    found = _parsed(Path(path))
    if (found.target, found.sms) != (target.label, target.sms):
        raise OptionError(
            f"{path}: measured for {found.target} with {found.sms} SMs, not for {target.label} "
            f"with {target.sms}\n    fix: --target {found.target}, or another file"
        )
    return found


def _parsed(path: Path) -> Tuning:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(
            f"{path}: the tuning file cannot be read ({error.strerror})\n"
            f"    fix: make one with compile MODEL --tune {path}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: is not a tuning file ({error})\n    fix: {_FIX}") from None
    version = document.get("format") if isinstance(document, dict) else None
    if version != FORMAT or isinstance(version, bool):
        raise ArtifactError(
            f"{path}: not a tuning file of format {FORMAT}, but {version}\n    fix: {_FIX}"
        )
    problems = list(_problems(document))
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        lines = problems[:_MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
        listed = "\n".join(f"  {line}" for line in lines)
        raise ArtifactError(f"{path}: a damaged tuning file\n{listed}\n    fix: {_FIX}")
    bodies = tuple(
        Measured(**{**row, "cost": TaskCost(**row["cost"])}) for row in document["bodies"]
    )
    target = document["target"]
    return Tuning(target["name"], target["sms"], document["machine"], bodies, document["sync"])


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_size(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value < _MUCH  # NaN is not


def _is_time(value: Any) -> bool:
    return _is_size(value) and value > 0


_TEXT = (_is_text, "a text")
_TABLE = (_is_table, "a table")
_LIST = (_is_list, "a list")
_COUNT = (_is_count, "a whole number above 0")
_SIZE = (_is_size, "a number of 0 or more")
_TIME = (_is_time, "a number above 0")

_DOCUMENT: Checks = {
    "format": _COUNT,
    "ramforge": _TEXT,
    "target": _TABLE,
    "machine": _TEXT,
    "sync": _TABLE,
    "bodies": _LIST,
}
_TARGET: Checks = {"name": _TEXT, "sms": _COUNT}
_MEASURED: Checks = {
    "name": _TEXT,
    "family": _TEXT,
    "summary": _TEXT,
    "task_ns": _TIME,
    "units": _COUNT,
    "threads": _COUNT,
    "blocks_per_sm": _COUNT,
    "cost": _TABLE,
}
_COST: Checks = {
    **{each.name: _SIZE for each in fields(TaskCost)},
    "efficiency": _TIME,
}
_SYNC: Checks = {each.name: _SIZE for each in fields(SyncCost)}


def _problems(document: dict[str, Any]) -> Iterator[str]:
    found = list(_wrong("", document, _DOCUMENT))
    if found:
        yield from found
        return
    yield from _wrong("target.", document["target"], _TARGET)
    given = {name: check for name, check in _SYNC.items() if name in document["sync"]}
    yield from _wrong("sync.", document["sync"], given)
    seen: set[tuple[str, int]] = set()
    for number, row in enumerate(document["bodies"]):
        where = f"bodies[{number}]"
        if not isinstance(row, dict):
            yield f"{where} has to be a table"
            continue
        wrong = [*_wrong(f"{where}.", row, _MEASURED)]
        wrong = wrong or [*_wrong(f"{where}.cost.", row["cost"], _COST)]
        yield from wrong
        if not wrong:
            place = (row["name"], row["threads"])
            if place in seen:
                yield f"{where} is of {place[0]} with {place[1]} threads, as another one before it"
            seen.add(place)


def _wrong(where: str, table: dict[str, Any], checks: Checks) -> Iterator[str]:
    """What is missing, what is of the wrong kind, and what nobody knows."""
    for name, (holds, kind) in checks.items():
        if name not in table:
            yield f"{where}{name} is missing"
        elif not holds(table[name]):
            yield f"{where}{name} has to be {kind}"
    for name in sorted(table.keys() - checks.keys()):
        yield f"{where}{name} is not known"
