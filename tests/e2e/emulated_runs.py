"""Runs of compiled models in the emulator, and ways to break their text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.codegen import artifact as artifacts
from ramforge.codegen.artifact import Artifact
from ramforge.codegen.render import CONTROL_HEADER_WORDS
from ramforge.compiler.check import check_plan
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import find_target, vdevices
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import Array, Graph
from ramforge.compiler.lower import lower
from ramforge.compiler.pipeline import Program, optimise
from ramforge.compiler.rprogram import ROperator
from ramforge.compiler.schedule import POLICIES
from ramforge.compiler.schedule.arrangement import Stage, levels
from ramforge.compiler.schedule.search import plan
from ramforge.runtime import gpu_cases
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
HEADER = CONTROL_HEADER_WORDS  # the counters come behind it
TOLERANCE = 1e-4  # of the largest element


@dataclass(frozen=True, slots=True)
class Fault:
    """A text to find in an emitted file, how often it is there, and what to put in its place."""

    old: str
    new: str
    times: int = 1

    def __call__(self, text: str) -> str:
        found = text.count(self.old)
        assert found == self.times, f"{self.old!r} is there {found} times"
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class RowFault:
    """One row of ``rf_entries`` of a kind, the first for 0, with another number in a column."""

    kind: str
    which: int
    column: int  # 0 is the lane
    value: int

    def __call__(self, text: str) -> str:
        rows = list(re.finditer(rf"{{RF_{self.kind}, ([-\d, ]+)}},", text))
        row = rows[self.which]
        numbers = row[1].split(", ")
        assert numbers[self.column] != str(self.value)
        numbers[self.column] = str(self.value)
        return text[: row.start(1)] + ", ".join(numbers) + text[row.end(1) :]


Edit = Callable[[str], str]


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


def staged(
    model: onnx.ModelProto,
    policy: str,
    *,
    sms: int = 2,
    blocks: Sequence[int] = (2,),
    pick: int | None = 0,
    dims: Mapping[str, int] | None = None,
) -> Program:
    """A program whose variants and stages are given and not chosen: each node takes the candidate
    of this number, or without one that of its own number, counted round, and the waves are dealt
    out evenly to launches with so many blocks an SM.
    """
    numbers = itertools.count() if pick is None else itertools.repeat(pick)
    target = replace(find_target("h200"), sms=sms)
    graph = optimise(import_model(model, dims=dims or {}))
    lowered = lower(graph, target, offer=lambda all_: (all_[next(numbers) % len(all_)],))
    operators = lowered.realise((0,) * len(lowered.nodes))
    chosen = POLICIES[policy]
    reads = [node.inputs for node in lowered.nodes]
    waves = [tuple(wave) for wave in levels(reads, [node.outputs for node in lowered.nodes])]
    if chosen.is_alone:
        waves = [(number,) for wave in waves for number in wave]
        blocks = (blocks[0],) * len(waves)
    cuts = [-(-len(waves) * part // len(blocks)) for part in range(len(blocks) + 1)]
    devices = {device.blocks_per_sm: device for device in vdevices(target)}
    stages = tuple(
        Stage(devices[count], tuple(waves[begin:end]))
        for count, (begin, end) in zip(blocks, pairwise(cuts), strict=True)
        if begin < end
    )
    weights = weights_of(graph, operators)
    made = plan(
        chosen,
        operators,
        stages,
        graph,
        target,
        AnalyticCost(),
        lambda _: {name: value.nbytes for name, value in weights.items()},
    )
    check_plan(made.operators, made.plan, target, made.memory, graph)
    return Program(
        graph,
        made.operators,
        made.plan,
        made.memory,
        target,
        weights,
        made.timeline,
    )


def weights_of(graph: Graph, operators: Sequence[ROperator]) -> dict[str, Array]:
    """The constants as these rOperators want them, in the order of first use."""
    found: dict[str, Array] = {}
    for operator in operators:
        packed = operator.variant.packed
        for name in operator.variant.operands:
            if name in packed:
                found.setdefault(name, packed[name]())
            elif name in graph.constants:
                found[name] = graph.constants[name]
    return found


def emitted(program: Program, folder: Path) -> Artifact:
    return artifacts.emit(program, folder / "out.cu", {})


def branches() -> onnx.ModelProto:
    """A product whose operands come out of two branches, behind it a softmax of its rows."""
    return gpu_cases.model_of(
        "g (float[270, 12] x) => (float[270, 270] y) {"
        "  a = MatMul(x, w) s = Softmax(a)"
        "  h = MatMul(x, v) i = Sigmoid(h) t = Transpose<perm=[1, 0]>(i)"
        "  c = MatMul(s, t) y = Softmax(c) }",
        w=(12, 16),
        v=(12, 16),
    )
