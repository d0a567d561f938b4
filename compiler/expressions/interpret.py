"""Run a computation with NumPy: the oracle of the code generators, and the engine of constant
folding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import rows, terms
from ramforge.compiler.expressions.computation import Cell, Computation, Scores
from ramforge.compiler.expressions.functions import function
from ramforge.compiler.expressions.index import Data, FloorDiv, Index, Var
from ramforge.compiler.expressions.terms import (
    Apply,
    Const,
    Expr,
    Hole,
    IndexValue,
    Load,
    Named,
)
from ramforge.compiler.ir import Array

Env = Mapping[Var, Array]
# What was worked out before, by name; the hole has none
Known = Mapping[str, Array]
_HOLE = ""


def _fold(kind: str, value: Array, axes: tuple[int, ...]) -> Array:
    if kind == comp.SUM:
        return np.asarray(np.sum(value, axis=axes, dtype=value.dtype))
    if kind == comp.PRODUCT:
        return np.asarray(np.prod(value, axis=axes, dtype=value.dtype))
    return np.asarray(
        np.max(value, axis=axes) if kind == comp.MAXIMUM else np.min(value, axis=axes)
    )


def run(computation: Computation, inputs: Sequence[Array]) -> Array:
    """The output array, in index order."""
    if computation.scores is not None:
        return _attention(computation, computation.scores, inputs)
    if computation.cell is not None:
        return _cell(computation, computation.cell, inputs)
    if computation.is_row:
        return _row(rows.as_row(computation), inputs)
    spaces = (*computation.axes, *computation.reduction)
    grids = np.meshgrid(*(np.arange(var.size) for var in spaces), indexing="ij", sparse=True)
    env: dict[Var, Array] = dict(zip(spaces, grids, strict=True))
    full = tuple(var.size for var in spaces)
    value = np.broadcast_to(_value(computation.value, env, inputs, {}), full)
    if not computation.is_map:
        folded = tuple(range(len(computation.axes), len(spaces)))
        value = _fold(computation.kind, value, folded)
        for var in computation.reduction:
            del env[var]
        env = {var: grid.reshape(grid.shape[: len(computation.axes)]) for var, grid in env.items()}
    return _stored(computation, _value(computation.result, env, inputs, {_HOLE: value}))


def _stored(computation: Computation, result: Array) -> Array:
    return np.ascontiguousarray(
        np.broadcast_to(result, computation.shape), dtype=computation.dtype.numpy
    ).reshape(computation.shape)


def _attention(computation: Computation, scores: Scores, inputs: Sequence[Array]) -> Array:
    """Its three parts one after the other."""
    assert computation.roles is not None
    outer = tuple(var for var in computation.axes if var not in computation.roles.columns)
    keys = computation.reduction
    axes = (*outer, *keys)
    likeness = Computation(axes, scores.value, comp.SUM, scores.reduction, scores.finish)
    shape, here = likeness.shape, comp.positions(axes)
    row = Computation(axes, terms.load(0, here, shape, likeness.dtype), comp.SOFTMAX, keys)
    weights = run(row, (run(likeness, inputs),))
    weight = terms.load(len(inputs), here, shape, likeness.dtype)
    value = terms.apply("mul", weight, computation.value)
    mixed = replace(computation, kind=comp.SUM, value=value, scores=None)
    return run(mixed, (*inputs, weights))


def _cell(computation: Computation, cell: Cell, inputs: Sequence[Array]) -> Array:
    """All sums, and then each result."""
    axes = computation.axes[1:]
    known: dict[str, Array] = {}
    for number in range(cell.part.size):
        value = terms.rewrite(computation.value, {cell.part: ix.constant(number)})
        total = Computation(axes, value, comp.SUM, computation.reduction)
        known[f"sum{number}"] = run(total, inputs)
    grids = np.meshgrid(*(np.arange(var.size) for var in axes), indexing="ij", sparse=True)
    env = dict(zip(axes, grids, strict=True))
    found = [_value(result, env, inputs, known) for result in cell.results]
    return _stored(
        computation, np.stack([np.broadcast_to(x, computation.shape[1:]) for x in found])
    )


def _row(computation: Computation, inputs: Sequence[Array]) -> Array:
    """Its folds, each of which may know those before it, and then every element."""
    shape = computation.shape
    grids = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij", sparse=True)
    env = dict(zip(computation.axes, grids, strict=True))
    along = tuple(computation.axes.index(var) for var in computation.reduction)
    kept = tuple(1 if axis in along else size for axis, size in enumerate(shape))
    known: dict[str, Array] = {}
    for fold in computation.folds:
        value = np.broadcast_to(_value(fold.value, env, inputs, known), shape)
        known[fold.name] = _fold(fold.kind, value, along).reshape(kept)
    known[_HOLE] = np.broadcast_to(_value(computation.value, env, inputs, known), shape)
    return _stored(computation, _value(computation.result, env, inputs, known))


def _value(expr: Expr, env: Env, inputs: Sequence[Array], known: Known) -> Array:
    done: dict[int, Array] = {}
    for node in expr.walk():
        done[id(node)] = _node(node, env, inputs, known, done)
    return done[id(expr)]


def _node(
    node: Expr, env: Env, inputs: Sequence[Array], known: Known, done: dict[int, Array]
) -> Array:
    if isinstance(node, Const):
        return np.asarray(node.value, dtype=node.dtype.numpy)
    if isinstance(node, Hole):
        return known[_HOLE]
    if isinstance(node, Named):
        return known[node.name]
    if isinstance(node, IndexValue):
        return _index(node.indices[0], env, done)
    if isinstance(node, Load):
        return _load(node, env, inputs, done)
    assert isinstance(node, Apply)
    scalar = function(node.name)
    arguments: list[Any] = [done[id(arg)] for arg in node.args]
    if scalar.typed:
        arguments.append(node.dtype.numpy)
    else:
        arguments = [
            value.astype(arg.dtype.wide.numpy, copy=False)
            for value, arg in zip(arguments, node.args, strict=True)
        ]
    with np.errstate(all="ignore"):
        return np.asarray(scalar.numpy(*arguments)).astype(node.dtype.numpy, copy=False)


def _load(node: Load, env: Env, inputs: Sequence[Array], done: dict[int, Array]) -> Array:
    source = inputs[node.slot].reshape(node.shape)
    places = [_index(position, env, done) for position in node.indices]
    if node.fill is None:
        return np.asarray(source[tuple(places)])
    if not source.size:
        return np.asarray(node.fill, dtype=source.dtype)
    outside: Array = np.zeros((), dtype=bool)
    clipped = []
    for place, size in zip(places, node.shape, strict=True):
        outside = outside | (place < 0) | (place >= size)
        clipped.append(np.clip(place, 0, size - 1))
    found = source[tuple(clipped)]
    return np.where(outside, np.asarray(node.fill, dtype=source.dtype), found)


def _wrapped(position: Array, size: int) -> Array:
    """As ``rf_wrap``: negative counts from the end, and nothing leaves the tensor."""
    return np.asarray(np.clip(np.where(position < 0, position + size, position), 0, size - 1))


def _index(position: Index, env: Env, done: dict[int, Array]) -> Array:
    result = np.asarray(position.const, dtype=np.int64)
    for atom, coefficient in position.terms:
        if isinstance(atom, Var):
            part = env[atom]
        elif isinstance(atom, Data):
            part = _wrapped(done[id(atom.expr)].astype(np.int64), atom.size)
        elif isinstance(atom, FloorDiv):
            part = _index(atom.operand, env, done) // atom.divisor
        else:
            part = _index(atom.operand, env, done) % atom.divisor
        result = result + part * coefficient
    return result
