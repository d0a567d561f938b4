"""``ramforge inspect``: a model or an artefact, described."""

from __future__ import annotations

import json
from typing import Any

import click
from click.core import ParameterSource

from ramforge.runtime import progress
from ramforge.runtime.cli import options


@click.command("inspect")
@click.argument("what", metavar="MODEL|ARTIFACT")
@options.compilation
@click.option(
    "--kernels",
    is_flag=True,
    help="Also build it for its GPU, and say what each kernel and each body takes.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@options.common
def inspect_model(
    what: str,
    target: str,
    shapes: dict[str, tuple[int, ...]],
    dims: dict[str, int],
    values: dict[str, Any],
    schedule: str,
    precision: str,
    kernels: bool,
    as_json: bool,
    **common: Any,
) -> None:
    """What a MODEL is made of and how it would be scheduled, or what an ARTIFACT (its .cu file, or
    its folder) says of itself. An operator that is not supported is listed, and is no error.
    """
    from ramforge.codegen import artifact as artifacts
    from ramforge.compiler.device import find_target
    from ramforge.runtime import api, inspect, inspect_kernels, inspect_text

    with progress.reporting(**common) as report:
        if inspect.is_artifact(what):
            _refuse_compilation(click.get_current_context())
            artifact = artifacts.load(what)
            document = inspect.of_artifact(artifact)
        else:
            document = inspect.of_model(
                what,
                find_target(target).with_precision(precision),
                schedule,
                report,
                shapes=shapes,
                dims=dims,
                values=values,
            )
            if kernels and not document["problems"]:
                artifact = api.compile(
                    what,
                    target=target,
                    shapes=shapes,
                    dims=dims,
                    values=values,
                    schedule=schedule,
                    precision=precision,
                )
        if kernels and not document.get("problems"):
            document["built"] = inspect_kernels.of_artifact(artifact)
    click.echo(json.dumps(document, indent=2) if as_json else inspect_text.render(document))


def _refuse_compilation(context: click.Context) -> None:
    """An artefact is compiled already."""
    flags = {
        "target": "--target",
        "shapes": "--shapes",
        "dims": "--dim",
        "values": "--bind",
        "schedule": "--schedule",
        "precision": "--precision",
    }
    for name, flag in flags.items():
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{flag} is for models; this is an artefact, compiled already")
