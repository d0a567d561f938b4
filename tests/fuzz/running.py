"""Run a program in all the ways there are, and compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

import ramforge
import ramforge.kernels  # fills the registry
from ramforge.codegen.artifact import Artifact
from ramforge.compiler import registry
from ramforge.compiler.expressions import interpret
from ramforge.compiler.expressions.computation import computation_of
from ramforge.compiler.frontend import import_model
from ramforge.compiler.pipeline import optimise
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.session import Session
from tests.fuzz.maker import TOLERANCE, Choices, Maker, Program, Unsuitable, Value, is_float
from tests.fuzz.operators import GENERATORS
from tests.helpers import Array

# What the front end does without a kernel.
FOLDED = ("ConstantOfShape", "Range", "Shape", "Size")

# From which opset on nobody has a kernel to compare with.
NO_ORACLE = {"GlobalLpPool": 22, "MaxRoiPool": 22}


def usable(opset: int) -> tuple[str, ...]:
    """The operators with a generator that the compiler has and this opset knows."""
    known = {*registry.names(), *FOLDED}
    return tuple(
        name
        for name in sorted(GENERATORS)
        if name in known and _is_in(name, opset) and opset < NO_ORACLE.get(name, 99)
    )


def _is_in(name: str, opset: int) -> bool:
    try:
        return not onnx.defs.get_schema(name, opset, "").deprecated
    except onnx.defs.SchemaError:
        return False


def grow(choices: Choices, opset: int, steps: int, prefix: str = "") -> Maker:
    """A graph of about this many nodes."""
    maker = Maker(choices, opset, prefix)
    operators = usable(opset)
    for _ in range(3 * steps):
        if len(maker.nodes) >= steps:
            break
        add(maker, maker.pick(operators))
    return maker


def add(maker: Maker, op: str) -> bool:
    """Whether a node of this operator came of it."""
    try:
        GENERATORS[op](maker)
    except Unsuitable:
        return False
    return True


def interpreted(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """The optimised graph, computation by computation, with NumPy."""
    graph = optimise(import_model(model))
    values = {**graph.constants, **feeds}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            operands = [values[name] for name in node.inputs]
            values[node.outputs[0]] = interpret.run(computation_of(node), operands)
    wrong = [text for name, text in graph.checks.items() if np.any(values[name])]
    assert not wrong, wrong
    return [values[name] for name in graph.outputs if name not in graph.checks]


def on_host(artifact: Artifact, feeds: dict[str, Array]) -> list[Array]:
    with Session(artifact, "host:2") as session:
        return session.run(None, feeds)


def in_emulator(
    artifact: Artifact, feeds: dict[str, Array], settings: Sequence[Settings]
) -> list[list[Array]]:
    driver = EmulatedDriver(artifact, quick=True)
    arrays = [np.ascontiguousarray(feeds[port.name]) for port in artifact.inputs]
    found = []
    for chosen in settings:
        driver.settings = chosen
        found.append(driver.run(arrays)[: len(artifact.outputs)])
    return found


def complaints(made: Program, found: Sequence[Array], where: str) -> list[str]:
    """What is wrong with these outputs; empty if nothing is."""
    wrong = [
        (value, complaint(value, result))
        for value, result in zip(made.expected, found, strict=True)
    ]
    return [f"{where}: {value.name} {text}" for value, text in wrong if text]


def complaint(value: Value, found: Array) -> str:
    wanted = value.array
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return f"{found.dtype}{found.shape}, expected {wanted.dtype}{wanted.shape}"
    if value.is_exact or not is_float(value.kind):
        unsettled = np.zeros(wanted.shape, bool)
        for other in value.shaken:
            unsettled |= (other != wanted) & ~((other != other) & (wanted != wanted))
        wrong = (found != wanted) & ~((found != found) & (wanted != wanted)) & ~unsettled
        return _first(wrong, found, wanted)
    wide, result = wanted.astype(np.float64), found.astype(np.float64)
    shaken = [other.astype(np.float64) for other in value.shaken]
    settled = np.isfinite(wide)
    with np.errstate(all="ignore"):
        slack = sum(8 * np.abs(other - wide) for other in shaken)
        for other in shaken:
            settled &= np.isfinite(other)
        unsettled = ~settled & ~np.isnan(wide) & (wide != shaken[0])
        unsettled |= np.isnan(wide) != np.isnan(shaken[0])
        for other in shaken:
            unsettled |= np.isfinite(wide) != np.isfinite(other)
        largest = float(np.abs(wide[settled]).max(initial=0.0))
        limit = TOLERANCE[value.kind] * largest + slack
        limit = limit + np.where(settled, slack, 0).max(initial=0.0) / 8
        wrong = settled & ~(np.abs(result - wide) <= limit)
        same = (result == wide) | (np.isnan(result) & np.isnan(wide))
        wrong |= ~settled & ~unsettled & ~same
        # results near the end of the range
        top = float(np.finfo(value.kind).max) if value.kind.kind == "f" else np.inf
        wrong &= ~((np.abs(wide) > top / 2) & (np.abs(result) > top / 2))
        tiny = float(np.finfo(value.kind).tiny) if value.kind.kind == "f" else 1e-37
        wrong &= ~((np.abs(wide) < 4 * tiny) & (np.abs(result) < 4 * tiny))
    return _first(wrong, found, wanted)


def _first(wrong: Array, found: Array, wanted: Array) -> str:
    if not wrong.any():
        return ""
    place = tuple(int(axis[0]) for axis in np.nonzero(wrong)) if wrong.ndim else ()
    return (
        f"{wanted.dtype}{wanted.shape}: {int(wrong.sum())} of {wanted.size} wrong, "
        f"at {place}: {found[place]!r}, expected {wanted[place]!r}"
    )


def compiled(model: onnx.ModelProto, folder: Path, schedule: str = "auto") -> Artifact:
    return ramforge.compile(model, target="h200", output=folder / "fuzz.cu", schedule=schedule)


def save(made: Program, folder: Path) -> None:
    """The model, its inputs and what they give, to look at later."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(made.model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", **made.inputs)
    np.savez(folder / "expected.npz", **{value.name: value.array for value in made.expected})


def differences(made: Program, host: Sequence[Array], other: Sequence[Array]) -> list[str]:
    """Where two ways to run the same program are further apart than a few ulp of the largest
    number, or than rounding explains.
    """
    found = []
    for value, first, second in zip(made.expected, host, other, strict=True):
        near = Value(value.name, first, (first, first))
        if is_float(first.dtype) and not value.is_exact:
            slack = tuple(_moved(first, value.array, shaken) for shaken in value.shaken)
            near = Value(value.name, first, (slack[0], slack[1]))
        text = complaint(near, second)
        if text:
            found.append(f"{value.name} {text}")
    return found


def _moved(array: Array, base: Array, shaken: Array) -> Array:
    """As far off as rounding errors made the expected value."""
    with np.errstate(all="ignore"):
        step = shaken.astype(np.float64) - base.astype(np.float64)
        step = np.where(np.isnan(step) & (np.isnan(base) == np.isnan(shaken)), 0, step)
        return np.asarray(array.astype(np.float64) + step).astype(array.dtype)
