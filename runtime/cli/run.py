"""``ramforge run``: an artefact on a device, once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ramforge.runtime import progress
from ramforge.runtime.cli import options


@click.command("run")
@click.argument("artifact")
@click.option("--load-inputs", metavar="IN.npz", help="Inputs by name; else made up.")
@click.option("--save-outputs", metavar="OUT.npz", help="Write the outputs here.")
@options.seed
@options.device
@options.common
def run_model(
    artifact: str,
    load_inputs: str | None,
    save_outputs: str | None,
    seed: int,
    device: str,
    **common: Any,
) -> None:
    """Run a compiled ARTIFACT (its .cu file, or its folder) once."""
    from ramforge.codegen import artifact as artifacts
    from ramforge.runtime import arrays
    from ramforge.runtime.session import Session

    with progress.reporting(**common) as report:
        if save_outputs:
            arrays.check_writable(Path(save_outputs))
        loaded = artifacts.load(artifact)
        given = arrays.load(Path(load_inputs)) if load_inputs else {}
        inputs = arrays.completed(loaded.inputs, given, seed)
        report("building")
        with Session(loaded, device) as session:
            report(f"running on {session.device}")
            start = time.perf_counter()
            outputs = session.run(None, inputs)
            taken = time.perf_counter() - start
        report(f"{taken * 1e3:.3f} ms (one run, not a measurement)")
    names = [port.name for port in loaded.outputs]
    if save_outputs:
        arrays.save(Path(save_outputs), dict(zip(names, outputs, strict=True)))
    click.echo(arrays.table(names, outputs))
