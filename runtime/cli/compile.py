"""``compile``: a model in, one CUDA file out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ramforge.compiler.device import Target, find_target
from ramforge.runtime import progress
from ramforge.runtime.cli import options


@click.command("compile", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.option("-o", "--output", help="Where to write, e.g. out.cu; without it, into the cache.")
@options.compilation
@click.option("--tuning", metavar="FILE", help="Choose by the measurements in this file.")
@click.option(
    "--tune", metavar="FILE", help="The same, but first measure on this machine what it lacks."
)
@click.option(
    "--tune-seconds",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="When to begin no more measurements; the next --tune goes on.",
)
@click.option("--build", is_flag=True, help="Also build it: a cubin, or the host library.")
@options.common
def compile_command(
    model: str,
    output: str | None,
    target: str,
    shapes: dict[str, tuple[int, ...]],
    dims: dict[str, int],
    values: dict[str, Any],
    schedule: str,
    precision: str,
    tuning: str | None,
    tune: str | None,
    tune_seconds: float,
    build: bool,
    **common: Any,
) -> None:
    """Compile an ONNX MODEL into one persistent-thread CUDA file.

    Writes OUTPUT (.cu), and beside it the weights (.safetensors) and a manifest (.json). Prints the
    path of the .cu file.
    """
    from ramforge.runtime import api

    if tune is not None and tuning is not None:
        raise click.UsageError("--tune and --tuning are one file each, and one of them is enough")
    with progress.reporting(**common) as report:
        if tune is not None:
            given = {"shapes": shapes, "dims": dims, "values": values}
            chosen = find_target(target).with_precision(precision)
            _tune(model, chosen, tune, output, **given, seconds=tune_seconds)
        artifact = api.compile(
            model,
            target=target,
            output=output,
            shapes=shapes,
            dims=dims,
            values=values,
            schedule=schedule,
            precision=precision,
            tuning=tune if tuning is None else tuning,
        )
        if build:
            _build(artifact)
        plan = artifact.manifest["schedule"]
        report(
            f"{plan['roperators']} rOperators, {plan['rtasks']} rTasks, {plan['waves']} waves on "
            f"{artifact.manifest['target']['veus']} vEUs of {artifact.manifest['target']['name']}, "
            f"{artifact.manifest['memory']['workspace_bytes'] / 1e6:.1f} MB workspace, "
            f"{artifact.manifest['weights']['bytes'] / 1e6:.1f} MB weights"
        )
    click.echo(str(artifact.source))


def _tune(model: str, target: Target, file: str, output: str | None, **options: Any) -> None:
    """Measure what the file lacks, once it is known that the output can be written."""
    from ramforge.codegen import artifact as artifacts
    from ramforge.runtime import tune

    if output is not None:
        artifacts.check_writable(Path(output))
    tune.tune(model, target, file, **options)


def _build(artifact: Any) -> None:
    """What the target asks for, into the build cache."""
    from ramforge.runtime.drivers import cuda, host

    architecture = artifact.manifest["target"]["architecture"]
    if architecture == "host":
        host.build(artifact)
    else:
        cuda.build_cubin(artifact, architecture)
