"""Operators whose output is known when the model is compiled: windows, and the mel scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ramforge.compiler.expressions.steps import Steps
from ramforge.compiler.ir import Array, Graph, Node
from ramforge.compiler.registry import Operator, Solve, Told, register, untold
from ramforge.kernels.operators.declared import exactly, output_size
from ramforge.kernels.operators.movement import constant_input


def known(name: str, make: Callable[..., Array], *solvers: Solve) -> None:
    """Register an operator by its output: ``make`` gets the node and its operands, all numbers."""

    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        steps = Steps(node, graph)
        numbers = []
        for slot in range(len(solvers)):
            value = constant_input(node, graph, slot)
            assert value is not None
            numbers.append(value.reshape(())[()])
        with np.errstate(all="ignore"):
            table = steps.constant(make(node, *numbers).astype(steps.dtype().numpy))
        steps.map(steps.shape(), lambda *at: table.at(at), to=0)
        return steps.nodes()

    register(Operator(name, express, needs=dict(enumerate(solvers))))


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


def _length_of_half(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    half = graph.tensor(node.outputs[0]).shape[0]
    return [exactly(size) for size in (2 * half - 2, 2 * half - 1)]


known("HannWindow", _hann, output_size(0))
known("HammingWindow", _hamming, output_size(0))
known("BlackmanWindow", _blackman, output_size(0))
known("MelWeightMatrix", _mel_weights, output_size(1), _length_of_half, untold, untold, untold)
