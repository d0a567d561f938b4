"""One launch for each rOperator, in topological order: the yardstick that the paper calls
RammerBase.
"""

from __future__ import annotations

from ramforge.compiler.plan import Events, Kind, Launch, Plan, compress
from ramforge.compiler.schedule.arrangement import Arrangement
from ramforge.compiler.schedule.policy import Conflicts, Operators, Policy
from ramforge.compiler.schedule.waves import pack_waves


def _synchronise(operators: Operators, arranged: Arrangement, conflicts: Conflicts) -> Plan:
    launches = []
    for stage in arranged.stages:
        runs = [arranged.shares[n].entries(Kind.RUN, n) for n in stage.operators]
        shape = stage.device.shape
        launches.append(Launch(compress(runs), stage.device.units, Events.of(()), shape))
    return Plan("per-op", tuple(launches), arranged.steps)


PER_OP = Policy(
    "per-op",
    "a launch for each rOperator",
    pack_waves,
    _synchronise,
    is_alone=True,
)
