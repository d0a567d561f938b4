"""The analytic prior: a roofline for one rTask, with everything that an SM or the memory can give
shared by the busy vEUs. The constants are guesses until they are measured.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ramforge.compiler.cost import SyncCost, Work
from ramforge.compiler.device import Target, VDevice

# Warps that an SM wants before it hides its latencies; with fewer it reaches less.
WARPS_WANTED = 16
LEAST_HIDING = 0.55
# One SM alone draws this part of the memory's bandwidth at most.
DRAM_SHARE_OF_ONE_SM = 1 / 32
L2_BYTES_PER_CYCLE_OF_ONE_SM = 64


@dataclass(frozen=True, slots=True)
class AnalyticCost:
    """Time = overhead + the largest of arithmetic, traffic with L2, and traffic with memory."""

    def task_ns(self, work: Work, device: VDevice, active: int) -> float:
        cost, target = work.cost, device.target
        active = max(1, min(active, device.units))
        sms = min(active, target.sms)
        sharing = -(-active // target.sms)  # busy vEUs on one SM
        gigahertz = target.clock_mhz * 1e-3
        rate = target.fp32_flops_per_cycle_per_sm * gigahertz * cost.efficiency
        rate *= hiding(device, sharing) / sharing
        near = min(target.l2_gb_per_s / sms, L2_BYTES_PER_CYCLE_OF_ONE_SM * gigahertz) / sharing
        far = min(1 / sms, DRAM_SHARE_OF_ONE_SM) * target.memory_gb_per_s / sharing
        if target.is_host:  # a core is not held up by the others as long as caches serve it
            near, far = target.l2_gb_per_s / sms, target.memory_gb_per_s / sms
        moved = cost.read_bytes + cost.written_bytes
        busy = max(cost.flops / rate, moved / near, cost.constant_bytes / far)
        return cost.overhead * target.task_ns + busy

    def key(self, work: Work) -> Hashable:
        return work.cost

    def sync(self, target: Target) -> SyncCost:
        return SyncCost(target.launch_ns, target.barrier_ns, target.event_ns, target.poll_ns)


def hiding(device: VDevice, sharing: int) -> float:
    """The part of its rate that an SM reaches with this many of its blocks busy."""
    if device.target.is_host:
        return 1.0
    warps = sharing * device.threads // 32
    return LEAST_HIDING + (1 - LEAST_HIDING) * min(1.0, warps / WARPS_WANTED)
