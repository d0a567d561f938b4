"""Schedule policies: from rOperators and a vDevice to a Plan. All of them run the same bodies."""

from __future__ import annotations

from collections.abc import Callable

from ramforge.compiler.device import VDevice
from ramforge.compiler.errors import OptionError
from ramforge.compiler.rprogram import Plan, ROperator
from ramforge.compiler.schedule.per_op import per_op
from ramforge.compiler.schedule.waves import waves

Policy = Callable[[tuple[ROperator, ...], VDevice], Plan]

POLICIES: dict[str, Policy] = {"waves": waves, "per-op": per_op}
DEFAULT_POLICY = "waves"


def find_policy(name: str) -> Policy:
    if name not in POLICIES:
        known = ", ".join(POLICIES)
        raise OptionError(f"unknown schedule {name!r}\n    fix: use one of {known}")
    return POLICIES[name]
