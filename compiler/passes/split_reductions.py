"""Cut long sums into parts that are summed side by side, and a short sum over the parts.

A product with few tiles and a long reduction leaves most of a device idle. Its parts are rTasks of
their own; what each tensor's sum is stays a fixed order of additions, so results repeat to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import (
    Computation,
    Roles,
    computation_of,
    computed,
    positions,
)
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.ir import DType, Graph, Node, Tensor

# Of a reduction: parts shorter than this are mostly overhead.
SHORTEST = 32


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """A node in two: the parts of its sum in a tensor of their own, and the sum over them."""

    parts: Node
    tensor: Tensor
    whole: Node


def split_reductions(graph: Graph, parts: Mapping[str, int]) -> Graph:
    """Cut the sums of the nodes with these names into so many parts each."""
    nodes: list[Node] = []
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        if node.name in parts:
            split = cut(node, graph, parts[node.name])
            assert split is not None
            nodes += [split.parts, split.whole]
            tensors[split.tensor.name] = split.tensor
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def cut(node: Node, graph: Graph, parts: int) -> Split | None:
    """The node with its sum in this many parts; None if it is not a sum that can be cut so."""
    computation = computation_of(node)
    axis = _axis(computation, parts)
    if axis is None or computation.roles is None:
        return None
    part, rest = Var("part", parts), Var(axis.name, axis.size // parts)
    places = {axis: ix.of(part) * rest.size + ix.of(rest)}
    reduction = tuple(rest if var is axis else var for var in computation.reduction)
    roles = computation.roles
    inner = Computation(
        (part, *computation.axes),
        terms.rewrite(computation.value, places),
        comp.SUM,
        reduction,
        roles=Roles((part, *roles.batch), roles.rows, roles.columns),
    )
    output = graph.tensor(node.outputs[0])
    layout = (0, *(place + 1 for place in output.layout))
    tensor = Tensor(f"{output.name}#parts", (parts, *computation.shape), DType.FLOAT32, layout)
    first = replace(node, name=f"{node.name}#parts", outputs=(tensor.name,))
    # the sum over the parts reads them, and what the end of the node reads
    loads = (ix.of(part), *positions(computation.axes))
    slots = {slot: slot + 1 for slot in range(len(node.inputs))}
    moved = comp.renumber(computation, slots)
    outer = Computation(
        computation.axes,
        terms.load(0, loads, tensor.shape, tensor.dtype),
        comp.SUM,
        (part,),
        finish=moved.finish,
    )
    second = replace(node, inputs=(tensor.name, *node.inputs))
    return Split(computed(first, inner), tensor, computed(second, outer))


def _axis(computation: Computation, parts: int) -> Var | None:
    """The longest axis of the reduction, if the node is a plain product and the axis can be cut."""
    roles = computation.roles
    if computation.kind != comp.SUM or roles is None or roles.groups != 1:
        return None
    if computation.value.dtype is not DType.FLOAT32 or not computation.reduction:
        return None
    axis = max(computation.reduction, key=lambda var: var.size)
    is_long = computation.reduction_size // parts >= SHORTEST
    return axis if axis.size % parts == 0 and is_long else None
