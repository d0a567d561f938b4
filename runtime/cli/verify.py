"""``ramforge verify``: an artefact beside a reference of its model, and where they part."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ramforge.runtime import progress
from ramforge.runtime.cli import options
from ramforge.runtime.tables import Table, cell

if TYPE_CHECKING:
    from ramforge.runtime.verify.bisect import Bisection, Culprit
    from ramforge.runtime.verify.outputs import Verification
    from ramforge.runtime.verify.recipe import Recipe
    from ramforge.runtime.verify.tolerance import Difference

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"


def _tolerance(
    context: click.Context, parameter: click.Parameter, texts: Sequence[str]
) -> dict[str, float]:
    """``1e-3`` for all tensors, or ``out0:1e-2`` for one; the name itself may hold colons."""
    found = {}
    for text in texts:
        match = re.fullmatch(rf"(?:(.+):)?({_NUMBER})", text)
        if match is None:
            raise click.BadParameter(f"{text!r} is not of the form 1e-3 or out0:1e-3")
        found[match[1] or ""] = float(match[2])
    return found


@click.command("verify")
@click.argument("artifact")
@click.argument("model")
@click.option(
    "--ref",
    "reference",
    type=click.Choice(["ort", "onnx"]),
    help="ONNX Runtime, or the reference implementation of onnx; without it ort, and onnx for "
    "quantised models.",
)
@click.option("--load-inputs", metavar="IN.npz", help="Inputs by name; else made up.")
@options.seed
@options.values
@click.option(
    "--atol",
    multiple=True,
    metavar="[NAME:]X",
    callback=_tolerance,
    help="Allowed difference, of every tensor or of this one; 0 without it.",
)
@click.option(
    "--rtol",
    multiple=True,
    metavar="[NAME:]X",
    callback=_tolerance,
    help="The same as a share of the tensor's largest value; without it 1e-4 for float32, 1e-10 "
    "for float64, 4e-3 for float16, 4e-2 for bfloat16, 0 for integers; and one step where a "
    "quantiser made it.",
)
@options.device
@click.option("--layers", is_flag=True, help="Also compare every tensor of the model.")
@click.option(
    "--bisect", is_flag=True, help="Find the first node that goes wrong, and save a model of it."
)
@click.option("--save-model", metavar="FOLDER", help="Where --bisect saves; OUT.bisect without it.")
@click.option("--tuning", metavar="FILE", help="The measurements that ARTIFACT was compiled by.")
@options.common
def verify_artifact(
    artifact: str,
    model: str,
    reference: str | None,
    load_inputs: str | None,
    seed: int,
    values: dict[str, Any],
    atol: dict[str, float],
    rtol: dict[str, float],
    device: str,
    layers: bool,
    bisect: bool,
    save_model: str | None,
    tuning: str | None,
    **common: Any,
) -> None:
    """Run ARTIFACT as it is and compare its outputs with a reference of MODEL.

    --layers and --bisect compile MODEL again, as ARTIFACT was compiled.
    """
    from ramforge.codegen import artifact as artifacts
    from ramforge.runtime import arrays
    from ramforge.runtime.verify.layers import layers as all_layers
    from ramforge.runtime.verify.outputs import made_reference, verify
    from ramforge.runtime.verify.parts import Whole
    from ramforge.runtime.verify.recipe import recipe
    from ramforge.runtime.verify.reference import Source
    from ramforge.runtime.verify.steps import steps
    from ramforge.runtime.verify.tolerance import Tolerances, of_precision

    with progress.reporting(**common) as report:
        loaded = artifacts.load(artifact)
        how = recipe(loaded, device, values, tuning) if layers or bisect else None
        given = arrays.load(Path(load_inputs)) if load_inputs else {}
        tolerances = Tolerances(atol, rtol)
        report("verifying the outputs")
        found = verify(
            loaded,
            model,
            inputs=given,
            seed=seed,
            values=values,
            reference=reference,
            tolerances=tolerances,
            device=device,
        )
        click.echo(_outputs(found))
        if how is not None and (layers or not found.ok):
            source = Source(model)
            theirs = made_reference(source, {**found.inputs, **values}, reference)
            whole = Whole(model, how)
            tolerances = tolerances.over(steps(source.proto, whole.made))
            tolerances = tolerances.over(of_precision(loaded.precision))
            if layers:
                _show_layers(list(all_layers(source, whole, theirs, how, tolerances)))
            if bisect and not found.ok:
                from ramforge.runtime.verify.bisect import Bisection

                search = Bisection(whole, theirs, how, tolerances, report)
                culprit = search.find(loaded)
                folder = Path(save_model or loaded.source.with_suffix(".bisect"))
                options = ["--ref", theirs.kind, "--device", device]
                _show_culprit(search, culprit, folder, how, options)
    found.raise_for_status()


def _outputs(found: Verification) -> str:
    rows = [
        (cell(port.name), port.dtype, _size(port.shape), *_verdict(item))
        for port, item in zip(found.artifact.outputs, found.differences, strict=True)
    ]
    head = ("output", "type", "shape", "error", "allowed", "verdict")
    return Table(f"{found.artifact.source} on {found.device}", head, rows).plain()


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _verdict(item: Difference) -> tuple[str, str, str]:
    return f"{item.share:.1e}", f"{item.tolerance:.0e}", "ok" if item.ok else "WRONG"


def _show_layers(found: Sequence[Any]) -> None:
    first = next((layer for layer in found if not layer.difference.ok), None)
    rows = [
        (
            cell(layer.difference.name),
            layer.operator,
            _size(layer.shape),
            *_verdict(layer.difference)[:2],
            _verdict(layer.difference)[2] + (", the first" if layer is first else ""),
        )
        for layer in found
    ]
    title = (
        "The tensors of a program that keeps them all: what is fused in the artefact is not fused\n"
        "here, and errors of earlier tensors go on into later ones; --bisect has neither doubt."
    )
    head = ("tensor", "operator", "shape", "error", "allowed", "verdict")
    click.echo(f"\n{Table(title, head, rows).plain()}")


def _show_culprit(
    search: Bisection,
    culprit: Culprit | None,
    folder: Path,
    how: Recipe,
    options: Sequence[str],
) -> None:
    """What was found, the saved model, and how to see it again."""
    from ramforge.runtime import arrays, onnx_files

    for name, reason in search.refused.items():
        click.echo(f"\n{cell(name)} could not run alone: {reason}")
    if culprit is None:
        click.echo(
            "\nNo part of the model is wrong when it is compiled again, nor is all of it: the "
            "artefact\nis not what this ramforge makes, or it runs wrongly only in this order."
        )
        return
    alone = len(culprit.nodes) == 1
    what = "This node is wrong" if alone else "These nodes are right alone and wrong together"
    click.echo(f"\n{what}, on the inputs that the reference has there:")
    for node in culprit.nodes:
        click.echo(f"  {node.op_type} {cell(node.name)}")
    for item in culprit.differences:
        click.echo(f"  output {cell(item.name)}: error {item.share:.1e}, {_verdict(item)[2]}")
    model, inputs, source = (folder / name for name in ("model.onnx", "inputs.npz", "model.cu"))
    folder.mkdir(parents=True, exist_ok=True)
    onnx_files.save(culprit.model, model)
    arrays.save(inputs, culprit.inputs)
    compiling = ["compile", str(model), "-o", str(source), "--target", how.target]
    compiling += ["--schedule", how.schedule, "--precision", how.precision]
    verifying = ["ramforge", "verify", str(source), str(model), "--load-inputs", str(inputs)]
    click.echo(f"\nSaved as {model}, with its inputs. To see it again:")
    click.echo(f"  {shlex.join(compiling)}\n  {shlex.join([*verifying, *options])}")
