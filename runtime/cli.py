"""The command line: ``ramforge compile | run | inspect | ...``, and the bare ``compile``.

Data goes to stdout, progress and logs to stderr. Every error of ours is a message with a fix and an
exit code of its own; a traceback is only for bugs, and only with -v.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ramforge.compiler.errors import EXIT_ENVIRONMENT, EXIT_INTERNAL, RamforgeError
from ramforge.compiler.version import VERSION
from ramforge.runtime import progress

EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``ramforge`` script."""
    sys.exit(run_command(commands, arguments, "ramforge"))


def compile_main(arguments: Sequence[str] | None = None) -> None:
    """The ``compile`` script."""
    sys.exit(run_command(compile_command, arguments, "compile"))


def run_command(command: click.Command, arguments: Sequence[str] | None, name: str) -> int:
    """Run a command; its exit code. All errors become messages here and nowhere else."""
    try:
        command.main(args=arguments, prog_name=name, standalone_mode=False)
        return 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except RamforgeError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except OSError as error:
        click.echo(
            f"error: {error}\n"
            "    fix: see that the path exists, may be written to, and that its disk has room; "
            "RAMFORGE_CACHE moves the cache",
            err=True,
        )
        return EXIT_ENVIRONMENT
    except Exception as error:
        click.echo(
            f"internal error: {type(error).__name__}: {error}\n"
            "    this is a bug in ramforge; run again with -v for the traceback",
            err=True,
        )
        return EXIT_INTERNAL


_version = click.version_option(VERSION, prog_name="ramforge")


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that every command has."""
    flags = (
        _version,
        click.option("-v", "--verbose", is_flag=True, help="Say more, with times."),
        click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
        click.option("--log-file", type=click.Path(dir_okay=False), help="Write the log here too."),
        click.option("--no-color", is_flag=True, help="Plain text (also: NO_COLOR)."),
    )
    for flag in reversed(flags):
        command = flag(command)
    return command


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``x:1x3x224x224``; the name itself may hold colons."""
    match = re.fullmatch(r"(.+):([0-9]+(?:x[0-9]+)*|scalar)", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not of the form name:1x3x224x224")
    sizes = match[2]
    return match[1], () if sizes == "scalar" else tuple(int(size) for size in sizes.split("x"))


def _dimension(text: str) -> tuple[str, int]:
    name, _, size = text.rpartition("=")
    if not name or not re.fullmatch(r"[0-9]+", size):
        raise click.BadParameter(f"{text!r} is not of the form name=8")
    return name, int(size)


def _binding(text: str) -> tuple[str, Any]:
    """``k=values.npz``: the array ``k`` of that file."""
    from ramforge.runtime import arrays

    name, _, path = text.partition("=")
    if not name or not path:
        raise click.BadParameter(f"{text!r} is not of the form name=values.npz")
    found = arrays.load(Path(path))
    if name not in found:
        known = ", ".join(map(repr, found)) or "none"
        raise click.BadParameter(f"{path} has no array {name!r}; it has: {known}")
    return name, found[name]


def _bindings(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> dict[str, Any]:
    return dict(map(_binding, values))


def _each(parse: Callable[[str], tuple[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A repeatable option as a table; what is said twice has to be the same."""

    def parsed(
        context: click.Context, parameter: click.Parameter, values: Sequence[str]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in map(parse, values):
            if found.setdefault(name, value) != value:
                raise click.BadParameter(f"{name!r} is given twice, with different sizes")
        return found

    return parsed


def _compilation(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how a model is compiled."""
    options = (
        click.option(
            "--target", default="h200", show_default=True, help="A device; see: ramforge targets."
        ),
        click.option(
            "--shapes",
            multiple=True,
            metavar="NAME:1x3x224x224",
            callback=_each(_shape),
            help="The shape of an input; repeatable.",
        ),
        click.option(
            "--dim",
            "dims",
            multiple=True,
            metavar="NAME=8",
            callback=_each(_dimension),
            help="The size of a symbolic dimension; repeatable.",
        ),
        click.option(
            "--bind",
            "values",
            multiple=True,
            metavar="NAME=VALUES.npz",
            callback=_bindings,
            help="The value of an input, which becomes a constant; repeatable.",
        ),
        click.option(
            "--schedule",
            type=click.Choice(["auto", "waves", "events", "per-op"]),
            default="auto",
            show_default=True,
            help="How rTasks are put on the vEUs; auto takes what is predicted to be fastest.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("compile", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.option("-o", "--output", help="Where to write, e.g. out.cu; without it, into the cache.")
@_compilation
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
@_common
def compile_command(
    model: str,
    output: str | None,
    target: str,
    shapes: dict[str, tuple[int, ...]],
    dims: dict[str, int],
    values: dict[str, Any],
    schedule: str,
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
            _tune(model, target, tune, output, **given, seconds=tune_seconds)
        artifact = api.compile(
            model,
            target=target,
            output=output,
            shapes=shapes,
            dims=dims,
            values=values,
            schedule=schedule,
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


def _tune(model: str, target: str, file: str, output: str | None, **options: Any) -> None:
    """Measure what the file lacks, once it is known that the output can be written."""
    from ramforge.codegen import artifact as artifacts
    from ramforge.compiler.device import find_target
    from ramforge.runtime import tune

    if output is not None:
        artifacts.check_writable(Path(output))
    tune.tune(model, find_target(target), file, **options)


def _build(artifact: Any) -> None:
    """What the target asks for, into the build cache."""
    from ramforge.runtime.drivers import cuda, host

    architecture = artifact.manifest["target"]["architecture"]
    if architecture == "host":
        host.build(artifact)
    else:
        cuda.build_cubin(artifact, architecture)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@_version
def commands() -> None:
    """An ahead-of-time DNN compiler: one ONNX model in, one CUDA file out."""


commands.add_command(compile_command)


@commands.command("run")
@click.argument("artifact")
@click.option("--load-inputs", metavar="IN.npz", help="Inputs by name; else made up.")
@click.option("--save-outputs", metavar="OUT.npz", help="Write the outputs here.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="For inputs that are made up.",
)
@click.option(
    "--device", default="auto", show_default=True, help="auto, cuda, host, or host:2 for two cores."
)
@_common
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


@commands.command("inspect")
@click.argument("what", metavar="MODEL|ARTIFACT")
@_compilation
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_common
def inspect_model(
    what: str,
    target: str,
    shapes: dict[str, tuple[int, ...]],
    dims: dict[str, int],
    values: dict[str, Any],
    schedule: str,
    as_json: bool,
    **common: Any,
) -> None:
    """What a MODEL is made of and how it would be scheduled, or what an ARTIFACT (its .cu file, or
    its folder) says of itself. An operator that is not supported is listed, and is no error.
    """
    from ramforge.codegen import artifact as artifacts
    from ramforge.compiler.device import find_target
    from ramforge.runtime import inspect, inspect_text

    with progress.reporting(**common) as report:
        if inspect.is_artifact(what):
            _refuse_compilation(click.get_current_context())
            document = inspect.of_artifact(artifacts.load(what))
        else:
            document = inspect.of_model(
                what,
                find_target(target),
                schedule,
                report,
                shapes=shapes,
                dims=dims,
                values=values,
            )
    click.echo(json.dumps(document, indent=2) if as_json else inspect_text.render(document))


def _refuse_compilation(context: click.Context) -> None:
    """An artefact is compiled already."""
    flags = {
        "target": "--target",
        "shapes": "--shapes",
        "dims": "--dim",
        "values": "--bind",
        "schedule": "--schedule",
    }
    for name, flag in flags.items():
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{flag} is for models; this is an artefact, compiled already")


@commands.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_version
def show_doctor(as_json: bool) -> None:
    """What this machine has of what ramforge can use."""
    from ramforge.runtime import doctor

    findings = doctor.diagnose()
    text = json.dumps(doctor.as_json(findings), indent=2) if as_json else doctor.render(findings)
    click.echo(text)


@commands.command("targets")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@_version
def show_targets(as_json: bool) -> None:
    """The devices that --target knows."""
    from dataclasses import asdict

    from ramforge.compiler.device import DEFAULT_TARGET, find_target, targets

    found = [find_target(target.name) for target in targets()]
    if as_json:
        click.echo(json.dumps([asdict(target) for target in found], indent=2))
        return
    for target in found:
        mark = " (default)" if target.name == DEFAULT_TARGET else ""
        names = ", ".join((target.name, *target.aliases))
        click.echo(
            f"{names:<26} {target.sms:>4} SMs  {target.architecture:<8} {target.description}{mark}"
        )


if __name__ == "__main__":
    main()
