"""Operators whose output is known when the model is compiled: windows, and the mel scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ramforge.compiler.expressions.steps import Steps
from ramforge.compiler.ir import Array, Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.movement import constant_input, constants_needed


def known(name: str, operands: int, make: Callable[..., Array]) -> None:
    """Register an operator by its output: ``make`` gets the node and its operands, all numbers."""

    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        steps = Steps(node, graph)
        numbers = []
        for slot in range(operands):
            value = constant_input(node, graph, slot)
            assert value is not None
            numbers.append(value.reshape(())[()])
        with np.errstate(all="ignore"):
            table = steps.constant(make(node, *numbers).astype(steps.dtype().numpy))
        steps.map(steps.shape(), lambda *at: table.at(at), to=0)
        return steps.nodes()

    register(Operator(name, express, constants_needed(*range(operands))))


def _turns(node: Node, size: Any) -> Array:
    """How much of a turn each element of a window is at."""
    period = int(size) if node.attr("periodic", 1) else int(size) - 1
    return np.arange(int(size)) / np.float64(period)


def _hann(node: Node, size: Any) -> Array:
    return np.square(np.sin(np.pi * _turns(node, size)))


def _hamming(node: Node, size: Any) -> Array:
    alpha = 25 / 46
    return np.asarray(alpha - (1 - alpha) * np.cos(2 * np.pi * _turns(node, size)))


def _blackman(node: Node, size: Any) -> Array:
    angle = 2 * np.pi * _turns(node, size)
    return np.asarray(0.42 - 0.5 * np.cos(angle) + 0.08 * np.cos(2 * angle))


def _mel_weights(
    node: Node, bands: Any, dft_length: Any, sample_rate: Any, lowest: Any, highest: Any
) -> Array:
    """A triangle for each band, from the middle of the one before to that of the one after."""
    low, high = (2595 * np.log1p(edge / 700) / np.log(10) for edge in (lowest, highest))
    mels = np.arange(bands + 2) * ((high - low) / (bands + 2)) + low
    hertz = 700 * np.expm1(mels / 2595 * np.log(10))
    corners = ((dft_length + 1) * hertz // sample_rate).astype(np.int64)
    start, peak, end = corners[:-2], corners[1:-1], corners[2:]
    place = np.arange(dft_length // 2 + 1)[:, None]
    rising = np.where(peak > start, (place - start) / np.maximum(peak - start, 1), 1.0)
    falling = (end - place) / np.maximum(end - peak, 1)
    weights = np.where((place >= start) & (place <= peak), rising, 0.0)
    return np.where((place > peak) & (place < end), falling, weights)


known("HannWindow", 1, _hann)
known("HammingWindow", 1, _hamming)
known("BlackmanWindow", 1, _blackman)
known("MelWeightMatrix", 5, _mel_weights)
