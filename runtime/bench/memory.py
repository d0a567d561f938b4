"""What the networks of the zoo take of memory: ``docs/results/memory.json``, and a page from it.

    python -m ramforge.runtime.bench.memory             # all of them, half an hour and more
    python -m ramforge.runtime.bench.memory resnet50    # this one anew, the others as they were

Workspaces are compared with the most that lives at once under the same schedule, as
``packing.live_peak`` counts it: up to boundaries, in one wave. The peak of a program on the host is
compared with its weights and its workspace; that of a program that does nothing is taken off.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from ramforge.compiler.errors import EXIT_CHECK, ArtifactError
from ramforge.compiler.schedule import AUTO, POLICIES
from ramforge.compiler.version import VERSION
from ramforge.runtime.bench import networks
from ramforge.runtime.bench.memory_child import TARGETS, Binary, Workspace
from ramforge.runtime.tables import Table

FORMAT = 1
MOST_SECONDS = 3600.0
# What is promised: of a workspace, and of a program that plans for more than LARGE bytes.
MOST_WORKSPACE, MOST_PROGRAM, LARGE = 1.1, 1.3, 20_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """A network: its figures, or what went wrong."""

    network: str
    plans: tuple[Workspace, ...] = ()
    binary: Binary | None = None
    problem: str = ""

    @property
    def ok(self) -> bool:
        if self.binary is None or not self.plans:
            return False
        is_large = self.binary.planned_bytes > LARGE
        tight = all(plan.ratio <= MOST_WORKSPACE for plan in self.plans)
        return tight and (not is_large or self.binary.ratio <= MOST_PROGRAM)


@dataclass(frozen=True, slots=True)
class Document:
    """The rows of a run."""

    ramforge: str
    rows: tuple[Row, ...]


def measure(name: str, small: bool = False) -> Row:
    """A network, made and measured in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        model, output = (Path(folder, file) for file in ("net.onnx", "figures.json"))
        making = ["ramforge.runtime.cli", "zoo", "build", name, "-o", str(model), "-q"]
        problem = _run([*making, *(["--small"] if small else [])])
        problem = problem or _run(["ramforge.runtime.bench.memory_child", str(model), str(output)])
        if problem:
            return Row(name, problem=problem)
        return _row({"network": name, **json.loads(output.read_text())})


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


def _row(found: dict[str, Any]) -> Row:
    plans = [_without_ratio(Workspace, plan) for plan in found.get("plans", ())]
    binary = _without_ratio(Binary, found["binary"]) if found.get("binary") else None
    return Row(found["network"], tuple(plans), binary, found.get("problem", ""))


def _without_ratio(kind: Any, found: dict[str, Any]) -> Any:
    return kind(**{name: value for name, value in found.items() if name != "ratio"})


def as_json(document: Document) -> str:
    """All figures, with the ratios of them."""
    rows = []
    for row in document.rows:
        found = asdict(row)
        for plan, each in zip(found["plans"], row.plans, strict=True):
            plan["ratio"] = round(each.ratio, 4)
        if row.binary:
            found["binary"]["ratio"] = round(row.binary.ratio, 4)
        rows.append(found)
    content = {"format": FORMAT, "ramforge": document.ramforge, "rows": rows}
    return json.dumps(content, indent=1) + "\n"


def read(path: Path) -> Document:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found.get("format") != FORMAT:
        raise ArtifactError(f"{path}: another format\n    fix: delete it, and measure again")
    return Document(found["ramforge"], tuple(_row(row) for row in found["rows"]))


_PAGE = """\
# Memory

Made by `python -m ramforge.runtime.bench.memory` from docs/results/memory.json, with ramforge
{version}: the networks of the zoo at full size.

## Workspace

Bytes of the workspace over the most that lives at once under the same schedule: all tensors that
are in use in one wave of rOperators, each up to a boundary of {alignment} bytes. At most {most} is
promised.

{workspaces}

## Programs on the host

The most memory that the stand-alone program has had, less that of a program that does nothing,
against its weights and its workspace. Inputs and outputs come on top. At most {most_program} is
promised where weights and workspace take more than {large}.

{programs}
"""


def tables(document: Document) -> tuple[Table, Table]:
    """Workspaces, and programs."""
    done = [row for row in document.rows if row.plans and row.binary]
    head = [f"{target} {policy}" for target in TARGETS for policy in (*POLICIES, AUTO)]
    workspaces = Table(
        "workspace over what lives at once",
        ("network", *head),
        [(row.network, *_ratios(row)) for row in done],
    )
    programs = Table(
        "programs on the host",
        ("network", "weights", "workspace", "inputs, outputs", "peak", "ratio"),
        [(row.network, *_program(row.binary)) for row in done if row.binary],
    )
    return workspaces, programs


def _ratios(row: Row) -> list[str]:
    found = {(plan.target, plan.policy): f"{plan.ratio:.3f}" for plan in row.plans}
    return [found.get((target, policy), "") for target in TARGETS for policy in (*POLICIES, AUTO)]


def _program(found: Binary) -> tuple[str, ...]:
    sizes = (found.weight_bytes, found.workspace_bytes, found.port_bytes, found.peak_bytes)
    return (*map(_megabytes, sizes), f"{found.ratio:.3f}")


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB"


def page(document: Document) -> str:
    from ramforge.compiler.packing import ALIGNMENT

    workspaces, programs = tables(document)
    return _PAGE.format(
        version=document.ramforge,
        alignment=ALIGNMENT,
        most=MOST_WORKSPACE,
        workspaces=workspaces.markdown(),
        most_program=MOST_PROGRAM,
        large=_megabytes(LARGE),
        programs=programs.markdown(),
    )


def write(document: Document, data: Path, text: Path) -> None:
    """Both files."""
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(as_json(document), encoding="utf-8")
    text.write_text(page(document), encoding="utf-8")


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "data", type=Path, default=Path("docs/results/memory.json"))
@click.option("--markdown", "text", type=Path, default=Path("docs/MEMORY.md"))
@click.option("--small", is_flag=True, help="The small forms, to try this command.")
def main(names: tuple[str, ...], data: Path, text: Path, small: bool) -> None:
    """Measure the networks with these NAMES, or all; the files are written after each of them."""
    from ramforge.zoo import ZOO

    asked = networks.chosen(names)
    known = {row.network: row for row in read(data).rows} if data.exists() else {}
    document = Document(VERSION, ())
    for name in asked:
        known[name] = row = measure(name, small)
        document = replace(document, rows=tuple(known[each] for each in ZOO if each in known))
        write(document, data, text)
        click.echo(f"{name}: {row.problem or _summary(row)}")
    click.echo("\n\n".join(table.plain() for table in tables(document)))
    if not all(known[name].ok for name in asked):
        raise SystemExit(EXIT_CHECK)


def _summary(row: Row) -> str:
    assert row.binary is not None
    worst = max(plan.ratio for plan in row.plans)
    return f"workspace at most {worst:.3f}, program {row.binary.ratio:.3f}"


if __name__ == "__main__":
    main()
