"""Random operators: every number is a function of the seed and of its place in the output.

The bits are those of Philox 4x32-10, the same on a CPU and on a GPU, and the same in every run of a
program. So a model has to say which numbers it wants: without the attribute ``seed`` these
operators are refused. A seed of 0 is none, as in TensorFlow and in what is exported from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions.functions import Result, define
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import (
    Expr,
    apply,
    const,
    select,
    smaller,
    value_of,
)
from ramforge.compiler.ir import Array, DType, Graph, Node, Tensor
from ramforge.compiler.registry import Operator, register

NO_SEED = "a compiled program gives the same numbers in every run, and no seed says which"
SET_SEED = "set the attribute 'seed' to a number that is not 0"
_DROPS = "is training with a ratio that is not 0, for which it has no seed: "


def random_bits(seed: Any, position: Any, draw: Any) -> Array:
    """As ``rf_random_bits``."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    seed, position, draw = (
        np.asarray(number).astype(np.uint64) for number in (seed, position, draw)
    )
    counter = [position & low, position >> half, draw, np.zeros((), np.uint64)]
    key = [seed & low, seed >> half]
    for _ in range(10):
        first = np.uint64(0xD2511F53) * counter[0]
        second = np.uint64(0xCD9E8D57) * counter[2]
        counter = [
            (second >> half) ^ counter[1] ^ key[0],
            second & low,
            (first >> half) ^ counter[3] ^ key[1],
            first & low,
        ]
        key = [(key[0] + np.uint64(0x9E3779B9)) & low, (key[1] + np.uint64(0xBB67AE85)) & low]
    return np.asarray(counter[1] << half | counter[0])


def _random_float(seed: Any, position: Any, draw: Any) -> Array:
    return (random_bits(seed, position, draw) >> np.uint64(40)).astype(np.float32) * np.float32(
        2.0**-24
    )


def _random_double(seed: Any, position: Any, draw: Any) -> Array:
    return (random_bits(seed, position, draw) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _always(dtype: DType) -> Result:
    return lambda types: dtype


define("random_float", "rf_random_float({0}, {1}, {2})", _random_float, _always(DType.FLOAT32), 40)
define(
    "random_double", "rf_random_double({0}, {1}, {2})", _random_double, _always(DType.FLOAT64), 40
)


@dataclass(frozen=True, slots=True)
class Noise:
    """The random numbers of one node, uniform over [0, 1), by their place in a tensor."""

    seed: int
    shape: tuple[int, ...]

    def uniform(self, at: Sequence[Index], dtype: DType, draw: int = 0) -> Expr:
        """A float or a double; each ``draw`` gives another number in the same place."""
        place = ix.flatten(tuple(at), Tensor("", self.shape, dtype).strides)
        return apply(
            "random_double" if dtype is DType.FLOAT64 else "random_float",
            const(self.seed, DType.UINT64),
            value_of(place, DType.UINT64),
            const(draw, DType.UINT32),
        )

    def normal(self, at: Sequence[Index], dtype: DType) -> Expr:
        """By Box and Muller."""
        radius = apply("sqrt", apply("log", 1 - self.uniform(at, dtype)) * -2)
        return radius * apply("cos", self.uniform(at, dtype, 1) * (2 * math.pi))


def seed_of(node: Node) -> int | None:
    """The bits of the attribute as a double; None if there is no seed."""
    seed = node.attr("seed", 0)
    return int(np.float64(seed).view(np.uint64)) if seed and not math.isnan(seed) else None


def _refuse_no_seed(node: Node, graph: Graph) -> tuple[str, str] | None:
    return (NO_SEED, SET_SEED) if seed_of(node) is None else None


def _noise(node: Node, shape: tuple[int, ...]) -> Noise:
    seed = seed_of(node)
    assert seed is not None
    return Noise(seed, shape)


def _random_uniform(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    noise, dtype = _noise(node, steps.shape()), steps.dtype().wide
    low, high = node.attr("low", 0.0), node.attr("high", 1.0)
    steps.map(steps.shape(), lambda *at: noise.uniform(at, dtype) * (high - low) + low, to=0)
    return steps.nodes()


def _random_normal(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    noise, dtype = _noise(node, steps.shape()), steps.dtype().wide
    mean, scale = node.attr("mean", 0.0), node.attr("scale", 1.0)
    steps.map(steps.shape(), lambda *at: noise.normal(at, dtype) * scale + mean, to=0)
    return steps.nodes()


def _bernoulli(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    chances = steps.given(0)
    noise, dtype = _noise(node, chances.shape), chances.dtype.wide
    steps.map(
        chances.shape, lambda *at: noise.uniform(at, dtype) < chances.at(at).cast(dtype), to=0
    )
    return steps.nodes()


def _multinomial(node: Node, graph: Graph) -> tuple[Node, ...]:
    """The class whose logarithm is the largest after noise of Gumbel's distribution was added."""
    steps = Steps(node, graph)
    logarithms = steps.given(0)
    shape, classes = steps.shape(), logarithms.shape[1]
    noise = _noise(node, (*shape, classes))

    def score(batch: Index, sample: Index, place: Index) -> Expr:
        uniform = 1 - noise.uniform((batch, sample, place), DType.FLOAT64)
        gumbel = -apply("log", -apply("log", smaller(uniform, 1 - 2.0**-53)))
        return logarithms[batch, place].cast(DType.FLOAT64) + gumbel

    peaks = steps.fold(comp.MAXIMUM, shape, (classes,), score)
    last = const(classes - 1, DType.INT64)

    def best(batch: Index, sample: Index, place: Index) -> Expr:
        # A score may be computed in another way here than above: to the last bits, no further.
        is_best = score(batch, sample, place) + 1e-9 >= peaks[batch, sample]
        return select(is_best, value_of(place), last)

    steps.fold(comp.MINIMUM, shape, (classes,), best, to=0)
    return steps.nodes()


def _refuse_multinomial(node: Node, graph: Graph) -> tuple[str, str] | None:
    if graph.tensor(node.inputs[0]).shape[1] == 0:
        return "there is no class to choose", "give it an input with classes"
    return _refuse_no_seed(node, graph)


class _Dropout:
    """Both outputs, as far as what is known decides them."""

    def __init__(self, node: Node, graph: Graph) -> None:
        self.steps = Steps(node, graph)
        self.data = self.steps.given(0)
        self.ratio = self.steps.optional(1)
        self.training = self.steps.optional(2)
        self.seed = seed_of(node)

    @property
    def never_drops(self) -> bool:
        return (
            self.training is None
            or _is_known_zero(self.training)
            or (self.ratio is not None and _is_known_zero(self.ratio))
        )

    @property
    def always_drops(self) -> bool:
        """Whether it is known now that it does, and not only by what a run brings."""
        if self.never_drops:
            return False
        return all(
            value is None or value.known is not None for value in (self.ratio, self.training)
        )

    def share(self) -> Expr:
        """The ratio, as a number of the type that is computed in."""
        dtype = self.data.dtype.wide
        if self.ratio is None:
            return const(0.5, dtype)
        return self.ratio.at((0,) * self.ratio.rank).cast(dtype)

    def drops(self) -> Expr:
        assert self.training is not None
        return self.training.at((0,) * self.training.rank) & ~self.share().equals(0)

    def nodes(self) -> tuple[Node, ...]:
        steps, data = self.steps, self.data
        if self.never_drops or self.seed is None:
            if not self.never_drops:
                message = f"Dropout {steps.node.name!r} {_DROPS}{SET_SEED}"
                steps.check((), lambda: ~self.drops(), message)
            steps.map(data.shape, lambda *at: data.at(at), to=0)
            if steps.wants(1):
                steps.map(data.shape, lambda *at: const(True, DType.BOOL), to=1)
            return steps.nodes()
        noise, dtype = Noise(self.seed, data.shape), data.dtype.wide

        def kept(*at: Index) -> Expr:
            return ~(self.drops() & (noise.uniform(at, dtype) < self.share()))

        def scaled(*at: Index) -> Expr:
            x = data.at(at).cast(dtype)
            scale = select(self.drops(), 1 / (1 - self.share()), const(1, dtype))
            return select(kept(*at), x * scale, const(0, dtype))

        steps.map(data.shape, scaled, to=0)
        if steps.wants(1):
            steps.map(data.shape, kept, to=1)
        return steps.nodes()


def _is_known_zero(value: Value) -> bool:
    return value.known is not None and not np.any(value.known)


def _dropout(node: Node, graph: Graph) -> tuple[Node, ...]:
    return _Dropout(node, graph).nodes()


def _refuse_dropout(node: Node, graph: Graph) -> tuple[str, str] | None:
    dropout = _Dropout(node, graph)
    return (NO_SEED, SET_SEED) if dropout.seed is None and dropout.always_drops else None


for _name, _express in (("RandomUniform", _random_uniform), ("RandomNormal", _random_normal)):
    register(Operator(_name, _express, _refuse_no_seed))
    register(Operator(f"{_name}Like", _express, _refuse_no_seed))
register(Operator("Bernoulli", _bernoulli, _refuse_no_seed))
register(Operator("Multinomial", _multinomial, _refuse_multinomial))
register(Operator("Dropout", _dropout, _refuse_dropout))
