"""Small mistakes in a model: each is one node done wrong, as a compiler might do it.

``mutants`` lists what can go wrong in a model; nothing is changed before ``Mutant.applied``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]

ACTIVATION, BIAS, CHANNEL, PAD = "no activation", "no bias", "wrong channel", "shifted pad"
SCALE, POOLING, BRANCH, ORDER = "softmax scale", "wrong pooling", "no shortcut", "wrong order"

_ACTIVATIONS = frozenset(
    (
        "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Gelu", "Clip",
        "Elu", "Softplus",
    )
)  # fmt: skip
_SWAPPED = {
    "MaxPool": "AveragePool",
    "AveragePool": "MaxPool",
    "GlobalAveragePool": "GlobalMaxPool",
    "GlobalMaxPool": "GlobalAveragePool",
    "ReduceMean": "ReduceMax",
    "ReduceMax": "ReduceMean",
}
# Where an operator's weights are, and the axis of their output channels.
_RECURRENT = ((1, 1), (2, 1))
_WEIGHTS: dict[str, Sequence[tuple[int, int]]] = {
    "Conv": ((1, 0),),
    "ConvTranspose": ((1, 1),),
    "QLinearConv": ((3, 0),),
    "DequantizeLinear": ((0, 0),),
    "MatMul": ((1, -1),),
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
}
_PADDED = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "QLinearConv")
# Softmax sharpened by this much.
SHARPER = 1.1
# Wrong channels of each node.
CHANNELS = 16

Node = onnx.NodeProto


@dataclass(frozen=True)
class Model:
    """A model whose weights lie in a file: nodes to change, and the values of its constants."""

    proto: onnx.ModelProto
    constants: Mapping[str, Array]

    def value(self, name: str) -> Array | None:
        return self.constants.get(name)


@dataclass(frozen=True)
class Mutant:
    """One node replaced by others, with constants that these need, made when they are needed."""

    node: str
    op: str
    kind: str
    number: int  # its place in the graph
    nodes: tuple[Node, ...]
    constants: Mapping[str, Callable[[], Array]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.kind}: {self.op} {self.node}"

    def applied(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        """The model with the mistake; the file of its weights is the same."""
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        nodes = list(changed.graph.node)
        nodes[self.number : self.number + 1] = self.nodes
        del changed.graph.node[:]
        changed.graph.node.extend(nodes)
        changed.graph.initializer.extend(
            numpy_helper.from_array(make(), name) for name, make in self.constants.items()
        )
        return changed


Change = tuple[str, Sequence[Node], Mapping[str, Callable[[], Array]]]


def mutants(model: Model, seed: int) -> list[Mutant]:
    """All that can go wrong, in the order of the nodes."""
    random = np.random.default_rng(seed)
    found = []
    for number, node in enumerate(model.proto.graph.node):
        for rule in _RULES:
            for kind, nodes, constants in rule(node, model, random):
                found.append(Mutant(node.name, node.op_type, kind, number, tuple(nodes), constants))
    return found


def spread(found: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """So many of them, from all over the graph: one at random from each of ``count`` parts, where
    each kind has its share.
    """
    random = np.random.default_rng(seed)
    kinds = sorted({mutant.kind for mutant in found})
    chosen: list[Mutant] = []
    pools = [[m for m in found if m.kind == kind] for kind in kinds]
    while len(chosen) < count and any(pools):
        rest = [pool for pool in pools if pool]
        share = -(-(count - len(chosen)) // len(rest))
        for pool in rest:
            taken = min(share, len(pool), count - len(chosen))
            parts = np.array_split(np.arange(len(pool)), taken) if taken else []
            places = {int(random.choice(part)) for part in parts}
            chosen += [pool[place] for place in sorted(places)]
            pool[:] = [m for place, m in enumerate(pool) if place not in places]
    return sorted(chosen, key=lambda mutant: (mutant.number, mutant.kind))


def _copy(node: Node, **attributes: Any) -> Node:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
    del copy.attribute[:]
    copy.attribute.extend(kept)
    copy.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    return copy


def _attribute(node: Node, name: str) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def _identity(node: Node, source: str) -> Node:
    return helper.make_node("Identity", [source], [node.output[0]], name=node.name)


def _with_input(node: Node, slot: int, name: str) -> Node:
    copy = _copy(node)
    copy.input[slot] = name
    return copy


def _activation(node: Node, model: Model, random: np.random.Generator) -> Iterator[Change]:
    if node.op_type in _ACTIVATIONS:
        yield ACTIVATION, [_identity(node, node.input[0])], {}


def _bias(node: Node, model: Model, random: np.random.Generator) -> Iterator[Change]:
    """A convolution, product or normalisation without its last operand, or an Add of a constant."""
    slots = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "LayerNormalization": 2, "LSTM": 3, "GRU": 3}
    slots |= {"QLinearConv": 8}
    slot = slots.get(node.op_type, 0)
    if slot and len(node.input) > slot and node.input[slot]:
        copy = _copy(node)
        copy.input[slot] = ""
        while copy.input and not copy.input[-1]:
            copy.input.pop()
        yield BIAS, [copy], {}
    elif node.op_type in ("BatchNormalization", "InstanceNormalization", "GroupNormalization"):
        value = model.value(node.input[2])
        if value is not None:
            name = f"{node.name}/mutant"
            yield BIAS, [_with_input(node, 2, name)], {name: partial(np.zeros_like, value)}
    elif node.op_type == "Add":
        for slot in (0, 1):
            value = model.value(node.input[slot])
            if value is not None and value.size > 1 and value.dtype.kind == "f":
                yield BIAS, [_identity(node, node.input[1 - slot])], {}


def _channel(node: Node, model: Model, random: np.random.Generator) -> Iterator[Change]:
    """One output channel computed with the weights of its neighbour; several such mistakes."""
    places: Sequence[tuple[int, int]] = _WEIGHTS.get(node.op_type, ())
    if node.op_type == "Gemm":
        places = ((1, 0 if _attribute(node, "transB") else 1),)
    for slot, axis in places:
        value = model.value(node.input[slot])
        if value is None or value.ndim < 2 or value.shape[axis] < 2:
            continue
        for number in range(CHANNELS):
            channel = int(random.integers(value.shape[axis]))
            name = f"{node.name}/mutant{slot}.{number}"
            wrong = partial(_neighbours, value, axis, channel)
            yield CHANNEL, [_with_input(node, slot, name)], {name: wrong}


def _neighbours(value: Array, axis: int, channel: int) -> Array:
    """The same weights, but for one channel, which has those of the next one."""
    wrong = np.moveaxis(value.copy(), axis, 0)
    wrong[channel] = wrong[(channel + 1) % len(wrong)]
    return np.ascontiguousarray(np.moveaxis(wrong, 0, axis))


def _pad(node: Node, model: Model, random: np.random.Generator) -> Iterator[Change]:
    """The window one element to the left or right along one axis, or to the other side."""
    pads = _attribute(node, "pads") if node.op_type in _PADDED else None
    if pads and any(pads):
        half = len(pads) // 2
        axis = int(random.choice([a for a in range(half) if pads[a] or pads[a + half]]))
        shifted = list(pads)
        first, second = (axis, axis + half) if pads[axis] else (axis + half, axis)
        shifted[first] -= 1
        shifted[second] += 1
        yield PAD, [_copy(node, pads=shifted)], {}
    elif node.op_type == "Pad" and len(node.input) > 1:
        value = model.value(node.input[1])
        if value is not None and value.any():
            half = len(value) // 2
            axis = int(random.choice([a for a in range(half) if value[a] or value[a + half]]))
            wrong = value.copy()
            first, second = (axis, axis + half) if value[axis] else (axis + half, axis)
            wrong[first] -= 1
            wrong[second] += 1
            name = f"{node.name}/mutant"
            yield PAD, [_with_input(node, 1, name)], {name: wrong.copy}


def _scale(node: Node, model: Model, random: np.random.Generator) -> Iterator[Change]:
    if node.op_type not in ("Softmax", "LogSoftmax"):
        return
    name = f"{node.name}/mutant"
    scaled = helper.make_node("Mul", [node.input[0], f"{name}.by"], [name], name=name)
    by = np.array(SHARPER, np.float32)
    yield SCALE, [scaled, _with_input(node, 0, name)], {f"{name}.by": by.copy}


def _pooling(node: Node, model: Model, random: np.random.Generator) -> Iterator[Change]:
    window = _attribute(node, "kernel_shape")
    if node.op_type not in _SWAPPED or (window and set(window) == {1}):
        return
    other = _copy(node)
    other.op_type = _SWAPPED[node.op_type]
    lost = {"AveragePool": ("storage_order",), "MaxPool": ("count_include_pad",)}
    kept = [a for a in other.attribute if a.name not in lost.get(other.op_type, ())]
    del other.attribute[:]
    other.attribute.extend(kept)
    yield POOLING, [other], {}


def _shortcut(node: Node, model: Model, random: np.random.Generator) -> Iterator[Change]:
    """A sum of two computed tensors without one of them."""
    if node.op_type != "Add" or any(model.value(name) is not None for name in node.input):
        return
    if node.input[0] != node.input[1]:
        kept = int(random.integers(2))
        yield BRANCH, [_identity(node, node.input[kept])], {}


def _order(node: Node, model: Model, random: np.random.Generator) -> Iterator[Change]:
    """Two neighbours of a Concat exchanged."""
    if node.op_type != "Concat" or len(node.input) < 2:
        return
    if any(value.dtype.kind == "i" for value in map(model.value, node.input) if value is not None):
        return  # a shape
    place = int(random.integers(len(node.input) - 1))
    if node.input[place] == node.input[place + 1]:
        return
    copy = _copy(node)
    copy.input[place], copy.input[place + 1] = node.input[place + 1], node.input[place]
    yield ORDER, [copy], {}


Rule = Callable[[Node, Model, np.random.Generator], Iterator[Change]]
_RULES: tuple[Rule, ...] = (
    _activation, _bias, _channel, _pad, _scale, _pooling, _shortcut, _order,
)  # fmt: skip
