"""Vertical fusion: put maps into the nodes around them, so that fewer tensors and fewer dependency
levels remain.

Two moves, both plain substitution of expressions. ``inline_maps`` replaces the load of a map's
output by the map's own value at that position. ``absorb_finishes`` appends a map to the product,
reduction or row whose output it reads element by element. A move is taken only if the node can
still be carried out by as good a kernel family as before.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ramforge.compiler import registry
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, computation_of
from ramforge.compiler.expressions.functions import function
from ramforge.compiler.expressions.index import Var
from ramforge.compiler.expressions.placed import place
from ramforge.compiler.expressions.terms import Apply, Expr, Load
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.passes.fold_constants import is_widening

# What a row may work out several times for an element: work up to this, whatever it is in rows that
# are kept, for there it is done once.
CHEAP_FOR_A_ROW = 24
LONGEST_KEPT_ROW = 4096
MOST_INPUTS = 24


def inline_maps(graph: Graph) -> Graph:
    """Inline every map that is only a load or a constant made wider, and every other map that has
    one reader of each element.
    """
    nodes = {node.outputs[0]: node for node in graph.nodes}
    readers = {name: len(users) for name, users in graph.consumers().items()}
    changed = False
    for node in graph.nodes:
        current = nodes[node.outputs[0]]
        for name in tuple(current.inputs):
            producer = nodes.get(name)
            if producer is None or not computation_of(producer).is_map:
                continue
            if not _widens_a_constant(producer, graph) and not _may_inline(
                producer, current, readers[name], name in graph.outputs
            ):
                continue
            merged = inlined(current, producer)
            if len(merged.inputs) <= MOST_INPUTS and still_fits(merged, current, graph):
                current, changed = merged, True
        nodes[node.outputs[0]] = current
    return graph.rebuilt(nodes[node.outputs[0]] for node in graph.nodes) if changed else graph


def _widens_a_constant(producer: Node, graph: Graph) -> bool:
    """Whoever reads such a weight reads fewer bytes of what is stored."""
    return is_widening(computation_of(producer)) and producer.inputs[0] in graph.constants


def _may_inline(producer: Node, consumer: Node, readers: int, is_output: bool) -> bool:
    made = computation_of(producer)
    if isinstance(made.value, Load):
        return True
    if readers > 1 or is_output:
        return False
    used = computation_of(consumer)
    if used.is_row and work(made.value) <= CHEAP_FOR_A_ROW:
        return True
    if used.roles is not None:
        return _reads_at_the_end(used, consumer.inputs.index(producer.outputs[0]), made)
    if used.is_row and used.reduction_size > LONGEST_KEPT_ROW:
        return False
    return _reads_once(used, consumer.inputs.index(producer.outputs[0]), made)


def _reads_at_the_end(used: Computation, slot: int, made: Computation) -> bool:
    """Whether a product reads a map only when its sums are done, and each element at most once."""
    before = [expr for expr in used.expressions() if expr is not used.finish]
    if any(load.slot == slot for expr in before for load in terms.loads_of(expr)):
        return False
    reads = sum(load.slot == slot for load in used.loads())
    return math.prod(used.shape) * reads <= max(1, math.prod(made.shape))


def _reads_once(used: Computation, slot: int, made: Computation) -> bool:
    """Whether the consumer evaluates the producer no more often than its own kernel would, or it is
    all cheap.
    """
    out = evaluations(used, slot)
    produced = max(1, math.prod(made.shape))
    return out <= produced or (used.is_map and work(made.value) * out <= 4 * produced)


def evaluations(used: Computation, slot: int) -> int:
    """How many elements of an input are asked for, each as often as it is; a row keeps what its
    folds and its result share.
    """
    depth = 1 if used.is_row else used.reduction_size
    inside = sum(load.slot == slot for load in terms.loads_of(used.value))
    count = sum(load.slot == slot for load in used.loads())
    return math.prod(used.shape) * (inside * depth + count - inside)


def work(value: Expr) -> int:
    """For one element, in multiplications."""
    return sum(function(node.name).cost for node in value.walk() if isinstance(node, Apply))


def inlined(consumer: Node, producer: Node) -> Node:
    """The consumer with the producer's value in the place of its loads."""
    slot = consumer.inputs.index(producer.outputs[0])
    made = computation_of(producer)
    inputs = list(consumer.inputs)
    places = {old: comp.slot_for(name, inputs) for old, name in enumerate(producer.inputs)}
    value = comp.renumber(made, places).value

    def change(load: Load) -> Expr:
        if load.slot != slot:
            return load
        moved = terms.rewrite(value, dict(zip(made.axes, load.indices, strict=True)))
        loose = load.loose_axes()
        if not loose:
            return moved
        # outside of the map's output there is the fill, and nothing may be read from outside of its
        # inputs
        guard = terms.conjunction(
            [terms.inside(load.indices[axis], 0, load.shape[axis]) for axis in loose]
        )
        assert load.fill is not None
        if isinstance(moved, Load) and moved.fill is None and _same_bounds(moved, load):
            return terms.load(moved.slot, moved.indices, moved.shape, moved.dtype, load.fill)
        return terms.select(guard, _guarded(moved), terms.const(load.fill, load.dtype))

    merged = comp.rewritten(computation_of(consumer), change)
    return _joined(consumer, inputs, merged, producer, consumer)


def _same_bounds(moved: Load, load: Load) -> bool:
    """Whether leaving the one tensor is leaving the other: each loose axis went over as it is."""
    loose = [load.indices[axis] for axis in load.loose_axes()]
    sizes = [load.shape[axis] for axis in load.loose_axes()]
    found = {(place.key, size) for place, size in zip(moved.indices, moved.shape, strict=True)}
    others = [
        axis
        for axis, place in enumerate(moved.indices)
        if place.key not in {index.key for index in loose}
    ]
    spans_inside = all(
        ix.bounds(moved.indices[axis])[0] >= 0
        and ix.bounds(moved.indices[axis])[1] < moved.shape[axis]
        for axis in others
    )
    return spans_inside and all(
        (place.key, size) in found for place, size in zip(loose, sizes, strict=True)
    )


def _guarded(value: Expr) -> Expr:
    """Give loads that may now leave their tensor something to read instead."""

    def change(load: Load) -> Expr:
        if load.fill is not None:
            return load
        return terms.load(load.slot, load.indices, load.shape, load.dtype, fill=0)

    return terms.rewrite(value, loads=change)


def _joined(
    node: Node, inputs: list[str], computation: Computation, first: Node, then: Node
) -> Node:
    """The node with this computation, unused inputs dropped; its origins in data order."""
    origin = tuple(dict.fromkeys((*first.origin, *then.origin)))
    return comp.computed(replace(node, inputs=tuple(inputs), origin=origin), computation)


def still_fits(merged: Node, before: Node, graph: Graph) -> bool:
    new, old = (registry.family_of(place(node, graph)).rank for node in (merged, before))
    return new <= old


def absorb_finishes(graph: Graph) -> Graph:
    """Append each map to the node that made the tensor it reads, the latest one if there are
    several.
    """
    order = {node.outputs[0]: number for number, node in enumerate(graph.nodes)}
    nodes: dict[str, Node | None] = {node.outputs[0]: node for node in graph.nodes}
    readers = graph.consumers()
    changed = False
    for node in graph.nodes:
        current = nodes[node.outputs[0]]
        if current is None or not computation_of(current).is_map:
            continue
        candidates = sorted(current.inputs, key=lambda name: -order.get(name, -1))
        for name in candidates:
            producer = nodes.get(name)
            if producer is None or len(readers[name]) != 1 or name in graph.outputs:
                continue
            there = _read_element_by_element(current, producer)
            if there is not None:
                nodes[node.outputs[0]] = _finished(producer, current, there)
                nodes[name] = None
                changed = True
                break
    if not changed:
        return graph
    kept = (nodes[node.outputs[0]] for node in graph.nodes)
    return graph.rebuilt(node for node in kept if node is not None)


def _read_element_by_element(reader: Node, producer: Node) -> tuple[Var | None, ...] | None:
    """For each axis of the producer that of the reader along which it is read; None for one of
    length 1 that has no counterpart. Axes of length 1 may come and go, the others keep their order.
    None at all if the reader reads in any other way.
    """
    made, used = computation_of(producer), computation_of(reader)
    slot = reader.inputs.index(producer.outputs[0])
    loads = {load for load in used.loads() if load.slot == slot}
    if made.is_map or len(loads) != 1:
        return None
    (load,) = loads
    long = [axis for axis in used.axes if axis.size > 1]
    if load.loose_axes() or [axis.size for axis in long] != [n for n in made.shape if n > 1]:
        return None
    left, unit = iter(long), iter([axis for axis in used.axes if axis.size == 1])
    there = tuple(next(left if axis.size > 1 else unit, None) for axis in made.axes)
    here = tuple(ix.constant(0) if axis is None else ix.of(axis) for axis in there)
    lost = {axis for axis, new in zip(made.axes, there, strict=True) if new is None}
    return there if load.indices == here and not lost & set(made.reduction) else None


def _finished(producer: Node, reader: Node, there: tuple[Var | None, ...]) -> Node:
    """The producer with the reader's value as its finish; it stands where the reader stood."""
    made = _with_axes(computation_of(producer), computation_of(reader).axes, there)
    used = computation_of(reader)
    slot = reader.inputs.index(producer.outputs[0])
    inputs = list(producer.inputs)
    places = {
        old: comp.slot_for(name, inputs) for old, name in enumerate(reader.inputs) if old != slot
    }

    def change(load: Load) -> Expr:
        if load.slot == slot:
            return terms.hole(load.dtype)
        return terms.load(places[load.slot], load.indices, load.shape, load.dtype, load.fill)

    finish = terms.rewrite(used.value, loads=change)
    merged = replace(producer, outputs=reader.outputs)
    return _joined(merged, inputs, made.then(finish), producer, reader)


def _with_axes(
    made: Computation, axes: tuple[Var, ...], there: tuple[Var | None, ...]
) -> Computation:
    """The same on other axes: ``there`` are those in the places of its own."""
    new = dict(zip(made.axes, there, strict=True))
    places = {old: ix.constant(0) if var is None else ix.of(var) for old, var in new.items()}

    def moved(variables: tuple[Var, ...]) -> tuple[Var, ...]:
        found = [new.get(var, var) for var in variables]
        return tuple(var for var in found if var is not None)

    roles = made.roles
    if roles is not None:
        roles = replace(
            roles,
            batch=moved(roles.batch),
            rows=moved(roles.rows),
            columns=moved(roles.columns),
        )
    return replace(
        made.mapped(lambda expr: terms.rewrite(expr, places)),
        axes=axes,
        reduction=moved(made.reduction),
        roles=roles,
    )
