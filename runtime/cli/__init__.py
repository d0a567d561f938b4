"""The command line: ``ramforge compile | run | verify | ...``, and the bare ``compile``.

Data goes to stdout, progress and logs to stderr. Every error of ours is a message with a fix and an
exit code of its own; a traceback is only for bugs, and only with -v.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from ramforge.compiler.errors import EXIT_ENVIRONMENT, EXIT_INTERNAL, RamforgeError
from ramforge.runtime.cli import options
from ramforge.runtime.cli.compile import compile_command
from ramforge.runtime.cli.inspect import inspect_model
from ramforge.runtime.cli.machine import show_doctor, show_targets
from ramforge.runtime.cli.run import run_model
from ramforge.runtime.cli.verify import verify_artifact
from ramforge.runtime.cli.zoo import zoo_commands

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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@options.version
def commands() -> None:
    """An ahead-of-time DNN compiler: one ONNX model in, one CUDA file out."""


for command in (
    compile_command,
    run_model,
    verify_artifact,
    inspect_model,
    zoo_commands,
    show_doctor,
    show_targets,
):
    commands.add_command(command)
