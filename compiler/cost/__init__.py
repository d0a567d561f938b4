"""What things cost. One interface, so that measurements can take the place of the formulas."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ramforge.compiler.device import Target, VDevice
from ramforge.compiler.expressions.regions import Ints
from ramforge.compiler.rprogram import Body, TaskCost


class Work(Protocol):
    """What is to be paid for: a Candidate or a Variant. ``body`` may have to be written first."""

    @property
    def tasks(self) -> int: ...

    @property
    def cost(self) -> TaskCost: ...

    @property
    def body(self) -> Body: ...


@dataclass(frozen=True, slots=True)
class SyncCost:
    """What coming together costs on a device."""

    launch_ns: float
    barrier_ns: float  # from the last arrival of all vEUs to the first that goes on
    event_ns: float  # from one signal to a lane that waits for it
    poll_ns: float  # a wait for what is there already

    def arrival_ns(self, signals: Ints | int, units: int) -> NDArray[np.float64]:
        """From the last of so many signals to a lane that waits for all of them: an event if it is
        one, a barrier if they come from all ``units``.
        """
        share = (np.asarray(signals) - 1) / max(1, units - 1)
        return np.asarray(self.event_ns + max(0.0, self.barrier_ns - self.event_ns) * share)


class CostModel(Protocol):
    """Predicts times in nanoseconds; policies ask it and know no numbers of their own."""

    def task_ns(self, work: Work, device: VDevice, active: int) -> float:
        """One rTask on one vEU while ``active`` vEUs are busy."""
        ...

    def key(self, work: Work) -> Hashable:
        """Works with the same key cost the same."""
        ...

    def sync(self, target: Target) -> SyncCost: ...


def alone_ns(cost: CostModel, work: Work, device: VDevice) -> float:
    """Time of a whole rOperator alone on the device: full turns of the vEUs."""
    active = min(work.tasks, device.units)
    turns = -(-work.tasks // device.units)
    return turns * cost.task_ns(work, device, active)


def busy_ns(cost: CostModel, work: Work, device: VDevice) -> float:
    """What a whole rOperator takes of a full device, in nanoseconds of one vEU: the lower, the more
    room it leaves for others.
    """
    return work.tasks * cost.task_ns(work, device, device.units)
