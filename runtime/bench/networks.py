"""Which networks of the zoo a benchmark is asked for."""

from __future__ import annotations

import click


def chosen(names: tuple[str, ...]) -> tuple[str, ...]:
    """These networks, or without any all of them."""
    from ramforge.zoo import ZOO

    unknown = sorted(set(names) - ZOO.keys())
    if unknown:
        raise click.UsageError(f"unknown networks: {', '.join(unknown)}; see: ramforge zoo list")
    return names or tuple(ZOO)
