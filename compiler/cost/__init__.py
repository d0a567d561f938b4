"""What things cost. One interface, so that measurements can take the place of the formulas."""

from __future__ import annotations

from typing import Protocol

from ramforge.compiler.device import VDevice
from ramforge.compiler.rprogram import TaskCost


class CostModel(Protocol):
    """Predicts the time of one rTask on one vEU while ``active`` vEUs are busy."""

    def task_ns(self, work: TaskCost, device: VDevice, active: int) -> float: ...
