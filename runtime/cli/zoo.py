"""``ramforge zoo``: the example networks, to look at, to save and to verify."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ramforge.runtime import progress
from ramforge.runtime.cli import options
from ramforge.runtime.tables import Table

if TYPE_CHECKING:
    from ramforge.zoo import Entry

_small = click.option("--small", is_flag=True, help="The same structure with few and small layers.")


@click.group("zoo", context_settings={"help_option_names": ["-h", "--help"]})
@options.version
def zoo_commands() -> None:
    """The networks that ramforge is judged on, with seeded random weights."""


@zoo_commands.command("list")
@click.option("--sizes", is_flag=True, help="Also make each network and count it; takes minutes.")
@_small
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@options.common
def list_networks(sizes: bool, small: bool, as_json: bool, **common: Any) -> None:
    """All networks and what they are."""
    from ramforge.zoo import ZOO

    rows: list[dict[str, Any]] = []
    with progress.reporting(**common) as report:
        for name, entry in ZOO.items():
            rows.append({"name": name, "summary": entry.summary})
            if sizes:
                report(f"making {name}")
                rows[-1] |= _counted(entry, small)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    cells = [
        (row["name"], row["summary"], *_sizes(row)) if sizes else (row["name"], row["summary"])
        for row in rows
    ]
    head = ("network", "what it is", *(("nodes", "weights") if sizes else ()))
    click.echo(Table("", head, cells).plain().lstrip("\n"))


def _counted(entry: Entry, small: bool) -> dict[str, int]:
    from ramforge.runtime import onnx_files

    model = (entry.small if small else entry.full)()
    nodes = sum(node.op_type != "Constant" for node in model.graph.node)
    return {"nodes": nodes, "weight_bytes": onnx_files.weight_bytes(model)}


def _sizes(row: dict[str, Any]) -> tuple[str, str]:
    return str(row["nodes"]), f"{row['weight_bytes'] / 1e6:.1f} MB"


@zoo_commands.command("build")
@click.argument("name")
@click.option("-o", "--output", metavar="OUT.onnx", help="NAME.onnx without it.")
@_small
@options.common
def build_network(name: str, output: str | None, small: bool, **common: Any) -> None:
    """Save the network NAME as an ONNX file; weights over 2 GB go into a second file beside it."""
    from ramforge.runtime import arrays, onnx_files

    entry = _entry(name)
    path = Path(output or f"{name}.onnx")
    with progress.reporting(**common) as report:
        arrays.check_writable(path)
        report(f"making {name}")
        onnx_files.save((entry.small if small else entry.full)(), path)
    click.echo(str(path))


@zoo_commands.command("verify")
@click.argument("name", metavar="NAME|all")
@_small
@click.option(
    "--target", default="host", show_default=True, help="A device; see: ramforge targets."
)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--json", "json_path", metavar="FILE", help="Write the figures here too.")
@options.common
def verify_networks(
    name: str, small: bool, target: str, threads: int, json_path: str | None, **common: Any
) -> None:
    """Compile NAME, or all networks, run them on this machine's cores, and compare the outputs with
    ONNX Runtime; those of quantised networks with onnx.reference, to one step of the output.
    """
    from ramforge.compiler.device import find_target
    from ramforge.compiler.errors import VerificationError
    from ramforge.runtime import arrays
    from ramforge.runtime.bench import zoo
    from ramforge.zoo import ZOO

    if name != "all":
        _entry(name)
    find_target(target)
    if json_path:
        arrays.check_writable(Path(json_path))
    rows = []
    with progress.reporting(**common) as report:
        for each in ZOO if name == "all" else (name,):
            report(f"verifying {each}")
            rows.append(zoo.measure(each, small=small, target=target, threads=threads))
            report(f"{each}: {rows[-1].verdict}")
    click.echo(zoo.table(rows).plain().lstrip("\n"))
    if json_path:
        Path(json_path).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    wrong = [row.name for row in rows if not row.ok]
    if wrong:
        raise VerificationError(
            f"{len(wrong)} of {len(rows)} networks are wrong: {', '.join(wrong)}\n"
            "    fix: ramforge zoo build NAME, compile it, and ramforge verify --bisect"
        )


def _entry(name: str) -> Entry:
    from ramforge.zoo import ZOO

    if name not in ZOO:
        raise click.BadParameter(f"no network {name!r}; it is one of {', '.join(ZOO)}")
    return ZOO[name]
