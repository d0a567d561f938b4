"""Fewer dependency levels, for some more work: for a device on which small nodes wait for each
other most of the time.

Input: a fused graph, which has as few nodes as there can be. Two moves on the nodes of a longest
path, until there is no more to gain.

- *Release*: a product whose finish reads what comes later than its factors waits with all its work
  for that. It goes ahead, and the rest of the finish is a map behind it: the gates of an LSTM that
  became one chain are side by side again.
- *Recompute*: a map that several nodes read is a tensor, for which they wait. Where a cheap one is
  what a node waits for longest, the node works it out for itself: the hidden state the cell state,
  a norm the sum of two branches. What has taken one in is taken in by nobody, so nothing is worked
  out more often than once more for each reader.

Whether that is faster, a schedule has to tell; ``pipeline.attempts`` makes both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, computation_of, computed
from ramforge.compiler.expressions.terms import Expr, Hole, Load
from ramforge.compiler.ir import Graph, Node, Tensor
from ramforge.compiler.passes.drop_dead import drop_dead
from ramforge.compiler.passes.fuse import (
    MOST_INPUTS,
    evaluations,
    inline_maps,
    inlined,
    still_fits,
    work,
)

# What a level takes on two cores, about a microsecond, is enough for so many multiplications and
# for so many bytes; a GPU takes both more easily.
MOST_WORK, MOST_BYTES = 1 << 15, 1 << 17
# A product of more elements keeps a device busy by itself: it may as well come later.
MOST_RELEASED = 1 << 18

Levels = dict[str, int]


def shorten(graph: Graph) -> Graph:
    """The graph with fewer levels; itself if it has as few as it can."""
    grown: set[str] = set()
    while True:
        before = graph
        while (released := _release(graph)) is not graph:
            graph = released
        if graph is not before:  # maps that stood in different products stand side by side now
            graph = drop_dead(inline_maps(graph))
        graph = drop_dead(_recompute(graph, grown))
        if graph is before:
            return graph


def _level(node: Node, levels: Mapping[str, int]) -> int:
    return 1 + max((levels.get(name, 0) for name in node.inputs), default=0)


def _critical(graph: Graph, levels: Levels) -> set[str]:
    """The outputs of the nodes on a longest path."""
    latest = dict.fromkeys(levels, max(levels.values(), default=0))
    for node in reversed(graph.nodes):
        for name in node.inputs:
            if name in latest:
                latest[name] = min(latest[name], latest[node.outputs[0]] - 1)
    return {name for name, level in levels.items() if level == latest[name]}


def _release(graph: Graph) -> Graph:
    levels = graph.levels()
    critical = _critical(graph, levels)
    nodes: list[Node] = []
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        (output,) = node.outputs
        parts = _released(node, graph.tensor(output), levels) if output in critical else None
        if parts is None:
            nodes.append(node)
            continue
        first, tensor, second = parts
        nodes += [first, second]
        tensors[tensor.name] = tensor
    if len(nodes) == len(graph.nodes):
        return graph
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _released(node: Node, output: Tensor, levels: Levels) -> tuple[Node, Tensor, Node] | None:
    """The node without what it does last, the tensor between, and a map that does it; None if its
    finish waits for nothing.
    """
    made = computation_of(node)
    if made.roles is None or made.finish is None or made.scores is not None:
        return None
    if output.size > MOST_RELEASED:
        return None
    early = 1 + max(
        (levels.get(node.inputs[load.slot], 0) for load in terms.loads_of(made.value)), default=0
    )
    late = {slot for slot, name in enumerate(node.inputs) if levels.get(name, 0) >= early}
    if not late:
        return None
    part = _before(made.finish, late)
    tensor = replace(output, name=f"{output.name}#early", dtype=part.dtype)
    first = replace(node, name=f"{node.name}#early", outputs=(tensor.name,))
    here = comp.positions(made.axes)
    load = terms.load(len(node.inputs), here, tensor.shape, tensor.dtype)
    rest = terms.rewrite(made.finish, parts={part: load})
    second = replace(node, inputs=(*node.inputs, tensor.name))
    return (
        computed(first, replace(made, finish=part)),
        tensor,
        computed(second, Computation(made.axes, rest)),
    )


def _before(finish: Expr, late: set[int]) -> Expr:
    """The largest part of a finish that reads nothing late, and through which all goes that is done
    with the product.
    """
    hole: Expr = next(node for node in finish.walk() if isinstance(node, Hole))
    best, largest = hole, 1
    for node in finish.walk():
        inner = tuple(node.walk())
        if len(inner) <= largest or hole not in inner:
            continue
        if any(isinstance(part, Load) and part.slot in late for part in inner):
            continue
        rest = terms.rewrite(finish, parts={node: terms.const(0, node.dtype)})
        if hole not in rest.walk():
            best, largest = node, len(inner)
    return best


def _recompute(graph: Graph, grown: set[str]) -> Graph:
    nodes = {node.outputs[0]: node for node in graph.nodes}
    critical = _critical(graph, graph.levels())
    levels: Levels = {}
    changed = False
    for node in graph.nodes:
        (output,) = node.outputs
        if output in critical and output not in grown:
            merged = _grown(node, nodes, levels, grown, graph)
            if merged is not None:
                nodes[output], changed = merged, True
                grown.add(output)
        levels[output] = _level(nodes[output], levels)
    return graph.rebuilt(nodes[node.outputs[0]] for node in graph.nodes) if changed else graph


def _grown(
    node: Node, nodes: Mapping[str, Node], levels: Levels, grown: set[str], graph: Graph
) -> Node | None:
    """The node with all the maps taken in that it waits for longest; None if it cannot or if it
    would not come sooner.
    """
    used, level = computation_of(node), _level(node, levels)
    if used.roles is not None or used.scores is not None:
        return None
    current = node
    for name in node.inputs:
        if levels.get(name, 0) < level - 1:
            continue
        producer = nodes.get(name)
        if producer is None or name in grown or not _is_cheap(producer, node):
            return None
        current = inlined(current, producer)
    if _level(current, levels) >= level:
        return None
    fits = len(current.inputs) <= MOST_INPUTS and still_fits(current, node, graph)
    return current if fits else None


def _is_cheap(producer: Node, reader: Node) -> bool:
    made, used = computation_of(producer), computation_of(reader)
    if not made.is_map:
        return False
    slot = reader.inputs.index(producer.outputs[0])
    times = evaluations(used, slot)
    nbytes = sum(load.dtype.itemsize for load in made.loads())
    return times * (1 + work(made.value)) <= MOST_WORK and times * nbytes <= MOST_BYTES
