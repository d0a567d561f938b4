"""The networks of the zoo in a table: ``docs/zoo.json`` and the page ``docs/ZOO.md`` from it.

    python -m ramforge.runtime.bench.zoo              # all of them, half an hour and more
    python -m ramforge.runtime.bench.zoo resnet50     # this one anew, the others as they were

Each network is made in one process and measured in another; ``ramforge zoo verify`` does the same
without timing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from ramforge.compiler.errors import EXIT_CHECK, ArtifactError
from ramforge.compiler.version import VERSION
from ramforge.runtime.bench import networks
from ramforge.runtime.bench.zoo_child import Figures
from ramforge.runtime.tables import Table

FORMAT = 1
NOT_RUN = "not run yet"
MOST_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Row:
    """A network: its figures, or what went wrong. ``make_s`` is the time to make the model."""

    name: str
    summary: str
    make_s: float = 0.0
    figures: Figures | None = None
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.figures is not None and self.figures.ok

    @property
    def verdict(self) -> str:
        if self.figures is None:
            return self.problem
        return "ok" if self.figures.ok else "WRONG"


@dataclass(frozen=True, slots=True)
class Document:
    """The rows of a run, and on what they were measured."""

    ramforge: str
    target: str
    threads: int
    rows: tuple[Row, ...]


def measure(
    name: str,
    *,
    small: bool = False,
    target: str = "host",
    threads: int = 2,
    rounds: int = 0,
    most_seconds: float = MOST_SECONDS,
) -> Row:
    """A network, made and measured in processes of their own."""
    from ramforge.zoo import ZOO

    row = Row(name, ZOO[name].summary)
    with tempfile.TemporaryDirectory() as folder:
        model, output = (Path(folder, file) for file in ("net.onnx", "figures.json"))
        making = ["ramforge.runtime.cli", "zoo", "build", name, "-o", str(model), "-q"]
        measuring = ["ramforge.runtime.bench.zoo_child", str(model), str(output)]
        measuring += ["--target", target, "--threads", str(threads), "--rounds", str(rounds)]
        start = time.perf_counter()
        problem = _run([*making, *(["--small"] if small else [])], most_seconds)
        row = replace(row, make_s=round(time.perf_counter() - start, 3))
        problem = problem or _run(measuring, most_seconds)
        if problem:
            return replace(row, problem=problem)
        return replace(row, figures=Figures(**json.loads(output.read_text())))


def _run(arguments: Sequence[str], most_seconds: float) -> str:
    """Run a module; what went wrong, or nothing."""
    command = [sys.executable, "-m", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=most_seconds)
    except subprocess.TimeoutExpired:
        return f"no result in {most_seconds:.0f} s"
    if not done.returncode:
        return ""
    said = done.stderr.strip().splitlines()
    errors = [line for line in said if "rror" in line] or said
    return f"exit {done.returncode}: {errors[-1][:200] if errors else 'nothing was said'}"


def table(rows: Sequence[Row]) -> Table:
    """What ``zoo verify`` prints."""
    head = ("network", "verdict", "error", "allowed", "nodes", "rOperators", "weights", "peak")
    return Table(
        "",
        (*head, "make", "compile", "build", "run"),
        [(row.name, row.verdict, *(_verified(row) if row.figures else [""] * 10)) for row in rows],
    )


def _verified(row: Row) -> Iterator[str]:
    found = row.figures
    assert found is not None
    yield from (f"{found.error:.1e}", f"{found.tolerance:.0e}")
    yield from (str(found.nodes), str(found.roperators))
    yield from (_megabytes(found.weight_bytes), _megabytes(found.peak_bytes))
    for seconds in (row.make_s, found.compile_s, found.build_s, found.run_s):
        yield f"{seconds:.2f} s"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB" if number < 1e7 else f"{number / 1e6:.0f} MB"


def write(document: Document, folder: Path) -> None:
    """Both files."""
    (folder / "zoo.json").write_text(as_json(document), encoding="utf-8")
    (folder / "ZOO.md").write_text(page(document), encoding="utf-8")


def as_json(document: Document) -> str:
    return json.dumps({"format": FORMAT, **asdict(document)}, indent=1) + "\n"


def read(folder: Path) -> Document:
    """The document in ``zoo.json``."""
    path = folder / "zoo.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found.pop("format", None) != FORMAT:
        raise ArtifactError(f"{path}: another format\n    fix: delete it, and make zoo")
    rows = [
        Row(**{**row, "figures": row["figures"] and Figures(**row["figures"])})
        for row in found.pop("rows")
    ]
    return Document(rows=tuple(rows), **found)


_PAGE = """\
# The zoo

Made by `make zoo` from docs/zoo.json: all networks of `examples/models`, full size, with seeded
random weights. Compiled for `{target}` with ramforge {version}, run on {threads} cores of a CPU in
float32, and compared with ONNX Runtime on the same inputs; quantised networks with onnx.reference.

{networks}

## Programs

*Levels* is the longest chain of nodes that depend on each other, *waves* what is left of it after
fusion. *Error* is the largest difference as a share of the largest value of an output, *allowed*
how much it may be.

{programs}

## Costs

*Peak* is the memory of the process that compiles, builds and runs the network, or of the C++
compiler where that has more. *Make* is the time to make the model itself. *Host* and *ONNX Runtime*
are medians of runs in turn, A B B A, with as many threads; *ratio* is that of the two in the same
round (above 1 ONNX Runtime is faster), with the 95 % interval of its median. The machine is shared
and noisy: these times are a guide and no benchmark.

{costs}
"""


def page(document: Document) -> str:
    rows, done = document.rows, [row for row in document.rows if row.figures]
    networks = Table(
        "", ("network", "what it is", "verdict"), [(r.name, r.summary, r.verdict) for r in rows]
    )
    programs = Table(
        "",
        ("network", "nodes", "levels", "rOperators", "rTasks", "waves", "error", "allowed"),
        [_program(row.name, row.figures) for row in done if row.figures],
    )
    head = ("network", "weights", "workspace", "peak", "make", "compile", "build", "host")
    costs = Table(
        "",
        (*head, "ONNX Runtime", "ratio", "from", "to"),
        [_cost(row, row.figures) for row in done if row.figures],
    )
    return _PAGE.format(
        target=document.target,
        version=document.ramforge,
        threads=document.threads,
        networks=networks.markdown(),
        programs=programs.markdown(),
        costs=costs.markdown(),
    )


def _program(name: str, found: Figures) -> tuple[str, ...]:
    counts = (found.nodes, found.levels, found.roperators, found.rtasks, found.waves)
    errors = (f"{found.error:.1e}", f"{found.tolerance:.0e}")
    return (name, *map(str, counts), *errors)


def _cost(row: Row, found: Figures) -> tuple[str, ...]:
    sizes = map(_megabytes, (found.weight_bytes, found.workspace_bytes, found.peak_bytes))
    seconds = (f"{each:.1f} s" for each in (row.make_s, found.compile_s, found.build_s))
    times = (f"{each:.2f} ms" for each in (found.host_ms, found.onnxruntime_ms))
    ratios = (f"{each:.2f}" for each in (found.ratio, found.ratio_low, found.ratio_high))
    return (row.name, *sizes, *seconds, *times, *ratios)


def renew(
    names: Sequence[str],
    folder: Path,
    threads: int,
    rounds: int,
    small: bool,
    said: Callable[[str], None],
) -> Document:
    """Measure some networks and keep what is known of the others; the files are written after each
    of them, with a row for every entry.
    """
    from ramforge.zoo import ZOO

    known = {row.name: row for row in read(folder).rows} if (folder / "zoo.json").exists() else {}
    target = f"host:{threads}"
    document = Document(VERSION, target, threads, ())
    for name in (*names, ""):
        if name:
            known[name] = measure(name, small=small, target=target, threads=threads, rounds=rounds)
            said(f"{name}: {known[name].verdict}")
        rows = [
            replace(known.get(each, Row(each, "", problem=NOT_RUN)), summary=entry.summary)
            for each, entry in ZOO.items()
        ]
        document = replace(document, rows=tuple(rows))
        write(document, folder)
    return document


@click.command()
@click.argument("names", nargs=-1)
@click.option("--out", type=Path, default=Path("docs"), show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=20, show_default=True, help="At most; slow networks run fewer.")
@click.option("--small", is_flag=True, help="The small forms, to try this command.")
@click.option(
    "--page-only", is_flag=True, help="Measure nothing; write the page, with new entries."
)
def main(
    names: tuple[str, ...], out: Path, threads: int, rounds: int, small: bool, page_only: bool
) -> None:
    """Measure the networks with these NAMES, or all, and write docs/zoo.json and docs/ZOO.md."""
    asked = networks.chosen(names)
    chosen = () if page_only else asked
    document = renew(chosen, out, threads, rounds, small, click.echo)
    if not all(row.ok for row in document.rows if row.name in chosen):
        raise SystemExit(EXIT_CHECK)


if __name__ == "__main__":
    main()
