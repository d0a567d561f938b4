"""All groups, or those whose name has ``--only`` in it: ``make emulator``.

A line for each group, and for each case that fails with the order in which it does. With
``--seconds`` no group begins after so many.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import click

from tests.emulator.groups import groups
from tests.emulator.running import RACE_ORDERS, Failure, run

MOST_LINES = 10  # of a group


def run_named(name: str, end: float) -> tuple[list[Failure], int, float] | None:
    """What fails in a group, how many cases it has and the time it took; None if it is too late."""
    if time.time() > end:
        return None
    start = time.monotonic()
    (group,) = (group for group in groups() if group.name == name)
    failures = run(group, race_orders=() if group.is_large else RACE_ORDERS)
    return failures, len(group.cases()), time.monotonic() - start


def report(name: str, job: Future[tuple[list[Failure], int, float] | None]) -> bool:
    """Print how a group went; false if something is wrong."""
    try:
        result = job.result()
    except BrokenProcessPool:
        click.echo(f"{name:<48} the process died; see which group it is with --jobs 1")
        return False
    except Exception as error:  # a group that breaks is a finding, and the others still run
        click.echo(f"{name:<48} {type(error).__name__}: {str(error)[:500]}")
        return False
    if result is None:
        click.echo(f"{name:<48} left out, the time is over")
        return True
    failures, cases, seconds = result
    verdict = f"{len(failures)} WRONG" if failures else "ok"
    click.echo(f"{name:<48} {cases:>4} cases {seconds:>6.0f} s  {verdict}")
    for failure in failures[:MOST_LINES]:
        click.echo(f"    {failure}")
    return not failures


@click.command()
@click.option("--only", default="", help="Groups with this in their name.")
@click.option("--seconds", default=float("inf"), help="Begin no group after so many.")
@click.option("--jobs", default=2, show_default=True, help="Groups at a time.")
@click.option("--list", "tell", is_flag=True, help="The groups, and nothing else.")
def main(only: str, seconds: float, jobs: int, tell: bool) -> None:
    """Run every kind of body in the emulator, in several orders and in the race build."""
    names = [group.name for group in groups() if only in group.name]
    if not names:
        raise click.UsageError(f"no group has {only!r} in its name; see --list")
    if tell:
        click.echo("\n".join(names))
        return
    end = time.time() + seconds
    with ProcessPoolExecutor(jobs) as pool:
        running = {pool.submit(run_named, name, end): name for name in names}
        right = [report(running[job], job) for job in as_completed(running)]
    click.echo(f"{sum(right)} of {len(names)} groups are right")
    if not all(right):
        raise SystemExit(5)


if __name__ == "__main__":
    main()
