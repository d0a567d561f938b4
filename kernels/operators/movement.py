"""Operators that only move elements: each is a map whose value is a load at a computed index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, computed
from ramforge.compiler.expressions.index import Data, Index
from ramforge.compiler.expressions.terms import Expr
from ramforge.compiler.ir import Array, Graph, Node, Tensor
from ramforge.compiler.registry import Operator, Refusal, Solve, Told, never, register
from ramforge.kernels.operators.declared import exactly, unit_axes

Source = Callable[[Node, Graph, Tensor, tuple[Index, ...]], Expr]


def constant_input(node: Node, graph: Graph, slot: int) -> Array | None:
    """The value of an input that is known at compile time; None if absent."""
    if len(node.inputs) <= slot or not node.inputs[slot]:
        return None
    return graph.constants[node.inputs[slot]]


def movement(
    name: str, source: Source, refuse: Refusal = never, needs: Mapping[int, Solve] | None = None
) -> None:
    """Register an operator by where each output element comes from."""

    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        output = graph.tensor(node.outputs[0])
        axes = comp.output_axes(output.shape)
        value = source(node, graph, output, comp.positions(axes))
        return (computed(node, Computation(axes, value)),)

    register(Operator(name, express, refuse, needs or {}))


def load_from(node: Node, graph: Graph, slot: int, index: tuple[Index, ...]) -> Expr:
    tensor = graph.tensor(node.inputs[slot])
    return terms.load(slot, index, tensor.shape, tensor.dtype)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def _reshape(node: Node, graph: Graph, output: Tensor, at: tuple[Index, ...]) -> Expr:
    """Same elements in row-major order: Reshape, Flatten, Squeeze, Unsqueeze."""
    shape = graph.tensor(node.inputs[0]).shape
    offset = ix.flatten(at, _row_major(output.shape))
    return load_from(node, graph, 0, ix.unflatten(offset, shape))


def _refuse_reshape(node: Node, graph: Graph) -> tuple[str, str] | None:
    source, output = (graph.tensor(name) for name in (node.inputs[0], node.outputs[0]))
    if source.size != output.size:
        reason = f"{source.size} elements do not fill the shape {list(output.shape)}"
        return reason, "correct the shape"
    return None


def _transpose(node: Node, graph: Graph, output: Tensor, at: tuple[Index, ...]) -> Expr:
    rank = len(at)
    order = node.attr("perm", tuple(reversed(range(rank))))
    places = [at[order.index(axis)] for axis in range(rank)]
    return load_from(node, graph, 0, tuple(places))


def _expand(node: Node, graph: Graph, output: Tensor, at: tuple[Index, ...]) -> Expr:
    return comp.broadcast_load(0, graph.tensor(node.inputs[0]), at)


def _tile(node: Node, graph: Graph, output: Tensor, at: tuple[Index, ...]) -> Expr:
    shape = graph.tensor(node.inputs[0]).shape
    places = tuple(place % max(size, 1) for place, size in zip(at, shape, strict=True))
    return load_from(node, graph, 0, places)


def _gather(node: Node, graph: Graph, output: Tensor, at: tuple[Index, ...]) -> Expr:
    data, indices = (graph.tensor(name) for name in node.inputs[:2])
    axis = node.attr("axis", 0) % len(data.shape)
    rank = len(indices.shape)
    inner = load_from(node, graph, 1, at[axis : axis + rank])
    known = graph.constants.get(node.inputs[1])
    if known is not None and known.size == 1:
        position = ix.constant(int(known.reshape(()).item()) % data.shape[axis])
    else:
        position = ix.of(Data(inner, data.shape[axis]))
    return load_from(node, graph, 0, (*at[:axis], position, *at[axis + rank :]))


def beyond(positions: Array | None, size: int) -> tuple[str, str] | None:
    """A refusal of constant positions that an axis of this size does not have."""
    if positions is None:
        return None
    wrong = positions[(positions < -size) | (positions >= size)]
    if not wrong.size:
        return None
    reason = f"index {wrong[0]} is outside of an axis of {size} elements"
    return reason, f"correct the index, it may be at least {-size} and less than {size}"


def _refuse_gather(node: Node, graph: Graph) -> tuple[str, str] | None:
    shape = graph.tensor(node.inputs[0]).shape
    return beyond(graph.constants.get(node.inputs[1]), shape[node.attr("axis", 0)])


def _concat(node: Node, graph: Graph, output: Tensor, at: tuple[Index, ...]) -> Expr:
    axis = node.attr("axis") % len(output.shape)
    parts: list[tuple[int, Expr]] = []
    start = 0
    for slot, name in enumerate(node.inputs):
        tensor = graph.tensor(name)
        if tensor.shape[axis] == 0:
            continue
        place = (*at[:axis], at[axis] - start, *at[axis + 1 :])
        parts.append((start, terms.load(slot, place, tensor.shape, tensor.dtype, fill=0)))
        start += tensor.shape[axis]
    _, value = parts[-1]
    for (_, part), (end, _) in zip(reversed(parts[:-1]), reversed(parts[1:]), strict=True):
        value = terms.select(terms.inside(at[axis], 0, end), part, value)
    return value


def _express_split(node: Node, graph: Graph) -> tuple[Node, ...]:
    """One node an output: each is a slice."""
    rank = len(graph.tensor(node.inputs[0]).shape)
    axis = node.attr("axis", 0) % rank
    nodes = []
    start = 0
    for number, name in enumerate(node.outputs):
        output = graph.tensor(name)
        axes = comp.output_axes(output.shape)
        at = list(comp.positions(axes))
        at[axis] = at[axis] + start
        start += output.shape[axis]
        part = replace(node, name=f"{node.name}.{number}", outputs=(name,), inputs=node.inputs[:1])
        value = load_from(part, graph, 0, tuple(at))
        nodes.append(computed(part, Computation(axes, value)))
    return tuple(nodes)


def _new_shape(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    """The size of each axis, or what stands for it: -1 for the rest, 0 for the same as before."""
    source, output = (graph.tensor(name).shape for name in (node.inputs[0], node.outputs[0]))
    copied = not node.attr("allowzero", 0)
    choices = [
        (size, -1, *((0,) if copied and axis < len(source) and source[axis] == size else ()))
        for axis, size in enumerate(output)
    ]
    return (Told(output, tuple(choices)),)


def _expanded(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    """An axis that is not stretched may also be asked for with a 1."""
    source, output = (graph.tensor(name).shape for name in (node.inputs[0], node.outputs[0]))
    count = graph.tensor(node.inputs[slot]).size
    old = (1,) * (len(output) - len(source)) + source
    pairs = list(zip(old, output, strict=True))[len(output) - count :]
    choices = tuple((new, *((1,) if before == new else ())) for before, new in pairs)
    return (Told(tuple(new for _, new in pairs), choices),)


def _repeats(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    source, output = (graph.tensor(name).shape for name in (node.inputs[0], node.outputs[0]))
    if len(source) != len(output) or 0 in source:
        return ()
    return (exactly(*(new // old for old, new in zip(source, output, strict=True))),)


def _parts(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    axis = node.attr("axis", 0)
    return (exactly(*(graph.tensor(name).shape[axis] for name in node.outputs)),)


movement("Reshape", _reshape, _refuse_reshape, {1: _new_shape})
movement("Flatten", _reshape, _refuse_reshape)
movement("Squeeze", _reshape, _refuse_reshape, {1: unit_axes})
movement("Unsqueeze", _reshape, _refuse_reshape, {1: unit_axes})
movement("Transpose", _transpose)
movement("Expand", _expand, needs={1: _expanded})
movement("Tile", _tile, needs={1: _repeats})
movement("Gather", _gather, _refuse_gather)
movement("Concat", _concat)
register(Operator("Split", _express_split, needs={1: _parts}))
