"""Schedule policies: from rOperators and a vDevice to a Plan. All of them run the same bodies."""

from __future__ import annotations

from ramforge.compiler.errors import OptionError
from ramforge.compiler.schedule.events import EVENTS
from ramforge.compiler.schedule.per_op import PER_OP
from ramforge.compiler.schedule.policy import Policy
from ramforge.compiler.schedule.waves import WAVES

POLICIES: dict[str, Policy] = {policy.name: policy for policy in (WAVES, EVENTS, PER_OP)}
AUTO = "auto"
SCHEDULES = (AUTO, *POLICIES)
DEFAULT_SCHEDULE = AUTO


def find_policies(name: str) -> tuple[Policy, ...]:
    """The policies to try: the one of this name, or all of them."""
    if name == AUTO:
        return tuple(POLICIES.values())
    if name not in POLICIES:
        known = ", ".join(SCHEDULES)
        raise OptionError(f"unknown schedule {name!r}\n    fix: use one of {known}")
    return (POLICIES[name],)
