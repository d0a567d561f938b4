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
from ramforge.compiler.device import Target, VDevice
from ramforge.compiler.rprogram import Body, TaskCost

# The name of a body and the threads of the blocks that ran it: bodies know no threads.
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Measured:
    """The time of one rTask of a body, by blocks of ``threads`` while ``units`` vEUs were busy. It
    is a Work itself: what the prior knows of the body.
    """

    name: str
    family: str
    summary: str
    task_ns: float
    units: int
    threads: int
    blocks_per_sm: int
    cost: TaskCost

    @property
    def place(self) -> Place:
        return self.name, self.threads

    @property
    def tasks(self) -> int:
        return self.units

    @property
    def body(self) -> Body:
        return Body(self.family, self.summary, "", 0, 0)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured on a device, each place once, and fields of SyncCost that replace the
    prior's.
    """

    target: str  # its label
    sms: int
    machine: str = ""
    bodies: tuple[Measured, ...] = ()
    sync: Mapping[str, float] = field(default_factory=dict)

    @property
    def places(self) -> frozenset[Place]:
        return frozenset(measured.place for measured in self.bodies)


@dataclass(frozen=True, eq=False)
class TunedCost:
    """The CostModel of a Tuning."""

    prior: CostModel
    tuning: Tuning
    target: Target
    _names: dict[Work, tuple[str, str]] = field(default_factory=dict)
    _ratios: dict[Hashable, float] = field(default_factory=dict)

    def task_ns(self, work: Work, device: VDevice, active: int) -> float:
        return self.prior.task_ns(work, device, active) * self._ratio(work, device.threads)

    def key(self, work: Work) -> Hashable:
        """Without measurements no body has to be written for it."""
        key = self.prior.key(work)
        if not self.tuning.bodies:
            return key
        name, family = self._name(work)
        return key, name if name in self._measured else family

    def sync(self, target: Target) -> SyncCost:
        return replace(self.prior.sync(target), **self.tuning.sync)

    def _name(self, work: Work) -> tuple[str, str]:
        """The name of the body, and its family."""
        if work not in self._names:
            body = work.body
            self._names[work] = body.name, body.family
        return self._names[work]

    def _ratio(self, work: Work, threads: int) -> float:
        if not self.tuning.bodies:
            return 1.0
        key = (self.key(work), threads)
        if key not in self._ratios:
            name, family = self._name(work)
            measured = self._measured.get(name, {}).get(threads)
            self._ratios[key] = (
                self._against_prior(measured, work) if measured else self._families.get(family, 1.0)
            )
        return self._ratios[key]

    @cached_property
    def _measured(self) -> dict[str, dict[int, Measured]]:
        found: dict[str, dict[int, Measured]] = {}
        for measured in self.tuning.bodies:
            found.setdefault(measured.name, {})[measured.threads] = measured
        return found

    @cached_property
    def _families(self) -> dict[str, float]:
        """The median ratio of each family."""
        found: dict[str, list[float]] = {}
        for measured in self.tuning.bodies:
            ratio = self._against_prior(measured, measured)
            found.setdefault(measured.family, []).append(ratio)
        return {family: statistics.median(ratios) for family, ratios in found.items()}

    def _against_prior(self, measured: Measured, work: Work) -> float:
        """The measured time, by what the prior says of a work under the same conditions."""
        target = replace(self.target, threads=measured.threads)
        device = VDevice(target, measured.threads, measured.blocks_per_sm, 0)
        return measured.task_ns / self.prior.task_ns(work, device, measured.units)
