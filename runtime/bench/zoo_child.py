"""One network of the zoo, from its file to its latency, in a process of its own.

    python -m ramforge.runtime.bench.zoo_child net.onnx figures.json --target host --rounds 20

A process of its own, because peak memory is that of a process. It is taken before the reference
runs, which has memory of its own.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import onnx

from ramforge.codegen.artifact import Artifact
from ramforge.compiler.ir import Array
from ramforge.runtime import api, arrays
from ramforge.runtime.bench.compare import compare, onnxruntime_contender
from ramforge.runtime.drivers import host
from ramforge.runtime.session import Session
from ramforge.runtime.verify import Difference, differences
from ramforge.runtime.verify.reference import Reference, Source
from ramforge.runtime.verify.steps import steps, usual_reference

# What the timed runs of both sides may take together, and the fewest rounds
BUDGET_SECONDS, FEWEST_ROUNDS = 20.0, 3
OURS, THEIRS = "ramforge", "onnxruntime"


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. ``levels`` is the longest chain of nodes, ``error`` a share of the largest
    value; the last five are 0 if nothing was timed.
    """

    nodes: int
    levels: int
    roperators: int
    rtasks: int
    waves: int
    weight_bytes: int
    workspace_bytes: int
    peak_bytes: int
    compile_s: float
    build_s: float
    run_s: float
    reference: str
    error: float
    tolerance: float
    ok: bool
    host_ms: float = 0.0
    onnxruntime_ms: float = 0.0
    ratio: float = 0.0
    ratio_low: float = 0.0
    ratio_high: float = 0.0


def figures(model: Path, target: str, threads: int, rounds: int, folder: Path) -> Figures:
    """Compile, build, run and compare a network, and time it in ``rounds`` if there are any."""
    marks = [time.perf_counter()]
    artifact = api.compile(model, target=target, output=folder / "net.cu")
    marks.append(time.perf_counter())
    host.build(artifact)
    marks.append(time.perf_counter())
    inputs = arrays.made_up(artifact.inputs, seed=0)
    with Session(artifact, f"host:{threads}") as session:
        marks.append(time.perf_counter())
        outputs = session.run(None, inputs)
        marks.append(time.perf_counter())
        peak = peak_bytes()
        worst, reference = _compared(model, artifact, inputs, outputs)
        nodes, levels = size_of(model)
        schedule = artifact.manifest["schedule"]
        found = Figures(
            nodes=nodes,
            levels=levels,
            roperators=schedule["roperators"],
            rtasks=schedule["rtasks"],
            waves=schedule["waves"],
            weight_bytes=artifact.manifest["weights"]["bytes"],
            workspace_bytes=artifact.manifest["memory"]["workspace_bytes"],
            peak_bytes=peak,
            compile_s=round(marks[1] - marks[0], 3),
            build_s=round(marks[2] - marks[1], 3),
            run_s=round(marks[4] - marks[3], 6),
            reference=reference,
            error=worst.share,
            tolerance=worst.tolerance,
            ok=worst.ok,
        )
        return _timed(found, model, session, inputs, threads, rounds) if rounds else found


def peak_bytes() -> int:
    """The most memory that this process, or one that it waited for, has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    status = Path("/proc/self/status")
    if status.exists():  # getrusage begins with the peak of the process that started this one
        own = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii", errors="replace"))
        if own:
            return max(int(own[1]) * 1024, children)
    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, children)


def _compared(
    model: Path, artifact: Artifact, inputs: Mapping[str, Array], outputs: list[Array]
) -> tuple[Difference, str]:
    """The output that is nearest to what it may not be, and the name of the reference."""
    source = Source(model)
    allowed = steps(source.proto)
    kind = usual_reference(source.proto)
    expected = Reference(source, inputs, kind).outputs()
    names = [port.name for port in artifact.outputs]
    found = differences(names, outputs, expected, allowed)
    return max(found, key=lambda item: (not item.ok, item.share / (item.tolerance or 1.0))), kind


def size_of(model: Path) -> tuple[int, int]:
    """The nodes of a model but for constants, and how many depend on each other at most."""
    nodes = onnx.load(model, load_external_data=False).graph.node
    depth: dict[str, int] = {}
    count = 0
    for node in nodes:
        if node.op_type != "Constant":
            count += 1
            level = 1 + max((depth.get(name, 0) for name in node.input), default=0)
            depth.update(dict.fromkeys(node.output, level))
    return count, max(depth.values(), default=0)


def _timed(
    found: Figures,
    model: Path,
    session: Session,
    inputs: Mapping[str, Array],
    threads: int,
    rounds: int,
) -> Figures:
    theirs = onnxruntime_contender(str(model), inputs, threads, {})
    start = time.perf_counter()
    theirs()
    once = found.run_s + time.perf_counter() - start
    turns = max(FEWEST_ROUNDS, min(rounds, int(BUDGET_SECONDS / once)))
    contenders = {THEIRS: theirs, OURS: lambda: session.run(None, inputs)}
    baseline, ours = compare(contenders, THEIRS, turns, warm_up=1)
    return replace(
        found,
        host_ms=ours.median_ms,
        onnxruntime_ms=baseline.median_ms,
        ratio=ours.ratio,
        ratio_low=ours.ratio_low,
        ratio_high=ours.ratio_high,
    )


@click.command()
@click.argument("model", type=Path)
@click.argument("output", type=Path)
@click.option("--target", default="host", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=0, show_default=True, help="At most; 0 times nothing.")
def main(model: Path, output: Path, target: str, threads: int, rounds: int) -> None:
    """Measure MODEL and write the figures to OUTPUT."""
    with tempfile.TemporaryDirectory() as folder:
        found = figures(model, target, threads, rounds, Path(folder))
    output.write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
