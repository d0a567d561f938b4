"""How fast the host body is beside ONNX Runtime, on the networks that it is judged by.

    python -m ramforge.runtime.bench.host --json docs/results/host.json

Each network in turn, A B B A, verified first; a ratio above 1 is slower than ONNX Runtime. At the
end the geometric mean. Both have their default options, and each run begins when the thread pools
of both have come to rest: so neither has to share the cores with the other's waiting threads, and
neither finds its own still awake.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import onnx

from ramforge.compiler.ir import Array
from ramforge.runtime import api, arrays, verify
from ramforge.runtime.bench.compare import Timing, compare, onnxruntime_contender
from ramforge.runtime.session import Session
from ramforge.zoo import ZOO

NETWORKS = (
    "resnet50",
    "mobilenet_v2",
    "resnext29",
    "encoder_base",
    "lstm_tc_operator",
    "alexnet",
)


@dataclass(frozen=True, slots=True)
class Result:
    """A network, and our times beside those of ONNX Runtime."""

    network: str
    ours: Timing
    theirs: Timing


def measure(name: str, model: onnx.ModelProto, threads: int, rounds: int) -> Result:
    """Batch 1, float32, as many threads for both."""
    with tempfile.TemporaryDirectory(prefix="ramforge-bench-") as folder:
        path = str(Path(folder, "model.onnx"))
        onnx.save_model(model, path)
        artifact = api.compile(path, target=f"host:{threads}", output=Path(folder, "net.cu"))
        inputs = arrays.made_up(artifact.inputs, seed=0)
        reference = onnxruntime_contender(path, inputs, threads, {})
        names = [port.name for port in artifact.outputs]
        with Session(artifact, f"host:{threads}") as session:

            def ours() -> list[Array]:
                return session.run(None, inputs)

            verify.require(verify.differences(names, ours(), reference()))
            contenders = {"onnxruntime": reference, "ramforge": ours}
            theirs, own = compare(contenders, "onnxruntime", rounds)
    return Result(name, own, theirs)


def table(results: Sequence[Result]) -> str:
    lines = [f"{'network':<18} {'ours ms':>9} {'theirs ms':>10}   ratio (95%)"]
    for result in results:
        ours = result.ours
        lines.append(
            f"{result.network:<18} {ours.median_ms:>9.3f} {result.theirs.median_ms:>10.3f}   "
            f"{ours.ratio:.2f} ({ours.ratio_low:.2f} to {ours.ratio_high:.2f})"
        )
    mean = statistics.geometric_mean(result.ours.ratio for result in results)
    lines.append(f"{'geometric mean':<18} {'':>9} {'':>10}   {mean:.2f}")
    return "\n".join(lines)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(ZOO)))
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=30, show_default=True)
@click.option("--small", is_flag=True, help="The small forms of the networks.")
@click.option("--json", "json_path", help="Write the figures here too.")
def main(
    names: tuple[str, ...], threads: int, rounds: int, small: bool, json_path: str | None
) -> None:
    """The host body against ONNX Runtime on the CPU: NAMES of the zoo, or those it is judged by."""
    results = []
    for name in names or NETWORKS:
        entry = ZOO[name]
        results.append(measure(name, entry.small() if small else entry.full(), threads, rounds))
        click.echo(table(results).splitlines()[len(results)], err=True)
    click.echo(table(results))
    if json_path:
        rows = [asdict(result) for result in results]
        Path(json_path).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
