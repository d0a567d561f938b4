"""Measure rTasks on the device that a target means, into a tuning file.

Input: a model, a target, and what the file holds already; output: the file, with all that was
measured. Equal bodies are measured once, and what the file knows is not measured again.

Each program that is measured has one launch for each rOperator: the first takes the first candidate
of every node, the second the second one, and so on. The last takes what the compiler would take,
with sums that it cuts. The time of an rTask is that of its launch, less that of the same launch
without tasks, divided by how many of them a vEU runs one after the other.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.codegen import artifact as artifacts
from ramforge.codegen.artifact import Artifact, Files
from ramforge.codegen.build import host as host_build
from ramforge.codegen.render import counted
from ramforge.compiler.cost import tuning_file
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.cost.tuned import Measured, Place, TunedCost, Tuning
from ramforge.compiler.device import THREADS, Target, VDevice, vdevices
from ramforge.compiler.errors import DeviceError, OptionError
from ramforge.compiler.ir import Array, Graph
from ramforge.compiler.lower import Lowered, Offer, lower
from ramforge.compiler.pipeline import Program, compile_graph, finish, optimise, search
from ramforge.compiler.plan import Kind, Launch
from ramforge.compiler.rprogram import Candidate
from ramforge.compiler.schedule.per_op import PER_OP
from ramforge.compiler.schedule.selection import Rule
from ramforge.runtime import arrays
from ramforge.runtime.drivers import cuda, host

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("ramforge")

DEFAULT_SECONDS = 120.0
WARM_UP_RUNS = 2
FEWEST_RUNS, MOST_RUNS = 5, 50
MOST_SECONDS_OF_RUNS = 3.0
# A launch that is hardly longer than an empty one says only that its tasks are short.
LEAST_PART_OF_PRIOR = 0.1
TIMING = "#define RF_TIMING 1\n"
EMPTY = "#define RF_EMPTY 1\n"

Times = NDArray[np.float64]


class Timer(Protocol):
    """A driver that can tell how long launches take."""

    def launch_ns(self, inputs: list[Array]) -> list[float]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Budget:
    """Until when something may be begun, by the monotonic clock."""

    end: float

    @staticmethod
    def of(seconds: float) -> Budget:
        return Budget(time.monotonic() + seconds)

    @property
    def is_spent(self) -> bool:
        return time.monotonic() >= self.end


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """A way to lower a graph with one candidate for each node, and what it runs."""

    lowered: Lowered
    places: frozenset[Place]

    def program(self) -> Program:
        made = search(self.lowered, AnalyticCost()).best((PER_OP,), Rule.FASTEST)
        return finish(made, self.lowered)


def tune(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: Target,
    path: str | os.PathLike[str],
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    dims: Mapping[str, int] | None = None,
    values: Mapping[str, Array] | None = None,
    seconds: float = DEFAULT_SECONDS,
) -> Tuning:
    """Measure what the file at ``path`` lacks of the bodies that the model could use, and write it
    after every program. When ``seconds`` are over, the next call goes on.
    """
    from ramforge.compiler.frontend import import_model

    budget, file = Budget.of(seconds), Path(path)
    with Files(file):
        pass  # complain before any work is done
    tuning = _begun(file, target)
    log.info("tuning: reading the model")
    graph = import_model(model, shapes=shapes or {}, dims=dims or {}, values=values or {})
    options = options_of(optimise(graph, target.precision), target)
    wanted = frozenset[Place]().union(*(option.places for option in options))
    for option in options:
        missing = option.places - tuning.places
        if missing and not budget.is_spent:
            known = len(wanted & tuning.places)
            log.info("tuning: %d of %d bodies are known", known, len(wanted))
            tuning = _with(tuning, option.program(), missing, budget)
            write(file, tuning)
    left = len(wanted - tuning.places)
    if options and not budget.is_spent:
        cost = TunedCost(AnalyticCost(), tuning, target)
        program = compile_graph(graph, target, PER_OP.name, cost=cost)
        missing = places_in(program) - tuning.places
        if missing:
            log.info("tuning: %s of sums in parts", counted(len(missing), "body", "bodies"))
            tuning = _with(tuning, program, missing, budget)
    write(file, tuning)
    more = "; the time is over, run again to go on" if left else ""
    log.info("tuning: %d of %d bodies are known%s", len(wanted) - left, len(wanted), more)
    return tuning


def write(path: Path, tuning: Tuning) -> None:
    """All of the file or nothing."""

    def fill(file: IO[bytes]) -> None:
        file.write(tuning_file.text(tuning).encode())

    with Files(path) as files:
        files.add(path, fill)


def _begun(path: Path, target: Target) -> Tuning:
    """What the file knows, if there is one, and this machine can add to it."""
    machine = machine_of(target)
    if not path.exists():
        return Tuning(target.label, target.sms, machine)
    tuning = tuning_file.read(path, target)
    if tuning.machine != machine:
        raise OptionError(
            f"{path}: measured on {tuning.machine!r}, and this machine is {machine!r}\n"
            "    fix: tune into another file"
        )
    return tuning


def machine_of(target: Target) -> str:
    """What this machine has that the target means; DeviceError if it has no such device."""
    if target.is_host:
        if target.sms > host.cores():
            raise DeviceError(
                f"{target.label} asks for {target.sms} cores, this process may use {host.cores()}\n"
                f"    fix: --target host:{host.cores()}"
            )
        architecture, *fields = host_build.cpu().splitlines()
        return fields[0] if fields and fields[0] else architecture
    if not cuda.is_available():
        raise DeviceError(
            f"no CUDA device to tune {target.label} on: {cuda.obstacle()}\n"
            "    fix: tune on a GPU machine with pip install 'ramforge[cuda]', or --target host"
        )
    found = cuda.machine()
    architecture = f"sm_{str(found['capability']).replace('.', '')}"
    if found["sms"] != target.sms or target.architecture.rstrip("a") != architecture:
        raise DeviceError(
            f"{target.label} is {target.architecture} with {target.sms} SMs, this machine's "
            f"{found['name']} is {architecture} with {found['sms']}\n"
            "    fix: choose the --target of this device"
        )
    return str(found["name"])


def options_of(graph: Graph, target: Target) -> list[Option]:
    """For an optimised graph as many options as the node with most candidates has, for each size
    of a block.
    """
    found = []
    for threads in (target.threads,) if target.is_host else THREADS:
        sized = replace(target, threads=threads)
        most = max((len(each) for each in lower(graph, sized).candidates), default=0)
        for number in range(most):
            lowered = lower(graph, sized, nth(number, sized))
            kinds = dict.fromkeys(lowered.candidates)  # equal nodes share theirs
            names = {only.body.name for (only,) in kinds}
            found.append(Option(lowered, frozenset((name, threads) for name in names)))
    return found


def nth(number: int, target: Target) -> Offer:
    """Of each node the candidate of this number, of those that fit on the device; of a node with
    fewer of them one from the beginning again.
    """
    devices = vdevices(target)

    def offer(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        fitting = [candidate for candidate in candidates if _fits(candidate, devices)]
        fitting = fitting or list(candidates)  # which is refused later, and says why
        return (fitting[number % len(fitting)],)

    return offer


def _fits(candidate: Candidate, devices: tuple[VDevice, ...]) -> bool:
    return any(device.holds(candidate.arena_bytes, candidate.registers) for device in devices)


def places_in(program: Program) -> frozenset[Place]:
    threads = program.target.threads
    return frozenset((operator.variant.body.name, threads) for operator in program.operators)


def _with(tuning: Tuning, program: Program, missing: Collection[Place], budget: Budget) -> Tuning:
    """The same, and what is missing of it."""
    found = [row for row in measure(program, budget) if row.place in missing]
    return replace(tuning, bodies=(*tuning.bodies, *found))


def measure(program: Program, budget: Budget) -> list[Measured]:
    """Build the program, run it, and tell the time of each of its bodies."""
    with tempfile.TemporaryDirectory(prefix="ramforge-tune-") as folder:
        artifact = artifacts.emit(program, Path(folder) / "tune.cu", {})
        text = artifact.text()
        artifact.source.write_text(TIMING + text, encoding="utf-8")
        empty = artifact.source.with_name("empty.cu")
        empty.write_text(TIMING + EMPTY + text, encoding="utf-8")
        full_ns = launch_ns(artifact, program.target, budget)
        empty_ns = launch_ns(Artifact(empty, artifact.manifest), program.target, budget)
    return told(program, full_ns - empty_ns)


def launch_ns(artifact: Artifact, target: Target, budget: Budget) -> Times:
    """The least time of each launch, over some runs on made-up inputs: whatever else happens on the
    machine only adds to it, and cores that it puts to sleep add far more than a short rTask takes.
    """
    inputs = list(arrays.made_up(artifact.inputs, seed=0).values())
    timer = _open(artifact, target)
    try:
        for _ in range(WARM_UP_RUNS):
            timer.launch_ns(inputs)
        runs: list[list[float]] = []
        own = Budget.of(MOST_SECONDS_OF_RUNS)
        while len(runs) < FEWEST_RUNS or not (
            len(runs) == MOST_RUNS or own.is_spent or budget.is_spent
        ):
            runs.append(timer.launch_ns(inputs))
    finally:
        timer.close()
    return np.asarray(np.min(np.array(runs, dtype=np.float64), axis=0))


def _open(artifact: Artifact, target: Target) -> Timer:
    if target.is_host:
        return host.HostDriver(artifact, target.sms)
    return cuda.CudaDriver(artifact)


def told(program: Program, busy_ns: Times) -> list[Measured]:
    """What the times of the launches, less those of empty ones, tell of the bodies. Of several
    rOperators with one body, the median.
    """
    samples: dict[Place, list[Measured]] = {}
    for launch, time_ns in zip(program.plan.launches, busy_ns, strict=True):
        measured = _of_launch(program, launch, float(time_ns))
        samples.setdefault(measured.place, []).append(measured)
    return [
        sorted(found, key=lambda measured: measured.task_ns)[len(found) // 2]
        for found in samples.values()
    ]


def _of_launch(program: Program, launch: Launch, busy_ns: float) -> Measured:
    """What the launch of one rOperator tells of its body."""
    (number,) = set(launch.rows.what[launch.rows.of_kind(Kind.RUN)].tolist())
    variant, shape = program.operators[number].variant, launch.shape
    device = VDevice(program.target, shape.threads, shape.blocks_per_sm, shape.arena_bytes)
    units = min(variant.tasks, device.units)
    turns = -(-variant.tasks // device.units)
    least = LEAST_PART_OF_PRIOR * AnalyticCost().task_ns(variant, device, units)
    return Measured(
        variant.body.name,
        variant.body.family,
        variant.body.summary,
        max(busy_ns / turns, least),
        units,
        shape.threads,
        shape.blocks_per_sm,
        variant.cost,
    )
