"""What only a GPU can show, in parts that fit a short lease; without a GPU it says what it skipped.

    python -m ramforge.runtime.gpu_check --out results

Each part leaves one JSON file in the folder, and a part whose file is there is not run again.
``--device emulator`` or ``host`` runs the same checks there, which is how they are tested
themselves.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import onnx

from ramforge.codegen import artifact as artifacts
from ramforge.codegen.artifact import Artifact
from ramforge.compiler.device import Target, find_target
from ramforge.compiler.frontend import import_model
from ramforge.compiler.lower import Choose, fastest
from ramforge.compiler.pipeline import compile_graph
from ramforge.compiler.rprogram import Candidate
from ramforge.runtime import arrays, gpu_cases, verify
from ramforge.runtime.drivers import Driver, cuda, open_driver
from ramforge.runtime.drivers.emulated import EmulatedDriver

REPEATS = 5
# The emulator stands in for a small device, so that every block is a few fibers and not thousands
EMULATED_SMS = 2


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
        from dataclasses import replace

        target = find_target("h200")
        return replace(target, sms=EMULATED_SMS) if self.kind == "emulator" else target

    def open(self, artifact: Artifact) -> Driver:
        if self.kind == "emulator":
            return EmulatedDriver(artifact)
        return open_driver(artifact, self.kind)


def primitives(device: Device) -> Iterator[Row]:
    """Every tile primitive, every tile shape, and the counters, on cases of one node or a few."""
    simple = gpu_cases.together(gpu_cases.primitive_models())
    yield from _check("", simple, device, "waves", fastest)
    products = gpu_cases.together(gpu_cases.product_models())
    for number in range(gpu_cases.tile_shapes()):
        yield from _check(f"tile {number}: ", products, device, "waves", _nth(number))
    barriers = gpu_cases.together(gpu_cases.barrier_models())
    for policy in ("waves", "per-op"):
        yield from _check(f"{policy}: ", barriers, device, policy, fastest)


def zoo(device: Device) -> Iterator[Row]:
    """The example models, where they are at hand: whole programs under every schedule."""
    for name, model in gpu_cases.example_models().items():
        for policy in ("waves", "per-op"):
            yield from _check(f"{name}, {policy}: ", model, device, policy, fastest)


PARTS: dict[str, Callable[[Device], Iterator[Row]]] = {"primitives": primitives, "zoo": zoo}


def _nth(number: int) -> Choose:
    def choose(candidates: tuple[Candidate, ...], target: Target) -> Candidate:
        return candidates[number % len(candidates)]

    return choose


def _check(
    group: str, model: onnx.ModelProto, device: Device, policy: str, choose: Choose
) -> Iterator[Row]:
    """Run a model: each output must agree with ONNX Runtime, and all runs to the bit."""
    start = time.perf_counter()
    try:
        found = _differences(model, device, policy, choose)
    except Exception as problem:  # a check that breaks is a finding, and the others still run
        message = f"{type(problem).__name__}: {problem}"[:500]
        yield Row(f"{group}all", False, math.inf, time.perf_counter() - start, message)
        return
    taken = time.perf_counter() - start
    for item in found:
        message = "" if item.ok else f"off by {item.share:.1e}, allowed {item.tolerance:.0e}"
        yield Row(f"{group}{item.name}", item.ok, item.share, taken, message)


def _differences(
    model: onnx.ModelProto, device: Device, policy: str, choose: Choose
) -> tuple[verify.Difference, ...]:
    import onnxruntime

    program = compile_graph(import_model(model), device.target, policy, choose)
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
    return verify.differences(names, runs[0], session.run(names, inputs))


def run_part(name: str, device: Device, out: Path, again: bool) -> bool:
    """Run a part and write its file; whether all of it is right."""
    path = out / f"{name}.json"
    if path.exists() and not again:
        click.echo(f"{name}: {path} is there, not run again (--again)")
        return all(row["ok"] for row in json.loads(path.read_text())["rows"])
    rows: list[Row] = []
    for row in PARTS[name](device):
        rows.append(row)
        verdict = f"ok, error {row.error:.1e}" if row.ok else f"WRONG: {row.message}"
        click.echo(f"  {row.case:<52} {verdict}")
    path.write_text(json.dumps(_report(name, device, rows), indent=1) + "\n")
    click.echo(f"{name}: {sum(row.ok for row in rows)} of {len(rows)} right")
    return all(row.ok for row in rows)


def _report(name: str, device: Device, rows: Sequence[Row]) -> dict[str, object]:
    from ramforge.compiler.version import VERSION

    return {
        "format": 1,
        "part": name,
        "ramforge": VERSION,
        "device": device.kind,
        "rows": [asdict(row) for row in rows],
    }


@click.command()
@click.option("--part", "parts", multiple=True, type=click.Choice(list(PARTS)))
@click.option("--out", default="gpu-check", show_default=True, help="Folder for the JSON files.")
@click.option("--device", default="cuda", type=click.Choice(["cuda", "emulator", "host"]))
@click.option("--again", is_flag=True, help="Also run parts whose file is there.")
def main(parts: tuple[str, ...], out: str, device: str, again: bool) -> None:
    """Check the generated code against ONNX Runtime on a GPU."""
    chosen = parts or tuple(PARTS)
    if device == "cuda" and not cuda.is_available():
        click.echo(f"no CUDA device (see: ramforge doctor); skipped: {', '.join(chosen)}")
        return
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    right = [run_part(name, Device(device), folder, again) for name in chosen]
    if not all(right):
        raise SystemExit(5)


if __name__ == "__main__":
    main()
