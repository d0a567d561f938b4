"""Follows sequences and optionals through a model, where all about them is known.

Input: a SlimModel with inferred types; output: one in which tensors that were taken out of a
sequence come straight from where they were made. What makes sequences stays, unused: later passes
drop it. A sequence that a run decides about is left as it is, and refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from ramforge.compiler.frontend.inlining import Inliner
from ramforge.compiler.frontend.slim import SlimModel, static_shape
from ramforge.compiler.ir import Array

Sequence = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Optional:
    """Something or nothing; ``name`` is that of the tensor or sequence in it."""

    name: str = ""


@dataclass
class _State:
    """What is known so far, and the nodes that come of it."""

    slim: SlimModel
    inliner: Inliner
    types: Mapping[str, onnx.TypeProto]
    sequences: dict[str, Sequence] = field(default_factory=dict)
    optionals: dict[str, Optional] = field(default_factory=dict)
    changed: bool = False

    def constant(self, node: onnx.NodeProto, slot: int) -> Array | None:
        """A known operand; None if it is absent, _Unknown if it is not known."""
        if slot >= len(node.input) or not node.input[slot]:
            return None
        if node.input[slot] not in self.slim.constants:
            raise _Unknown
        return self.slim.constants[node.input[slot]]

    def sequence(self, node: onnx.NodeProto) -> Sequence:
        if node.input[0] not in self.sequences:
            raise _Unknown
        return self.sequences[node.input[0]]

    def place(self, node: onnx.NodeProto, slot: int, size: int, default: int) -> int:
        """A position from 0 to below ``size``."""
        value = self.constant(node, slot)
        place = default if value is None else int(value.item())
        place += size if place < 0 else 0
        if not 0 <= place < size:
            raise _Unknown
        return place

    def is_tensor(self, name: str) -> bool:
        kind = self.types[name].WhichOneof("value") if name in self.types else None
        return kind == "tensor_type" or name in self.slim.constants

    def stands(self, node: onnx.NodeProto, name: str) -> None:
        """A tensor that is another one."""
        self.replace(node)
        self.inliner.add("Identity", [name], node.output[0])

    def replace(self, node: onnx.NodeProto) -> None:
        self.inliner.replace(node)
        self.changed = True


class _Unknown(Exception):
    """A node about which too little is known."""


def follow(slim: SlimModel) -> SlimModel:
    """Replace what reads known sequences; the same object if nothing does."""
    graph = slim.proto.graph
    if not any(node.op_type in OPERATORS and not node.domain for node in graph.node):
        return slim
    values = (*graph.value_info, *graph.output, *graph.input)
    state = _State(slim, Inliner(slim), {value.name: value.type for value in values})
    for node in graph.node:
        step = None if node.domain else _STEPS.get(node.op_type)
        try:
            if step is None or not step(node, state):
                state.inliner.keep(node)
        except _Unknown:
            state.inliner.keep(node)
    return state.inliner.result() if state.changed else slim


def _attributes(node: onnx.NodeProto) -> dict[str, int]:
    return {item.name: item.i for item in node.attribute if item.type == item.INT}


# A step says whether it has put other nodes in the place of its own.


def _construct(node: onnx.NodeProto, state: _State) -> bool:
    state.sequences[node.output[0]] = tuple(node.input)
    return False


def _insert(node: onnx.NodeProto, state: _State) -> bool:
    items = state.sequence(node)
    place = state.place(node, 2, len(items) + 1, len(items))
    value = state.constant(node, 2)
    if value is not None and value.item() < 0:
        place -= 1  # counts from the end of what was there before
        if place < 0:
            raise _Unknown
    state.sequences[node.output[0]] = (*items[:place], node.input[1], *items[place:])
    return False


def _erase(node: onnx.NodeProto, state: _State) -> bool:
    items = state.sequence(node)
    place = state.place(node, 1, len(items), -1)
    state.sequences[node.output[0]] = (*items[:place], *items[place + 1 :])
    return False


def _at(node: onnx.NodeProto, state: _State) -> bool:
    items = state.sequence(node)
    state.stands(node, items[state.place(node, 1, len(items), 0)])
    return True


def _length(node: onnx.NodeProto, state: _State) -> bool:
    length = len(state.sequence(node))
    state.replace(node)
    state.inliner.add(
        "Identity", [state.inliner.constant(np.array(length, np.int64))], node.output[0]
    )
    return True


def _concat(node: onnx.NodeProto, state: _State) -> bool:
    items = state.sequence(node)
    given = _attributes(node)
    if not items:
        raise _Unknown
    state.replace(node)
    axis = given["axis"]
    if given.get("new_axis", 0):
        axes = state.inliner.constant(np.array([axis], np.int64))
        items = tuple(state.inliner.add("Unsqueeze", [item, axes]) for item in items)
    state.inliner.stacked(items, axis, node.output[0])
    return True


def _split(node: onnx.NodeProto, state: _State) -> bool:
    """Becomes a Split and a sequence of its outputs."""
    source = node.input[0]
    known = state.slim.constants.get(source)
    shape = known.shape if known is not None else static_shape(state.types.get(source))
    if not shape:
        raise _Unknown
    given = _attributes(node)
    if not -len(shape) <= given.get("axis", 0) < len(shape):
        raise _Unknown
    size = shape[given.get("axis", 0)]
    split = state.constant(node, 1)
    keeps = split is not None or given.get("keepdims", 1)
    step = 1 if split is None else int(split.item()) if split.ndim == 0 else 0
    if split is not None and split.ndim:
        sizes = [int(part) for part in split]
    elif step > 0:
        sizes = [min(step, size - start) for start in range(0, size, step)]
    else:
        raise _Unknown
    state.replace(node)
    parts = [state.inliner.fresh("part") for _ in sizes]
    if parts:
        lengths = state.inliner.constant(np.array(sizes, np.int64))
        split_node = helper.make_node("Split", [source, lengths], parts, axis=given.get("axis", 0))
        state.inliner.append(split_node)
    if not keeps:
        axes = state.inliner.constant(np.array([given.get("axis", 0)], np.int64))
        parts = [state.inliner.add("Squeeze", [part, axes]) for part in parts]
    state.sequences[node.output[0]] = tuple(parts)
    if parts:
        state.inliner.add("SequenceConstruct", parts, node.output[0])
    else:
        kind = state.types[source].tensor_type.elem_type
        state.inliner.add("SequenceEmpty", [], node.output[0], dtype=kind)
    return True


def _identity(node: onnx.NodeProto, state: _State) -> bool:
    source, output = node.input[0], node.output[0]
    if source in state.sequences:
        state.sequences[output] = state.sequences[source]
    if source in state.optionals:
        state.optionals[output] = state.optionals[source]
    return False


def _optional(node: onnx.NodeProto, state: _State) -> bool:
    state.optionals[node.output[0]] = Optional(node.input[0] if node.input else "")
    return False


def _has_element(node: onnx.NodeProto, state: _State) -> bool:
    source = node.input[0] if node.input else ""
    if not source:
        has = False
    elif source in state.optionals:
        has = bool(state.optionals[source].name)
    elif source in state.sequences or state.is_tensor(source):
        has = True
    else:
        raise _Unknown
    state.replace(node)
    state.inliner.add("Identity", [state.inliner.constant(np.array(has))], node.output[0])
    return True


def _get_element(node: onnx.NodeProto, state: _State) -> bool:
    source, output = node.input[0], node.output[0]
    inner = state.optionals[source].name if source in state.optionals else source
    if inner in state.sequences:
        state.sequences[output] = state.sequences[inner]
        return False
    if not state.is_tensor(inner):
        raise _Unknown
    state.stands(node, inner)
    return True


_STEPS: Mapping[str, Callable[[onnx.NodeProto, _State], bool]] = {
    "ConcatFromSequence": _concat,
    "Identity": _identity,
    "Optional": _optional,
    "OptionalGetElement": _get_element,
    "OptionalHasElement": _has_element,
    "SequenceAt": _at,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _construct,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": _length,
    "SplitToSequence": _split,
}
OPERATORS = frozenset(_STEPS) - {"Identity"}
