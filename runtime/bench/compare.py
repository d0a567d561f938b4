"""Compare contenders on the same inputs: A B A B, outputs verified before anything is timed.

    python -m ramforge.runtime.bench.compare model.onnx --threads 2

A contender is a name and a function that runs once and gives its outputs. The ratio is taken within
each round, so that what disturbs the machine disturbs both sides; its median and the spread of that
median are reported.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from ramforge.compiler.errors import ToolchainError
from ramforge.compiler.ir import Array
from ramforge.runtime import api, arrays, verify
from ramforge.runtime.session import Session

Contender = Callable[[], list[Array]]
RESAMPLES = 1000
# Thread pools spin on for a while after a run (ONNX Runtime's for some 50 ms); whoever comes next
# would be timed against them.
SETTLE_SECONDS = 0.01
MOST_SETTLING = 100


@dataclass(frozen=True, slots=True)
class Timing:
    """One contender's times, and its ratio to the baseline (above one is slower)."""

    name: str
    best_ms: float
    median_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


def compare(
    contenders: Mapping[str, Contender], baseline: str, rounds: int = 30, warm_up: int = 3
) -> list[Timing]:
    """Time all contenders in turn; the baseline must be one of them."""
    names = list(contenders)
    for name in names:
        for _ in range(warm_up):
            contenders[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            settle()
            start = time.perf_counter()
            contenders[name]()
            times[name].append(time.perf_counter() - start)
    return [_timing(name, times[name], times[baseline]) for name in names]


def settle() -> None:
    """Until no thread of this process is busy any more, but no longer than a second or so."""
    for _ in range(MOST_SETTLING):
        busy = time.process_time()
        time.sleep(SETTLE_SECONDS)
        if time.process_time() - busy < 0.1 * SETTLE_SECONDS:
            return


def _timing(name: str, own: Sequence[float], base: Sequence[float]) -> Timing:
    ratios = np.array(own) / np.array(base)
    picks = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    medians = np.sort(np.median(ratios[picks], axis=1))
    return Timing(
        name,
        1e3 * min(own),
        1e3 * statistics.median(own),
        float(np.median(ratios)),
        float(medians[int(0.025 * RESAMPLES)]),
        float(medians[int(0.975 * RESAMPLES)]),
    )


def table(timings: Sequence[Timing], baseline: str) -> str:
    lines = [f"{'contender':<14} {'best ms':>9} {'median ms':>10}   ratio to {baseline} (95%)"]
    lines += [
        f"{timing.name:<14} {timing.best_ms:>9.3f} {timing.median_ms:>10.3f}   "
        f"{timing.ratio:.2f} ({timing.ratio_low:.2f} to {timing.ratio_high:.2f})"
        for timing in timings
    ]
    return "\n".join(lines)


def onnxruntime_contender(
    model: str, inputs: Mapping[str, Array], threads: int, dims: Mapping[str, int]
) -> Contender:
    """ONNX Runtime on the CPU with this many threads."""
    try:
        import onnxruntime
    except ImportError:
        raise ToolchainError(
            "onnxruntime is not installed\n    fix: pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    for name, size in dims.items():
        options.add_free_dimension_override_by_name(name, size)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = dict(inputs)
    return lambda: list(session.run(None, feeds))


@click.command()
@click.argument("model")
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=30, show_default=True)
@click.option("--dim", "dims", multiple=True, metavar="NAME=8")
@click.option("--target", help="Whose plan to run; host:THREADS without it.")
@click.option("--json", "json_path", help="Write the figures here too.")
def main(
    model: str,
    threads: int,
    rounds: int,
    dims: tuple[str, ...],
    target: str | None,
    json_path: str | None,
) -> None:
    """Our host body against ONNX Runtime on the CPU, same threads, same inputs.

    The plan is made for the cores it runs on, unless --target asks for another device's plan.
    """
    sizes = {name: int(size) for name, size in (dim.split("=") for dim in dims)}
    artifact = api.compile(model, dims=sizes, target=target or f"host:{threads}")
    inputs = arrays.made_up(artifact.inputs, seed=0)
    theirs = onnxruntime_contender(model, inputs, threads, sizes)
    with Session(artifact, f"host:{threads}") as session:

        def ours() -> list[Array]:
            return session.run(None, inputs)

        contenders = {"onnxruntime": theirs, "ramforge": ours}
        names = [port.name for port in artifact.outputs]
        verify.require(verify.differences(names, ours(), theirs()))
        timings = compare(contenders, "onnxruntime", rounds)
    click.echo(f"{Path(model).name}, {threads} threads, batch as compiled, fp32")
    click.echo(table(timings, "onnxruntime"))
    if json_path:
        Path(json_path).write_text(json.dumps([asdict(timing) for timing in timings], indent=2))


if __name__ == "__main__":
    main()
