"""Index arithmetic against brute force, and chains of movement against NumPy. No compiler needed.

A chain goes through the whole importer and all passes; what they leave is run by ``interpret``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import interpret, terms
from ramforge.compiler.expressions.computation import (
    Computation,
    computation_of,
    output_axes,
    positions,
)
from ramforge.compiler.expressions.index import Data, FloorDiv, Index, Mod, Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.expressions.text import literal
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import DType, Graph, Tensor
from ramforge.compiler.pipeline import optimise
from ramforge.kernels import space
from tests.helpers import Array, Case, model_of

VARIABLES = (Var("a", 1), Var("b", 2), Var("c", 3), Var("d", 5))


def value_of(index: Index, values: Mapping[Var, int]) -> int:
    """What an index means, term by term."""
    total = index.const
    for atom, coefficient in index.terms:
        if isinstance(atom, Var):
            part = values[atom]
        else:
            assert isinstance(atom, FloorDiv | Mod)
            inner = value_of(atom.operand, values)
            is_quotient = isinstance(atom, FloorDiv)
            part = inner // atom.divisor if is_quotient else inner % atom.divisor
        total += coefficient * part
    return total


def everywhere() -> list[dict[Var, int]]:
    ranges = (range(var.size) for var in VARIABLES)
    return [dict(zip(VARIABLES, point, strict=True)) for point in itertools.product(*ranges)]


POINTS = everywhere()
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(VARIABLES), st.integers(-6, 6)),
        st.tuples(st.just("shift"), st.just(VARIABLES[0]), st.integers(-7, 7)),
        st.tuples(st.sampled_from(["//", "%"]), st.just(VARIABLES[0]), st.integers(1, 12)),
        st.tuples(st.just("times"), st.just(VARIABLES[0]), st.integers(-4, 6)),
        st.tuples(st.just("split"), st.just(VARIABLES[0]), st.integers(1, 6)),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(STEPS)
def test_simplified_indices_mean_the_same(steps: list[tuple[str, Var, int]]) -> None:
    index = ix.constant(0)
    plain = [0] * len(POINTS)
    for kind, var, number in steps:
        if kind == "add":
            index = index + ix.of(var) * number
            plain = [p + v[var] * number for p, v in zip(plain, POINTS, strict=True)]
        elif kind == "shift":
            index, plain = index + number, [p + number for p in plain]
        elif kind == "times":
            index, plain = index * number, [p * number for p in plain]
        elif kind == "//":
            index, plain = index // number, [p // number for p in plain]
        elif kind == "%":
            index, plain = index % number, [p % number for p in plain]
        else:
            index = (index // number) * number + index % number
        low, high = ix.bounds(index)
        assert [value_of(index, values) for values in POINTS] == plain
        assert low <= min(plain) and max(plain) <= high


@settings(max_examples=100, derandomize=True, deadline=None)
@given(STEPS, st.sampled_from(VARIABLES), st.integers(1, 3), st.integers(-3, 3))
def test_rewriting_is_substitution(
    steps: list[tuple[str, Var, int]], var: Var, factor: int, shift: int
) -> None:
    index = ix.constant(3)
    for kind, other, number in steps:
        if kind == "add":
            index = index + ix.of(other) * number
        elif kind in ("//", "%"):
            index = index // number if kind == "//" else index % number
    place = ix.of(VARIABLES[3]) * factor + shift
    moved = ix.rewrite(index, lambda atom: place if atom == var and var.size > 1 else ix.of(atom))
    for values in POINTS:
        there = {**values, var: value_of(place, values)} if var.size > 1 else values
        assert value_of(moved, values) == value_of(index, there)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3, 5), (3, 1, 4)])
def test_unflatten_is_the_inverse_of_flatten(shape: tuple[int, ...]) -> None:
    axes = output_axes(shape)
    at = tuple(ix.of(axis) for axis in axes)
    strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    assert ix.unflatten(ix.flatten(at, strides), shape) == at


def run_graph(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    known = {**graph.constants, **inputs}
    for node in graph.nodes:
        operands = [known[name] for name in node.inputs]
        known[node.outputs[0]] = interpret.run(computation_of(node), operands)
    return known


class Chain:
    """ONNX nodes, and what NumPy makes of the same steps."""

    def __init__(self, source: Array) -> None:
        self.source = self.value = source
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.name = "x"

    def step(self, value: Array, op: str, *operands: object, **attributes: Any) -> None:
        names = [f"k{len(self.constants) + number}" for number in range(len(operands))]
        self.constants.update(zip(names, map(np.asarray, operands), strict=True))
        made = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [self.name, *names], [made], **attributes))
        self.name, self.value = made, value

    def case(self) -> Case:
        inputs = {"x": self.source}
        return Case("a chain", tuple(self.nodes), inputs, (self.name,), self.constants)


def extend(chain: Chain, draw: st.DrawFn) -> None:
    """One more step, drawn at random."""
    x = chain.value
    axis = draw(st.integers(0, x.ndim - 1))
    size = x.shape[axis]
    kind = draw(st.sampled_from(["turn", "shape", "cut", "pad", "pick", "tile"]))
    if kind == "turn":
        order = draw(st.permutations(range(x.ndim)))
        chain.step(x.transpose(order), "Transpose", perm=order)
    elif kind == "shape":
        rows = draw(st.sampled_from([n for n in range(1, 7) if x.size % n == 0]))
        chain.step(x.reshape(rows, -1), "Reshape", [rows, -1])
    elif kind == "cut":
        stride = draw(st.sampled_from([1, 2, -1, -2]))
        bounds = ([0], [size]) if stride > 0 else ([size - 1], [-size - 1])
        where = (slice(None),) * axis + (slice(None, None, stride),)
        chain.step(x[where], "Slice", *bounds, [axis], [stride])
    elif kind == "pad":
        before, after = draw(st.integers(0, 2)), draw(st.integers(0, 1))
        pads = [(before, after) if other == axis else (0, 0) for other in range(x.ndim)]
        value = np.pad(x, pads, constant_values=-1)
        chain.step(value, "Pad", [before, after], np.float32(-1), [axis])
    elif kind == "pick":
        places = draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=3))
        chain.step(np.take(x, places, axis), "Gather", places, axis=axis)
    elif x.size < 200:
        repeats = [2 if other == axis else 1 for other in range(x.ndim)]
        chain.step(np.tile(x, repeats), "Tile", repeats)


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    chain = Chain(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    for _ in range(draw(st.integers(1, 6))):
        extend(chain, draw)
    return chain


@settings(max_examples=50, derandomize=True, deadline=None)
@given(chains())
def test_chains_of_movement_keep_every_element_in_its_place(chain: Chain) -> None:
    if not chain.nodes:
        return
    graph = optimise(import_model(model_of([chain.case()])))
    found = run_graph(graph, {"c0_x": chain.source})
    assert np.array_equal(found[graph.outputs[0]], chain.value)


def test_indices_from_data_wrap_and_stay_inside() -> None:
    (axis,) = axes = output_axes((5,))
    places = terms.load(0, (ix.of(axis),), (5,), DType.INT64)
    index = ix.of(Data(places, 3)) * 2 + 1
    value = terms.load(1, (index,), (8,), DType.FLOAT32, fill=0.0)
    found = interpret.run(
        Computation(axes, value),
        [np.array([0, -1, 2, 9, -9]), np.arange(8, dtype=np.float32)],
    )
    assert found.tolist() == [1, 5, 5, 5, 1]


@pytest.mark.parametrize("dtype", DType)
def test_negative_and_extreme_literals_can_follow_any_operator(dtype: DType) -> None:
    kind = dtype.numpy
    extremes = [np.iinfo(kind).min, np.iinfo(kind).max] if kind.kind in "iu" else [0]
    for value in (*extremes, *((-1, -0.0, -np.inf) if kind.kind == "f" else ())):
        text = literal(value, dtype)
        assert not text.startswith("-")
        if kind.kind == "i" and kind.itemsize >= 4:  # smaller ones are an int with a cast
            assert str(int(np.iinfo(kind).max) + 1) not in text


def test_axes_are_not_merged_beyond_what_an_int_counts() -> None:
    axes = output_axes((70_000, 70_000))
    tensor = Tensor("", (70_000, 70_000), DType.FLOAT32)
    value = terms.load(0, positions(axes), tensor.shape, tensor.dtype)
    placed = Placed(Computation(axes, value), (tensor,), tensor, positions(axes), (False,))
    _, kept = space.merge(placed, axes, "f")
    assert [axis.size for axis in kept] == [70_000, 70_000]
