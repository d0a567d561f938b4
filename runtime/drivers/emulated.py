"""A whole artefact in the emulator: the driver that tests use to run the SIMT side of our own
emitted files.

Memory starts poisoned (every float a NaN), so that whatever is read before it was written shows in
the outputs. What is written beyond a buffer is reported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ramforge.codegen.artifact import Artifact
from ramforge.compiler.errors import DeviceError
from ramforge.compiler.ir import Array
from ramforge.runtime.drivers import debug as debugging
from ramforge.runtime.drivers.emulator import Emulator, EmulatorReport, Order, build

POISON = 0xFF
OVERRUN = 16  # the status of a run that wrote beyond a buffer
_GUARD = 1 << 14  # bytes on either side of a buffer
CLEAN = EmulatorReport(0, "", 0, "", 0)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run goes: ``blocks`` 0 takes one block a lane, fewer blocks run several lanes each."""

    blocks: int = 0
    order: Order = Order.ASCENDING
    seed: int = 1
    spin_seconds: int = 10


class EmulatedDriver:
    """``text`` stands in for the artefact's own source, for tests that break it on purpose."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        race: bool = False,
        text: str | None = None,
        debug: bool = False,
        quick: bool = False,
    ) -> None:
        self._artifact = artifact
        source = debugging.text_of(text or artifact.text(), debug)
        self._emulator = Emulator(build(source, race=race, quick=quick))
        schedule = artifact.manifest["schedule"]
        self._launches: list[dict[str, int]] = schedule["launches"]
        self.control = np.zeros(schedule["control_words"], dtype=np.uint32)
        self._weights = _data_of(artifact)
        self.settings = Settings()
        self.report = CLEAN

    @property
    def description(self) -> str:
        return "emulator"

    def run(self, inputs: list[Array]) -> list[Array]:
        """Run once; DeviceError if it ends in a deadlock, gives up a wait or, in a race build, has
        races. The run after that one begins anew.
        """
        try:
            outputs = self.attempt(inputs)
        except BaseException:  # it was left between two launches
            self.control[:] = 0
            raise
        if debugging.is_aborted(self.control):
            problem = debugging.given_up(self._artifact, self.control)
        elif not self.report.ok:
            problem = DeviceError(self.report.message or self.report.race_text)
        else:
            return outputs
        self.control[:] = 0
        raise problem

    def attempt(self, inputs: list[Array]) -> list[Array]:
        """Run once, whatever comes of it; how it went is in ``report``."""
        workspace = _Guarded("the workspace", self._artifact.manifest["memory"]["workspace_bytes"])
        given = [
            _Guarded(port.name, np.asarray(array).nbytes, np.asarray(array))
            for port, array in zip(self._artifact.inputs, inputs, strict=True)
        ]
        ports = self._artifact.results
        taken = [_Guarded(p.name, int(np.prod(p.shape)) * p.numpy.itemsize) for p in ports]
        spaces = [workspace.space, self._weights, *(each.space for each in (*given, *taken))]
        self.report = CLEAN
        for number, launch in enumerate(self._launches):
            report = self._launch(number, launch, spaces)
            self.report = replace(
                report,
                races=self.report.races + report.races,
                accesses=self.report.accesses + report.accesses,
            )
            if report.status:
                break
        overrun = [each.name for each in (workspace, *given, *taken) if not each.is_whole]
        if overrun:
            text = f"memory beside {', '.join(overrun)} was written"
            self.report = replace(self.report, status=OVERRUN, message=text)
        return [
            each.space.view(port.numpy)[: int(np.prod(port.shape))].reshape(port.shape)
            for each, port in zip(taken, ports, strict=True)
        ]

    def _launch(self, number: int, launch: dict[str, int], spaces: list[Array]) -> EmulatorReport:
        settings = self.settings
        return self._emulator.launch(
            number,
            blocks=min(settings.blocks or launch["lanes"], launch["lanes"]),
            threads=launch["threads"],
            arena_bytes=max(launch["arena_bytes"], 16),
            spaces=spaces,
            control=self.control,
            order=settings.order,
            seed=settings.seed,
            spin_seconds=settings.spin_seconds,
        )

    def close(self) -> None:
        """Nothing is held beyond the arrays."""


class _Guarded:
    """A buffer with poison on either side, and in it unless it is filled."""

    def __init__(self, name: str, nbytes: int, content: Array | None = None) -> None:
        self.name = name
        room = max(16, -(-nbytes // 16) * 16)
        self._all = np.full(_GUARD + room + _GUARD, POISON, dtype=np.uint8)
        self._end = _GUARD + nbytes
        self.space = self._all[_GUARD : _GUARD + room]
        if content is not None:
            self._all[_GUARD : self._end] = np.ascontiguousarray(content).reshape(-1).view(np.uint8)

    @property
    def is_whole(self) -> bool:
        """Whether nothing beside it was written."""
        guards = self._all[:_GUARD], self._all[self._end :]
        return all(bool((guard == POISON).all()) for guard in guards)


def _data_of(artifact: Artifact) -> Array:
    raw = np.fromfile(artifact.weights, dtype=np.uint8)
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    data = raw[start:]
    return data.copy() if data.size else np.zeros(16, dtype=np.uint8)
