"""``ramforge doctor``, ``ramforge targets``: what this machine has, and what to compile for."""

from __future__ import annotations

import json

import click

from ramforge.runtime.cli import options


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@options.version
def show_doctor(as_json: bool) -> None:
    """What this machine has of what ramforge can use."""
    from ramforge.runtime import doctor

    findings = doctor.diagnose()
    text = json.dumps(doctor.as_json(findings), indent=2) if as_json else doctor.render(findings)
    click.echo(text)


@click.command("targets")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@options.version
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
