"""What assembler and disassembler say of the bodies: ``docs/results/bodies.json``, and a page.

    python -m ramforge.runtime.bench.bodies            # all of them, some minutes
    python -m ramforge.runtime.bench.bodies softmax    # this kind anew, the others as they were

Each body is compiled as the unit that it is in a program, for the most blocks an SM that its
estimate of registers allows. No GPU is needed.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.codegen import artifact as artifacts
from ramforge.codegen import units
from ramforge.codegen.build import cubin, linked, nvdisasm, sass
from ramforge.codegen.build.nvdisasm import Instruction
from ramforge.codegen.build.sass import Outline
from ramforge.codegen.units import Unit
from ramforge.compiler.device import PRECISIONS, find_target, vdevices
from ramforge.compiler.errors import ArtifactError
from ramforge.compiler.frontend import import_model
from ramforge.compiler.pipeline import Program, optimise
from ramforge.compiler.rprogram import ROperator
from ramforge.compiler.version import VERSION
from ramforge.runtime.bench.body_cases import Case, cases
from ramforge.runtime.tables import Table
from ramforge.runtime.tune import options_of

FORMAT = 2
TARGETS = ("a100", "h200")
_WIDE = 16


@dataclass(frozen=True, slots=True)
class Counts:
    """Accesses of memory: those of 16 bytes, and all others."""

    wide: int = 0
    narrow: int = 0

    def __str__(self) -> str:
        return f"{self.wide} / {self.narrow}"


@dataclass(frozen=True, slots=True)
class Figures:
    """What a body is made of."""

    registers: int
    spill_bytes: int
    code_bytes: int
    outline: Outline
    global_loads: Counts
    generic_loads: Counts
    shared_loads: Counts
    stores: Counts


@dataclass(frozen=True, slots=True)
class Row:
    """A body, for one architecture and register cap."""

    kind: str
    precision: str
    threads: int
    summary: str
    architecture: str
    blocks_per_sm: int
    arena_bytes: int
    figures: Figures


@dataclass(frozen=True, slots=True)
class Document:
    ramforge: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class _Job:
    """A row that has no figures yet, and what they come from."""

    row: Row
    unit: Unit
    register_cap: int


_NOTHING = Figures(0, 0, 0, Outline(0, 0, 0, 0), Counts(), Counts(), Counts(), Counts())


def measure(chosen: Sequence[Case]) -> list[Row]:
    """All bodies of these cases on all targets."""
    jobs = [
        job
        for target in TARGETS
        for case in chosen
        for precision in case.precisions
        for job in _jobs(case, precision, target)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(_measured, jobs))


def _jobs(case: Case, precision: str, name: str) -> Iterator[_Job]:
    target = find_target(name).with_precision(precision)
    graph = optimise(import_model(case.model), precision)
    seen: set[str] = set()
    for option in options_of(graph, target):
        if option.lowered.target.threads != case.threads:
            continue
        program = option.program()
        operator = [each for each in program.operators if each.variant.body.family == case.family][
            -1
        ]
        if operator.variant.body.name not in seen:
            seen.add(operator.variant.body.name)
            yield _job(case, precision, program, operator)


def _job(case: Case, precision: str, program: Program, operator: ROperator) -> _Job:
    body, target = operator.variant.body, program.target
    fitting = [each for each in vdevices(target) if each.holds(body.arena_bytes, body.registers)]
    device = max(fitting, key=lambda each: each.blocks_per_sm)
    row = Row(
        case.kind,
        precision,
        target.threads,
        body.summary,
        target.architecture,
        device.blocks_per_sm,
        body.arena_bytes,
        _NOTHING,
    )
    return _Job(row, _unit_of(program, body.name), device.register_cap)


def _unit_of(program: Program, body: str) -> Unit:
    with tempfile.TemporaryDirectory() as folder:
        text = artifacts.emit(program, Path(folder, "body.cu"), {}).text()
    parts = units.split(text)
    assert parts is not None
    return next(unit for unit in parts.bodies if unit.body == body)


def _measured(job: _Job) -> Row:
    unit = replace(job.unit, register_cap=job.register_cap)
    built = linked.compile_unit(unit, job.row.architecture)
    used = cubin.usage(built)[job.unit.name]
    code = nvdisasm.disassemble(built.data)[job.unit.name]
    return replace(job.row, figures=figures(used, code))


def figures(used: cubin.Resources, code: Sequence[Instruction]) -> Figures:
    outline = sass.outline(code)
    return Figures(
        used.registers,
        used.spill_bytes,
        used.code_bytes,
        outline,
        _counted(code, "global", False),
        _counted(code, "generic", False),
        _counted(code, "shared", False),
        _counted(code, "global", True),
    )


def _counted(code: Sequence[Instruction], space: str, is_store: bool) -> Counts:
    accesses = [found for each in code if (found := sass.access(each))]
    sizes = [each.nbytes for each in accesses if (each.space, each.is_store) == (space, is_store)]
    wide = sum(size == _WIDE for size in sizes)
    return Counts(wide, len(sizes) - wide)


def as_json(document: Document) -> str:
    """A line for each body."""
    rows = ",\n".join(f"  {json.dumps(asdict(row))}" for row in document.rows)
    head = f'{{"format": {FORMAT}, "ramforge": {json.dumps(document.ramforge)}, "rows": [\n'
    return f"{head}{rows}\n]}}\n"


def read(path: Path) -> Document:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found.get("format") != FORMAT:
        raise ArtifactError(f"{path}: another format\n    fix: delete it, and measure again")
    return Document(found["ramforge"], tuple(map(_row, found["rows"])))


def _row(found: dict[str, Any]) -> Row:
    made: dict[str, Any] = dict(found["figures"])
    outline = Outline(**made.pop("outline"))
    counts = {name: Counts(**value) for name, value in made.items() if isinstance(value, dict)}
    return Row(**{**found, "figures": Figures(outline=outline, **{**made, **counts})})


_PAGE = """\
# Bodies

Made by `python -m ramforge.runtime.bench.bodies` from docs/results/bodies.json, with ramforge
{version}: bodies of all kernel families, every tile of `kernels/tiles.py`, as the assembler and the
disassembler see them. Nothing here was run.

A body is compiled for *blocks* an SM, the most that its estimate of registers allows. *Spills* are
bytes stored and fetched, *in loops* the instructions inside of loops that go to a thread's stack.
*Math* is the part of the instructions of the main loop that compute with floats (FFMA, FADD, MUFU
and their like, or HMMA); the main loop is the one with the most of them outside of the loops in it.
*Loop* are its instructions, each once, and behind the + those of the loop around it. A body without
a loop counts as one. One HMMA does the work of 32 FFMA in each thread (tf32) or 64.

Loads and stores are written as 16 bytes / less: loads of global memory (cp.async among them), of
memory of which the assembler does not know what it is (*generic*, and the addresses of operands are
among them), of the arena (ldmatrix counts as 16 bytes), and stores to global memory.

{tables}
"""

_HEAD = (
    *("kind", "precision", "threads", "body", "blocks", "registers", "spills", "in loops"),
    *("arena", "code", "math", "loop", "global", "generic", "arena loads", "stores"),
)


def table(document: Document, architecture: str) -> Table:
    rows = [_cells(row) for row in document.rows if row.architecture == architecture]
    return Table(architecture, _HEAD, rows)


def _cells(row: Row) -> tuple[str, ...]:
    made, outline = row.figures, row.figures.outline
    enclosing = f" + {outline.enclosing}" if outline.enclosing else ""
    loop = f"{outline.instructions}{enclosing}"
    return (
        *(row.kind, row.precision, str(row.threads), row.summary, str(row.blocks_per_sm)),
        *(str(made.registers), str(made.spill_bytes), str(outline.stack_accesses_in_loops)),
        *(str(row.arena_bytes), str(made.code_bytes), f"{outline.math_share:.0%}", loop),
        *map(str, (made.global_loads, made.generic_loads, made.shared_loads, made.stores)),
    )


def page(document: Document) -> str:
    architectures = dict.fromkeys(row.architecture for row in document.rows)
    tables = [f"## {name}\n\n{table(document, name).markdown()}" for name in architectures]
    return _PAGE.format(version=document.ramforge, tables="\n\n".join(tables))


def write(document: Document, data: Path, text: Path) -> None:
    """Both files."""
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(as_json(document), encoding="utf-8")
    text.write_text(page(document), encoding="utf-8")


def renewed(known: Sequence[Row], found: Sequence[Row], kinds: Sequence[str]) -> tuple[Row, ...]:
    """All rows in the order of the cases, those of ``kinds`` as they were found now."""
    rows = [row for row in known if row.kind not in kinds] + list(found)
    order = {case.kind: number for number, case in reversed(list(enumerate(cases())))}
    architectures = [find_target(name).architecture for name in TARGETS]

    def place(row: Row) -> tuple[int, ...]:
        at = PRECISIONS.index(row.precision)
        return architectures.index(row.architecture), order[row.kind], at, -row.threads

    return tuple(sorted((row for row in rows if row.kind in order), key=place))


@click.command()
@click.argument("kinds", nargs=-1)
@click.option("--json", "data", type=Path, default=Path("docs/results/bodies.json"))
@click.option("--markdown", "text", type=Path, default=Path("docs/BODIES.md"))
def main(kinds: tuple[str, ...], data: Path, text: Path) -> None:
    """Compile and disassemble the bodies of these KINDS, or all; renew both files."""
    known = {case.kind: case for case in cases()}
    if unknown := sorted(set(kinds) - known.keys()):
        raise click.UsageError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [case for case in cases() if not kinds or case.kind in kinds]
    found = measure(chosen)
    before = read(data).rows if data.exists() else ()
    rows = renewed(before, found, [case.kind for case in chosen])
    document = Document(VERSION, rows)
    write(document, data, text)
    for name in dict.fromkeys(row.architecture for row in found):
        click.echo(table(Document(VERSION, tuple(found)), name).plain())


if __name__ == "__main__":
    main()
