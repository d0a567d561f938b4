"""Options that several commands have, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ramforge.compiler.device import PRECISIONS
from ramforge.compiler.version import VERSION

version = click.version_option(VERSION, prog_name="ramforge")


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that every command has."""
    flags = (
        version,
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


values = click.option(
    "--bind",
    "values",
    multiple=True,
    metavar="NAME=VALUES.npz",
    callback=_bindings,
    help="The value of an input, which becomes a constant; repeatable.",
)


seed = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="For inputs that are made up.",
)
device = click.option(
    "--device", default="auto", show_default=True, help="auto, cuda, host, or host:2 for two cores."
)


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


def compilation(command: Callable[..., Any]) -> Callable[..., Any]:
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
        values,
        click.option(
            "--schedule",
            type=click.Choice(["auto", "waves", "events", "per-op"]),
            default="auto",
            show_default=True,
            help="How rTasks are put on the vEUs; auto takes what is predicted to be fastest.",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default=PRECISIONS[0],
            show_default=True,
            help="Of the factors of matrix products; sums are float32.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
