"""Costs from measurements: the prior, corrected by what was measured.

A measured body costs the prior times (measured time / prior under the conditions of the
measurement). So it is exact under these, and elsewhere the prior says how sharing the device
changes it. A body that was not measured gets the median of these ratios in its family, so that the
two are on one scale; where nothing of a family was measured, the prior as it is.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ramforge.compiler.cost import CostModel, SyncCost, Work
from ramforge.compiler.device import THREADS, Target, VDevice
from ramforge.compiler.rprogram import Body, TaskCost


@dataclass(frozen=True, slots=True)
class Measured:
    """The time of one rTask of a body while ``units`` vEUs were busy, so many of them on an SM. It
    is a Work itself: what the prior knows of the body.
    """

    family: str
    summary: str
    task_ns: float
    units: int
    blocks_per_sm: int
    cost: TaskCost

    @property
    def tasks(self) -> int:
        return self.units

    @property
    def body(self) -> Body:
        return Body(self.family, self.summary, "", 0, 0)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured on a device: bodies by their names, and fields of SyncCost that replace the
    prior's.
    """

    target: str  # its label
    sms: int
    machine: str = ""
    bodies: Mapping[str, Measured] = field(default_factory=dict)
    sync: Mapping[str, float] = field(default_factory=dict)

    def with_bodies(self, found: Mapping[str, Measured]) -> Tuning:
        return replace(self, bodies={**self.bodies, **found})


@dataclass(frozen=True, eq=False)
class TunedCost:
    """The CostModel of a Tuning."""

    prior: CostModel
    tuning: Tuning
    target: Target
    _names: dict[Work, tuple[str, str]] = field(default_factory=dict)
    _ratios: dict[Hashable, float] = field(default_factory=dict)

    def task_ns(self, work: Work, device: VDevice, active: int) -> float:
        return self.prior.task_ns(work, device, active) * self._ratio(work)

    def key(self, work: Work) -> Hashable:
        """Without measurements no body has to be written for it."""
        key = self.prior.key(work)
        return (key, self._name(work)) if self.tuning.bodies else key

    def sync(self, target: Target) -> SyncCost:
        return replace(self.prior.sync(target), **self.tuning.sync)

    def _name(self, work: Work) -> str:
        """What tells a body from those with other ratios: its own name if it was measured, else
        that of its family.
        """
        if work not in self._names:
            body = work.body
            self._names[work] = body.name, body.family
        name, family = self._names[work]
        return name if name in self.tuning.bodies else family

    def _ratio(self, work: Work) -> float:
        if not self.tuning.bodies:
            return 1.0
        key = self.key(work)
        if key not in self._ratios:
            name = self._name(work)
            measured = self.tuning.bodies.get(name)
            self._ratios[key] = (
                self._against_prior(measured, work) if measured else self._families.get(name, 1.0)
            )
        return self._ratios[key]

    @cached_property
    def _families(self) -> dict[str, float]:
        """The median ratio of each family."""
        found: dict[str, list[float]] = {}
        for measured in self.tuning.bodies.values():
            ratio = self._against_prior(measured, measured)
            found.setdefault(measured.family, []).append(ratio)
        return {family: statistics.median(ratios) for family, ratios in found.items()}

    def _against_prior(self, measured: Measured, work: Work) -> float:
        """The measured time, by what the prior says of a work under the same conditions."""
        device = VDevice(self.target, THREADS, measured.blocks_per_sm, 0)
        return measured.task_ns / self.prior.task_ns(work, device, measured.units)
