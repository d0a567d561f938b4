"""One launch for each rOperator, in topological order: the yardstick that the paper calls
RammerBase.
"""

from __future__ import annotations

from ramforge.compiler.device import VDevice
from ramforge.compiler.rprogram import Entry, Launch, Plan, ROperator, Run
from ramforge.compiler.schedule.placement import place


def per_op(operators: tuple[ROperator, ...], device: VDevice) -> Plan:
    launches = []
    for number, operator in enumerate(operators):
        lanes: list[list[Entry]] = [[] for _ in range(device.units)]
        for unit, first, count in place(operator.tasks, 1.0, [0.0] * device.units):
            lanes[unit].append(Run(0, number, first, count))
        launches.append(
            Launch(
                tuple(tuple(lane) for lane in lanes),
                device.threads,
                device.blocks_per_sm,
                device.arena_bytes,
                0,
            )
        )
    return Plan("per-op", tuple(launches), tuple(range(len(operators))))
