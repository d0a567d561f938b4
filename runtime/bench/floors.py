"""The plans of the zoo against what no plan does without: ``docs/results/floors.json``, and a page.

    python -m ramforge.runtime.bench.floors             # all of them, half an hour and more
    python -m ramforge.runtime.bench.floors resnet50    # this one anew, the others as they were

Times are predictions of the cost model; nothing is run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from ramforge.compiler.errors import ArtifactError
from ramforge.compiler.version import VERSION
from ramforge.runtime.bench import networks
from ramforge.runtime.bench.floors_child import PRECISIONS, TARGET, Figures
from ramforge.runtime.bench.zoo_child import size_of
from ramforge.runtime.tables import Table

FORMAT = 1
MOST_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Row:
    """A network: its nodes but for constants, how many of them depend on each other at most, and
    the figures for each precision; or what went wrong.
    """

    network: str
    nodes: int = 0
    depth: int = 0
    plans: tuple[Figures, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    ramforge: str
    target: str
    rows: tuple[Row, ...]


def measure(name: str, small: bool = False) -> Row:
    """A network, made and planned in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        model, output = (Path(folder, file) for file in ("net.onnx", "figures.json"))
        making = ["ramforge.runtime.cli", "zoo", "build", name, "-o", str(model), "-q"]
        problem = _run([*making, *(["--small"] if small else [])])
        problem = problem or _run(["ramforge.runtime.bench.floors_child", str(model), str(output)])
        if problem:
            return Row(name, problem=problem)
        nodes, depth = size_of(model)
        plans = tuple(Figures(**each) for each in json.loads(output.read_text()))
        return Row(name, nodes, depth, plans)


def _run(arguments: Sequence[str]) -> str:
    """Run a module; what went wrong, or nothing."""
    command = [sys.executable, "-m", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no result in {MOST_SECONDS:.0f} s"
    said = done.stderr.strip().splitlines()
    errors = [line for line in said if "rror" in line] or said or ["nothing was said"]
    return f"exit {done.returncode}: {errors[-1][:200]}" if done.returncode else ""


def as_json(document: Document) -> str:
    return json.dumps({"format": FORMAT, **asdict(document)}, indent=1) + "\n"


def read(path: Path) -> Document:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found.pop("format", None) != FORMAT:
        raise ArtifactError(f"{path}: another format\n    fix: delete it, and measure again")
    rows = [
        Row(**{**row, "plans": tuple(Figures(**each) for each in row["plans"])})
        for row in found.pop("rows")
    ]
    return Document(rows=tuple(rows), **found)


_PAGE = """\
# Plans and their floors

Made by `python -m ramforge.runtime.bench.floors` from docs/results/floors.json, with ramforge
{version}: the networks of the zoo at full size, planned for `{target}`. All times are predictions
of the cost model, whose constants no GPU has confirmed.

*Nodes* are those of the ONNX graph but for constants, *depth* the longest chain of them. *Kernels*
are distinct bodies, *levels* the waves of rOperators that depend on each other, *chain* the
rOperators of the critical path.

*Least* is each constant, input and output once. *Moved* is what each rOperator touches by its
regions, once for all of its rTasks: what is written for the next one and read again counts there
twice. *By rTasks* is what each rTask touches for itself, most of it out of caches.

The *floor* is one launch and all arithmetic at the peak rate of its products, or the least bytes
through memory, whatever takes longer. The *critical path* is the longest chain of rOperators with
as many vEUs as they like. *Predicted* is the plan that the compiler takes.

{tables}
"""

_HEAD = (
    *("network", "nodes", "depth", "rOperators", "kernels", "levels", "chain", "GFLOP"),
    *("least", "moved", "moved / least", "by rTasks", "floor us", "critical path us"),
    *("predicted us", "predicted / floor", "schedule", "launches"),
)


def table(document: Document, precision: str) -> Table:
    rows = [
        _cells(row, plan)
        for row in document.rows
        for plan in row.plans
        if plan.precision == precision
    ]
    return Table(precision, _HEAD, rows)


def _cells(row: Row, plan: Figures) -> tuple[str, ...]:
    counts = (row.nodes, row.depth, plan.roperators, plan.bodies, plan.levels, plan.chain)
    return (
        row.network,
        *map(str, counts),
        f"{plan.flops / 1e9:.2f}",
        *(_megabytes(plan.least_bytes), _megabytes(plan.moved_bytes)),
        f"{plan.moved_bytes / plan.least_bytes:.2f}",
        _megabytes(plan.task_bytes),
        *(f"{us:.1f}" for us in (plan.floor_us, plan.critical_path_us, plan.predicted_us)),
        f"{plan.predicted_us / plan.floor_us:.2f}",
        *(plan.policy, str(plan.launches)),
    )


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB"


def page(document: Document) -> str:
    tables = [f"## {name}\n\n{table(document, name).markdown()}" for name in PRECISIONS]
    problems = [(row.network, row.problem) for row in document.rows if row.problem]
    if problems:
        left_out = Table("", ("network", "why"), problems)
        tables.append(f"## Left out\n\n{left_out.markdown()}")
    return _PAGE.format(
        version=document.ramforge, target=document.target, tables="\n\n".join(tables)
    )


def write(document: Document, data: Path, text: Path) -> None:
    """Both files."""
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(as_json(document), encoding="utf-8")
    text.write_text(page(document), encoding="utf-8")


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "data", type=Path, default=Path("docs/results/floors.json"))
@click.option("--markdown", "text", type=Path, default=Path("docs/FLOORS.md"))
@click.option("--small", is_flag=True, help="The small forms, to try this command.")
def main(names: tuple[str, ...], data: Path, text: Path, small: bool) -> None:
    """Plan the networks with these NAMES, or all; the files are written after each of them."""
    from ramforge.zoo import ZOO

    asked = networks.chosen(names)
    known = {row.network: row for row in read(data).rows} if data.exists() else {}
    for name in asked:
        known[name] = row = measure(name, small)
        document = Document(VERSION, TARGET, tuple(known[each] for each in ZOO if each in known))
        write(document, data, text)
        click.echo(f"{name}: {row.problem or _summary(row)}")


def _summary(row: Row) -> str:
    return "; ".join(
        f"{plan.precision} {plan.predicted_us:.1f} us, floor {plan.floor_us:.1f} us"
        for plan in row.plans
    )


if __name__ == "__main__":
    main()
