"""Runs of compiled models in the emulator, and ways to break their text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from ramforge.codegen.artifact import Artifact
from ramforge.compiler.ir import Array
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.drivers.emulator import Order
from ramforge.runtime.session import Session

ORDERS = (
    Settings(order=Order.ASCENDING),
    Settings(order=Order.DESCENDING),
    Settings(order=Order.RANDOM, seed=1),
    Settings(order=Order.RANDOM, seed=2),
    Settings(order=Order.RANDOM, seed=3),
)
TOLERANCE = 1e-4  # of the largest element


@dataclass(frozen=True, slots=True)
class Fault:
    """A text to find in an emitted file, how often it is there, and what to put in its place."""

    old: str
    new: str
    times: int = 1

    def applied(self, text: str) -> str:
        found = text.count(self.old)
        assert found == self.times, f"{self.old!r} is there {found} times"
        return text.replace(self.old, self.new)


def inputs_of(artifact: Artifact, seed: int = 5) -> list[Array]:
    random = np.random.default_rng(seed)
    return [
        random.integers(0, 100, port.shape)
        if port.dtype == "int64"
        else random.standard_normal(port.shape).astype(port.dtype)
        for port in artifact.inputs
    ]


def host_outputs(artifact: Artifact, inputs: list[Array]) -> list[Array]:
    names = [port.name for port in artifact.inputs]
    with Session(artifact, device="host:2") as session:
        return session.run(None, dict(zip(names, inputs, strict=True)))


def are_close(found: list[Array], expected: list[Array]) -> bool:
    """Also false where anything is not a number."""
    return all(
        bool(np.abs(one - other).max() <= TOLERANCE * np.abs(other).max())
        for one, other in zip(found, expected, strict=True)
    )


def are_equal(found: list[Array], expected: list[Array]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(found, expected, strict=True))


def attempts(
    driver: EmulatedDriver, inputs: list[Array], expected: list[Array], orders: Iterable[Settings]
) -> list[bool]:
    """For each order whether the run ended, and came out as expected."""
    outcome = []
    for settings in orders:
        driver.settings = replace(settings, spin_seconds=1)
        driver.control[:] = 0
        outputs = driver.attempt(inputs)
        outcome.append(driver.report.ok and are_close(outputs, expected))
    return outcome
