"""Choose the order of axes in memory for each tensor: channels last around convolutions.

A product wants its columns to be neighbours in its output, and the last axis it sums over to be
neighbours in its first operand. For MatMul that is index order; for a convolution it is channels
last. Nodes in between take the order of their input. Graph inputs, outputs and constants stay in
index order; a convolution that reads one of those gets a copy first.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, computation_of
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.expressions.terms import Load
from ramforge.compiler.ir import Graph, Node, Tensor

Layout = tuple[int, ...]


def assign_layouts(graph: Graph) -> Graph:
    fixed = {*graph.inputs, *graph.outputs, *graph.constants}
    wanted = _wanted(graph, fixed)
    tensors = dict(graph.tensors)
    nodes: list[Node] = []
    for node in graph.nodes:
        output = tensors[node.outputs[0]]
        if output.name not in fixed:
            layout = wanted.get(output.name) or _inherited(node, tensors) or output.layout
            tensors[output.name] = replace(output, layout=layout)
        copy = _copy_for_product(node, tensors)
        if copy is not None:
            made, tensor = copy
            if tensor.name not in tensors:
                nodes.append(made)
                tensors[tensor.name] = tensor
            node = replace(node, inputs=(tensor.name, *node.inputs[1:]))
        nodes.append(node)
    if tensors == dict(graph.tensors):
        return graph
    return graph.rebuilt(nodes, tensors.values())


def _wanted(graph: Graph, fixed: set[str]) -> dict[str, Layout]:
    """What the products ask for, of their outputs first and then of their operands."""
    wanted: dict[str, Layout] = {}
    for node in graph.nodes:
        computation = computation_of(node)
        for load, var in _windows(computation):
            last = computation.axes.index(var)
            _ask(wanted, fixed, node.outputs[0], _last(len(computation.axes), last))
            axis = _axis_of(load, var)
            if axis is not None:
                _ask(wanted, fixed, node.inputs[load.slot], _last(len(load.shape), axis))
        operand = _operand(computation)
        if operand is None or computation.roles is None:
            continue
        if computation.roles.columns:
            last = computation.axes.index(computation.roles.columns[-1])
            _ask(wanted, fixed, node.outputs[0], _last(len(computation.axes), last))
        axis = _axis_of(operand, computation.reduction[-1])
        if axis is not None:
            _ask(wanted, fixed, node.inputs[operand.slot], _last(len(operand.shape), axis))
    makers = graph.producers()
    for node in graph.nodes:
        maker = makers.get(node.inputs[0]) if node.inputs else None
        if maker is not None and maker.outputs[0] not in fixed:
            _ask_for_view(wanted, node, maker, graph)
    return wanted


def _ask_for_view(wanted: dict[str, Layout], node: Node, maker: Node, graph: Graph) -> None:
    """Have the result of a product or a row in the order in which the transpose behind it wants it:
    then both are the same memory. The innermost axis stays.
    """
    value = computation_of(node).value
    if computation_of(maker).is_map or not isinstance(value, Load) or value.fill is not None:
        return
    source, target = graph.tensor(maker.outputs[0]), graph.tensor(node.outputs[0])
    if wanted.get(target.name, target.layout) != target.layout:
        return
    plain = ix.flatten(comp.positions(computation_of(node).axes), target.strides)
    last = wanted.get(source.name, source.layout)[-1:]
    for layout in itertools.permutations(range(len(source.shape))):
        strides = replace(source, layout=layout).strides
        if layout[-1:] == last and ix.flatten(value.indices, strides) == plain:
            wanted[source.name] = layout
            return


def _ask(wanted: dict[str, Layout], fixed: set[str], name: str, layout: Layout) -> None:
    if name not in fixed:
        wanted.setdefault(name, layout)


def _operand(computation: Computation) -> Load | None:
    """The first operand of a convolution-like product: one whose rows are not in index order."""
    roles = computation.roles
    if roles is None or not computation.value.args or len(computation.axes) < 3:
        return None
    in_order = roles.columns and roles.columns[-1] is computation.axes[-1]
    return None if in_order else comp.loaded(computation.value.args[0])


def _windows(computation: Computation) -> list[tuple[Load, Var]]:
    """What a depthwise convolution or a pooling goes over, and its channels: the largest output
    axis along which no window lies.
    """
    from ramforge.compiler.expressions.index import variables

    if computation.kind not in comp.COMBINERS or computation.roles is not None:
        return []
    folded, found = set(computation.reduction), []
    for load in terms.loads_of(computation.value):
        used = [variables(place) for place in load.indices]
        window = {var for inside in used if inside & folded for var in inside - folded}
        others = {var for inside in used for var in inside} - window - folded
        channels = [axis for axis in computation.axes if axis in others]
        if window and channels:
            found.append((load, max(channels, key=lambda axis: axis.size)))
    return found


def _last(rank: int, axis: int) -> Layout:
    return (*(other for other in range(rank) if other != axis), axis)


def _axis_of(load: Load, var: Var) -> int | None:
    from ramforge.compiler.expressions.index import variables

    found = [axis for axis, place in enumerate(load.indices) if var in variables(place)]
    return found[0] if len(found) == 1 else None


def _inherited(node: Node, tensors: dict[str, Tensor]) -> Layout | None:
    """The layout of the largest input that this node reads axis by axis."""
    computation = computation_of(node)
    best: Tensor | None = None
    for load in computation.loads():
        tensor = tensors[node.inputs[load.slot]]
        if _reads_in_place(load, computation.axes) and (best is None or tensor.size > best.size):
            best = tensor
    return best.layout if best else None


def _reads_in_place(load: Load, axes: tuple[Var, ...]) -> bool:
    from ramforge.compiler.expressions.index import variables

    if len(load.shape) != len(axes):
        return False
    outer = set(axes)
    return all(variables(place) & outer <= {axes[axis]} for axis, place in enumerate(load.indices))


def _copy_for_product(node: Node, tensors: dict[str, Tensor]) -> tuple[Node, Tensor] | None:
    """A copy in the wanted order of an operand that has to stay in index order; None where none is
    needed.
    """
    computation = computation_of(node)
    operand = _operand(computation)
    if operand is None or operand.slot != 0:
        return None
    source = tensors[node.inputs[0]]
    axis = _axis_of(operand, computation.reduction[-1])
    if axis is None or source.strides[axis] == 1 or not operand.loose_axes():
        return None
    layout = _last(len(source.shape), axis)
    order = "".join(map(str, layout))
    target = Tensor(f"{source.name}.in_order_{order}", source.shape, source.dtype, layout)
    axes = comp.output_axes(source.shape)
    value = terms.load(0, comp.positions(axes), source.shape, source.dtype)
    copy = Node(
        f"{target.name}",
        "Copy",
        (source.name,),
        (target.name,),
        {"computation": Computation(axes, value)},
        node.origin,
    )
    return copy, target
