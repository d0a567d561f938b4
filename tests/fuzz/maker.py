"""Models in the making: every value is known while the graph grows, from an oracle that runs each
node by itself. So only what is valid gets in, and what is expected needs no second pass.

A value is computed three times: as it is, and twice with small random errors after every operation
that rounds. How far these are apart says how far a correct result may be off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.fuzz.oracle import NoOracle, runner
from tests.helpers import Array

T = TypeVar("T")
Shape = tuple[int, ...]
Kind = np.dtype[Any]

MOST_ELEMENTS = 6000
SIZES = (1, 2, 3, 3, 4, 5, 7, 8, 17)
F16, F32, F64 = (np.dtype(name) for name in ("float16", "float32", "float64"))
BF16 = np.dtype(ml_dtypes.bfloat16)
BOOL = np.dtype(bool)
I32, I64 = np.dtype("int32"), np.dtype("int64")
FLOATS = (F32, F32, F32, F64, F16)
SIGNED = tuple(np.dtype(name) for name in ("int32", "int64", "int8", "int16"))
UNSIGNED = tuple(np.dtype(name) for name in ("uint8", "uint32", "uint64", "uint16"))
INTEGERS = SIGNED + UNSIGNED
NUMBERS = (*FLOATS, *FLOATS, I32, I64, *INTEGERS)
ANY = (*NUMBERS, BOOL)

# relative errors of one operation, and what is allowed in all
# (attributes are float32 numbers, so a double is off by more than its own rounding)
_ROUNDING = {F16: 2e-3, F32: 3e-7, F64: 1e-7, BF16: 1e-2}
TOLERANCE = {F16: 5e-3, F32: 1e-4, F64: 1e-6, BF16: 4e-2}


class Unsuitable(Exception):
    """A generator found nothing to work on."""


class Choices(Protocol):
    """Where decisions come from."""

    def integer(self, low: int, high: int) -> int: ...


def is_float(kind: Kind) -> bool:
    return kind.kind == "f" or kind == BF16


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the model. ``shaken`` is what it becomes with errors of rounding."""

    name: str
    array: Array
    shaken: tuple[Array, Array]
    is_last: bool = False  # nothing is to be made of it

    @property
    def shape(self) -> Shape:
        return self.array.shape

    @property
    def rank(self) -> int:
        return self.array.ndim

    @property
    def kind(self) -> Kind:
        return self.array.dtype

    @property
    def is_exact(self) -> bool:
        return self.shaken[0] is self.array


def is_any(value: Value) -> bool:
    return True


def has_order(value: Value) -> bool:
    """Whether there is no NaN in it: what is the largest is left open if there is."""
    return not is_float(value.kind) or not np.isnan(value.array.astype(np.float64)).any()


def is_finite(value: Value) -> bool:
    return not is_float(value.kind) or bool(np.isfinite(value.array.astype(np.float64)).all())


@dataclass
class Maker:
    """Grows one model. Generators ask it for choices and operands, and end with ``node``."""

    choices: Choices
    opset: int = 21
    prefix: str = ""
    values: list[Value] = field(default_factory=list)
    inputs: dict[str, Array] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    random: np.random.Generator = field(init=False)
    _named: int = 0

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.choices.integer(0, 2**31))

    # choices

    def pick(self, options: Sequence[T]) -> T:
        return options[self.choices.integer(0, len(options) - 1)]

    def integer(self, low: int, high: int) -> int:
        return self.choices.integer(low, high)

    def chance(self, percent: int) -> bool:
        return self.choices.integer(1, 100) > 100 - percent

    def shape(self, least: int = 0, most: int = 5, empty: bool = True) -> Shape:
        rank = self.integer(least, most)
        sizes = [self.pick(SIZES) for _ in range(rank)]
        while math.prod(sizes) > 600:
            sizes[sizes.index(max(sizes))] = 2
        if empty and rank and self.chance(4):
            sizes[self.integer(0, rank - 1)] = 0
        return tuple(sizes)

    def axis(self, rank: int) -> int:
        """Any axis, often counted from the end."""
        return self.integer(-rank, rank - 1)

    def axes(self, rank: int, least: int = 0) -> list[int]:
        chosen = [axis for axis in range(rank) if self.chance(50)]
        while len(chosen) < min(least, rank):
            chosen = sorted({*chosen, self.integer(0, rank - 1)})
        return [axis - rank if self.chance(30) else axis for axis in chosen]

    # operands

    def array(self, kind: Kind, shape: Shape, style: str = "") -> Array:
        """``style``: positive, unit (within -1 and 1), small (integers), or anything."""
        random = self.random
        if kind == BOOL:
            return np.asarray(random.integers(0, 2, shape)).astype(bool)
        if is_float(kind):
            made = np.asarray(random.standard_normal(shape))
            if style == "positive":
                made = np.abs(made) + 0.05
            elif style == "unit":
                made = np.tanh(made)
            elif style == "small":
                made = np.rint(made * 2)
            elif made.size and self.chance(12):
                odd = (0.0, -0.0, 0.5, -1.5, 1.0, 100.0, math.inf, -math.inf, math.nan)
                places = random.integers(0, made.size, 3)
                made.reshape(-1)[places] = [self.pick(odd) for _ in places]
            return np.asarray(made).astype(kind)
        limits = np.iinfo(kind)
        if style == "positive":
            return np.asarray(random.integers(1, 8, shape, dtype=kind))
        if style in ("small", "unit") or not self.chance(20):
            low = max(-9, limits.min)
            return np.asarray(random.integers(low, 10, shape, dtype=kind))
        return np.asarray(random.integers(limits.min, limits.max, shape, kind, endpoint=True))

    def fresh(self, kind: Kind, shape: Shape, style: str = "") -> Value:
        """A new operand, an input or now and then a constant."""
        array = self.array(kind, shape, style)
        return self.known(array) if self.chance(25) else self.given(array)

    def given(self, array: Array) -> Value:
        value = Value(self._name("x"), array, (array, array))
        self.inputs[value.name] = array
        self.values.append(value)
        return value

    def known(self, array: Any, kind: Any = None) -> Value:
        """A constant of the model."""
        array = np.asarray(array, kind)
        value = Value(self._name("c"), array, (array, array))
        self.constants[value.name] = array
        self.values.append(value)
        return value

    def longs(self, values: Iterable[int]) -> str:
        """A constant list of int64, as axes and shapes are given."""
        array = np.array(list(values), np.int64)
        name = self._name("c")
        self.constants[name] = array
        return name

    def some(
        self,
        kinds: Sequence[Kind] = FLOATS,
        least: int = 0,
        most: int = 5,
        style: str = "",
        where: Callable[[Value], bool] = is_any,
    ) -> Value:
        """A value that is there, the younger the likelier, or a new one."""
        fitting = [
            value
            for value in self.values
            if value.kind in kinds and least <= value.rank <= most and where(value)
            if not value.is_last
            if not style or has_style(value, style)
        ]
        if fitting and self.chance(75):
            young = fitting[-4:] if self.chance(70) else fitting
            return young[self.integer(0, len(young) - 1)]
        kind = self.pick(kinds)
        for _ in range(4):
            value = self.fresh(kind, self.shape(least, most), style)
            if where(value):
                return value
            self._forget(value)
        raise Unsuitable

    def _forget(self, value: Value) -> None:
        self.values.remove(value)
        self.inputs.pop(value.name, None)
        self.constants.pop(value.name, None)

    def partner(self, first: Value, kind: Kind | None = None, style: str = "") -> Value:
        """An operand that broadcasts with ``first``."""
        kind = kind or first.kind
        fitting = [
            value
            for value in self.values
            if value.kind == kind and _broadcasts(value.shape, first.shape)
            if not value.is_last
            if not style or has_style(value, style)
        ]
        if fitting and self.chance(60):
            return fitting[self.integer(0, len(fitting) - 1)]
        shape = [1 if self.chance(25) else size for size in first.shape]
        shape = shape[self.pick((0, 0, 0, *range(len(shape) + 1))) :]
        if self.chance(10) and len(shape) == first.rank < 5:
            shape.insert(0, self.pick((1, 2, 3)))
        return self.fresh(kind, tuple(shape), style)

    def like(self, first: Value, style: str = "") -> Value:
        """An operand of the same type and shape."""
        fitting = [
            value
            for value in self.values
            if value.kind == first.kind and value.shape == first.shape and not value.is_last
        ]
        if fitting and self.chance(60):
            return self.pick(fitting)
        return self.fresh(first.kind, first.shape, style)

    # nodes

    def node(
        self, op: str, *operands: Value | str | None, outputs: int = 1, **attributes: Any
    ) -> list[Value]:
        """Add a node. ``exact``: it gives the same bits wherever it runs; ``last``: no other node
        is to read it, because it is near to where functions jump.
        """
        is_exact = bool(attributes.pop("exact", False))
        is_last = bool(attributes.pop("last", False))
        names = [_name_of(operand) for operand in operands]
        while names and not names[-1]:
            names.pop()
        results = [self._name("t") for _ in range(outputs)]
        node = helper.make_node(op, names, results, name=self._name(op), **attributes)
        known = {value.name: value for value in self.values}
        given = {name: known.get(name) for name in names if name}
        base = {n: v.array if v else self.constants[n] for n, v in given.items()}
        try:
            run = runner(node, base, self.opset)
        except NoOracle as error:
            self.refused.append(f"{op}{[f'{v.dtype}{v.shape}' for v in base.values()]}: {error}")
            raise Unsuitable from None
        arrays = run(base)
        if sum(array.size for array in arrays) > MOST_ELEMENTS:
            raise Unsuitable
        exact = is_exact and all(value is None or value.is_exact for value in given.values())
        shaken: list[Sequence[Array]] = [arrays, arrays]
        noise = int(self.random.integers(2**32))
        if not exact:
            for turn in range(2):
                feeds = {n: v.shaken[turn] if v else self.constants[n] for n, v in given.items()}
                try:
                    found = run(feeds)
                except Exception as error:  # an index that left its tensor
                    raise Unsuitable from error
                if any(a.shape != b.shape for a, b in zip(arrays, found, strict=True)):
                    raise Unsuitable
                shaken[turn] = (
                    found if is_exact else [_shaken(array, noise, turn) for array in found]
                )
        self.nodes.append(node)
        made = [
            Value(name, array, (first, second), is_last)
            for name, array, first, second in zip(results, arrays, *shaken, strict=True)
        ]
        self.values.extend(made)
        return made

    def _name(self, stem: str) -> str:
        self._named += 1
        return f"{self.prefix}{stem}{self._named}"


def _shaken(array: Array, seed: int, turn: int) -> Array:
    """With errors of rounding; those of the second turn have the other sign."""
    if not is_float(array.dtype) or not array.size:
        return array
    with np.errstate(all="ignore"):
        wide = array.astype(np.float64)
        finite = wide[np.isfinite(wide)]
        middle = float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0
        step = _ROUNDING[array.dtype] * (1 - 2 * turn)
        noise = np.random.default_rng(seed).uniform(-1, 1, (2, *array.shape)) * step
        return np.asarray(wide * (1 + noise[0]) + noise[1] * middle * 0.1).astype(array.dtype)


def _name_of(operand: Value | str | None) -> str:
    return operand.name if isinstance(operand, Value) else operand or ""


def _broadcasts(first: Shape, second: Shape) -> bool:
    try:
        np.broadcast_shapes(first, second)
    except ValueError:
        return False
    return True


def has_style(value: Value, style: str) -> bool:
    array = value.array
    if array.dtype == BOOL:
        return True
    wide = array.astype(np.float64)
    if style == "positive":
        return bool(np.all(wide > 0) and np.all(wide < 1e4))
    limit = 1 if style == "unit" else 20
    return bool(np.all(np.abs(wide) <= limit))


@dataclass(frozen=True)
class Program:
    """A finished model with its inputs and what it must give."""

    model: onnx.ModelProto
    inputs: dict[str, Array]
    expected: tuple[Value, ...]

    @property
    def operators(self) -> set[str]:
        return {node.op_type for node in self.model.graph.node}


def program(makers: Sequence[Maker]) -> Program:
    """All graphs side by side; what nobody reads is an output, and a few others are."""
    nodes = [node for maker in makers for node in maker.nodes]
    read = {name for node in nodes for name in node.input}
    made = {name for node in nodes for name in node.output}
    expected = tuple(
        value
        for maker in makers
        for value in maker.values
        if value.name in made and (value.name not in read or maker.random.random() < 0.1)
    )
    inputs = {n: a for maker in makers for n, a in maker.inputs.items() if n in read}
    constants = {n: a for maker in makers for n, a in maker.constants.items() if n in read}
    graph = helper.make_graph(
        nodes,
        "fuzz",
        [_port(name, array) for name, array in inputs.items()],
        [_port(value.name, value.array) for value in expected],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", makers[0].opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return Program(model, inputs, expected)


def _port(name: str, array: Array) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, array.shape)
