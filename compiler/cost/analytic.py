"""The analytic prior: a roofline for one rTask, with the memory's bandwidth shared by the busy
vEUs.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramforge.compiler.cost import CostModel
from ramforge.compiler.device import VDevice
from ramforge.compiler.rprogram import Candidate, TaskCost

# Fetching a task, its first loads and its last stores; a guess until it is measured.
TASK_OVERHEAD_NS = 700.0
# What a body of this kind reaches of the peak rate; a guess until it is measured.
EFFICIENCY = 0.5


@dataclass(frozen=True, slots=True)
class AnalyticCost:
    """Time = overhead + the larger of arithmetic and traffic."""

    overhead_ns: float = TASK_OVERHEAD_NS
    efficiency: float = EFFICIENCY

    def task_ns(self, work: TaskCost, device: VDevice, active: int) -> float:
        target = device.target
        busy_sms = max(1, min(active, target.sms))
        shared_by = max(1.0, active / target.sms)
        rate = target.fp32_flops_per_cycle_per_sm * target.clock_mhz * 1e-3 * self.efficiency
        arithmetic = work.flops * shared_by / rate
        moved = work.read_bytes + work.written_bytes
        # one SM alone cannot draw the whole memory's bandwidth: about an eighth of it at most
        bandwidth = min(target.memory_gb_per_s / busy_sms, target.memory_gb_per_s / 8)
        return self.overhead_ns + max(arithmetic, moved * shared_by / bandwidth)


def alone_ns(cost: CostModel, candidate: Candidate, device: VDevice) -> float:
    """Time of a whole rOperator alone on the device: full turns of the vEUs."""
    active = min(candidate.tasks, device.units)
    turns = -(-candidate.tasks // device.units)
    return turns * cost.task_ns(candidate.cost, device, active)
