"""What only a GPU can show, in parts that fit a short lease; without a GPU it says what it skipped.

    python -m ramforge.runtime.gpu_check --out results

Each part leaves one JSON file in the folder, written anew after every check: what is in it is not
run again, so that a run that was cut off goes on where it stopped. On a GPU each check is a process
of its own with a time limit, because a kernel that hangs or faults takes its process with it.
``--device emulator`` or ``host`` runs the same checks there, which is how they are tested
themselves.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import onnx

from ramforge.codegen import artifact as artifacts
from ramforge.codegen.artifact import Artifact
from ramforge.compiler.device import PRECISIONS, Target, find_target
from ramforge.compiler.frontend import import_model
from ramforge.compiler.lower import Offer, all_of_them
from ramforge.compiler.pipeline import compile_graph
from ramforge.compiler.rprogram import Candidate
from ramforge.compiler.schedule import POLICIES
from ramforge.compiler.version import VERSION
from ramforge.runtime import arrays, gpu_cases, verify
from ramforge.runtime.drivers import Driver, cuda, open_driver
from ramforge.runtime.drivers.emulated import EmulatedDriver

REPEATS = 5
# The emulator stands in for a small device, so that every block is a few fibers and not thousands
EMULATED_SMS = 2
# Far beyond what a check takes, of which most is the two compilers
CHECK_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one case."""

    case: str
    ok: bool
    error: float
    seconds: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """Where the checks run."""

    kind: str

    @property
    def target(self) -> Target:
        target = find_target("h200")
        return replace(target, sms=EMULATED_SMS) if self.kind == "emulator" else target

    def open(self, artifact: Artifact) -> Driver:
        if self.kind == "emulator":
            return EmulatedDriver(artifact, quick=True)
        return open_driver(artifact, self.kind)


@dataclass(frozen=True, slots=True)
class Check:
    """One model to compile, run and compare; ``group`` begins the names of its rows."""

    group: str
    model: Callable[[], onnx.ModelProto]
    policy: str = "waves"
    offer: Offer = all_of_them
    precision: str = PRECISIONS[0]


def primitives() -> list[Check]:
    """Every tile primitive, every tile shape, and the counters, on cases of one node or a few."""
    together = gpu_cases.together
    return [
        Check("", lambda: together(gpu_cases.primitive_models())),
        *(
            Check(
                f"tile {number}, {precision}: ",
                lambda: together(gpu_cases.product_models()),
                offer=_nth(number),
                precision=precision,
            )
            for precision, tiles in gpu_cases.tile_shapes().items()
            for number in tiles
        ),
        *(
            Check(
                f"block {number}, {precision}: ",
                lambda: together(gpu_cases.attention_models()),
                offer=_nth(number),
                precision=precision,
            )
            for precision, blocks in gpu_cases.block_shapes().items()
            for number in blocks
        ),
        *(
            Check(f"{policy}: ", lambda: together(gpu_cases.barrier_models()), policy)
            for policy in POLICIES
        ),
    ]


def zoo() -> list[Check]:
    """The example models, where they are at hand: whole programs under every schedule."""
    return [
        Check(f"{name}, {policy}: ", lambda model=model: model, policy)  # type: ignore[misc]
        for name, model in gpu_cases.example_models().items()
        for policy in POLICIES
    ]


PARTS: dict[str, Callable[[], list[Check]]] = {"primitives": primitives, "zoo": zoo}


def _nth(number: int) -> Offer:
    def offer(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        return (candidates[number % len(candidates)],)

    return offer


def run_check(check: Check, device: Device) -> Iterator[Row]:
    """Run a model: each output must agree with ONNX Runtime, and all runs to the bit."""
    start = time.perf_counter()
    try:
        found = _differences(check, device)
    except Exception as problem:  # a check that breaks is a finding, and the others still run
        yield _broken(check, start, f"{type(problem).__name__}: {problem}")
        return
    taken = time.perf_counter() - start
    for item in found:
        message = "" if item.ok else f"off by {item.share:.1e}, allowed {item.tolerance:.0e}"
        yield Row(f"{check.group}{item.name}", item.ok, item.share, taken, message)


def _broken(check: Check, start: float, message: str) -> Row:
    return Row(f"{check.group}all", False, math.inf, time.perf_counter() - start, message[:500])


def run_alone(part: str, number: int, check: Check, device: Device, limit: float) -> Iterator[Row]:
    """The same in a process of its own, ended after ``limit`` seconds."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ramforge.runtime.gpu_check", "--part", part]
        command += ["--only", str(number), "--device", device.kind, "--out", folder]
        log = Path(folder, "log")
        with log.open("wb") as file:
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=limit
                )
                ending = f"the process ended with {done.returncode}"
            except subprocess.TimeoutExpired:
                ending = f"no answer within {limit:.0f} s"
        rows = _rows(_read(Path(folder, f"{part}.json")))
        said = log.read_text(errors="replace").strip()[-300:]
    yield from rows or [_broken(check, start, f"{ending}: {said}")]


def _differences(check: Check, device: Device) -> tuple[verify.Difference, ...]:
    import onnxruntime

    model = check.model()
    target = device.target.with_precision(check.precision)
    program = compile_graph(import_model(model), target, check.policy, offer=check.offer)
    with tempfile.TemporaryDirectory() as folder:
        artifact = artifacts.emit(program, Path(folder) / "out.cu", {})
        driver = device.open(artifact)
        inputs = arrays.made_up(artifact.inputs, seed=0)
        given = [inputs[port.name] for port in artifact.inputs]
        runs = [driver.run(given) for _ in range(REPEATS)]
        driver.close()
    for again in runs[1:]:
        for first, other in zip(runs[0], again, strict=True):
            assert first.tobytes() == other.tobytes(), "two runs of the same program differ"
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [port.name for port in artifact.outputs]
    allowed = verify.of_precision(check.precision)
    return verify.differences(names, runs[0], session.run(names, inputs), allowed)


def run_part(
    name: str,
    device: Device,
    out: Path,
    *,
    again: bool = False,
    only: int | None = None,
    limit: float | None = None,
) -> bool:
    """Run a part and keep its file up to date; whether all of it is right. With a ``limit`` each
    check runs in a process of its own.
    """
    path = out / f"{name}.json"
    report = {} if again else _read(path)
    rows, done = _rows(report), list(report.get("done", []))
    checks = PARTS[name]()
    for number, check in enumerate(checks):
        if number in done or only not in (None, number):
            continue
        found = (
            run_check(check, device)
            if limit is None
            else run_alone(name, number, check, device, limit)
        )
        for row in found:
            rows.append(row)
            verdict = f"ok, error {row.error:.1e}" if row.ok else f"WRONG: {row.message}"
            click.echo(f"  {row.case:<52} {verdict}")
        done.append(number)
        _write(path, _report(name, device, rows, done, len(checks)))
    if done == report.get("done"):
        click.echo(f"{name}: {path} is there, not run again (--again)")
    click.echo(f"{name}: {sum(row.ok for row in rows)} of {len(rows)} right")
    return all(row.ok for row in rows)


def _read(path: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if report.get("ramforge") == VERSION else {}


def _rows(report: dict[str, Any]) -> list[Row]:
    rows = [Row(**row) for row in report.get("rows", [])]
    return [replace(row, error=math.inf) if row.error is None else row for row in rows]


def _write(path: Path, report: dict[str, Any]) -> None:
    """All of it or nothing: who is killed here leaves the file before."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    fresh.replace(path)


def _report(
    name: str, device: Device, rows: Sequence[Row], done: Sequence[int], checks: int
) -> dict[str, Any]:
    plain = [asdict(row) for row in rows]
    for row in plain:
        if not math.isfinite(row["error"]):
            row["error"] = None  # JSON has no infinity
    return {
        "format": 2,
        "part": name,
        "ramforge": VERSION,
        "device": device.kind,
        "machine": cuda.machine() if device.kind == "cuda" else {},
        "checks": checks,
        "done": list(done),
        "rows": plain,
    }


@click.command()
@click.option("--part", "parts", multiple=True, type=click.Choice(list(PARTS)))
@click.option("--out", default="gpu-check", show_default=True, help="Folder for the JSON files.")
@click.option("--device", default="cuda", type=click.Choice(["cuda", "emulator", "host"]))
@click.option("--again", is_flag=True, help="Also run what the files already hold.")
@click.option("--limit", type=float, help="Seconds for one check  [default: 120 on cuda]")
@click.option("--only", type=int, hidden=True)
def main(
    parts: tuple[str, ...],
    out: str,
    device: str,
    again: bool,
    limit: float | None,
    only: int | None,
) -> None:
    """Check the generated code against ONNX Runtime on a GPU."""
    chosen = parts or tuple(PARTS)
    if device == "cuda" and not cuda.is_available():
        click.echo(f"no CUDA device ({cuda.obstacle()}); skipped: {', '.join(chosen)}")
        return
    if limit is None and device == "cuda":
        limit = CHECK_SECONDS
    if only is not None:
        limit = None
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    right = [
        run_part(name, Device(device), folder, again=again, only=only, limit=limit)
        for name in chosen
    ]
    if not all(right):
        raise SystemExit(5)


if __name__ == "__main__":
    main()
