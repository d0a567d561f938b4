"""NonMaxSuppression: boxes by falling score, without those that overlap a better one too much.

The output is as long as the data says; a run that does not find the declared number fails.
"""

from __future__ import annotations

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions.index import Data, Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, const, larger, select, smaller, value_of
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register, untold
from ramforge.kernels.operators.counted import nothing_declared
from ramforge.kernels.operators.movement import constant_input
from ramforge.kernels.operators.ordering import by_value, count, ordered, positions_of

# Each round chooses one box of every class, and is two rOperators
MOST_ROUNDS = 512
DROPPED, WAITING, CHOSEN = 0, 1, 2


def _state(value: int) -> Expr:
    return const(value, DType.INT32)


def _suppression(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    scores = steps.given(1)
    batches, classes, boxes = scores.shape
    wanted = steps.shape()[0]
    order = ordered(
        steps,
        (batches, classes),
        boxes,
        by_value(lambda line, place: scores[(*line, place)], falling=True),
    )
    corners = _corners(steps)
    least = steps.optional(4)

    def first_state(*at: Index) -> Expr:
        if least is None:
            return _state(WAITING)
        threshold = least.at((0,) * least.rank)
        return select(scores[(*at[:2], order[at])] > threshold, _state(WAITING), _state(DROPPED))

    states = steps.map(order.shape, first_state)
    for _ in range(_rounds(node, graph)):
        states = _round(steps, states, order, corners)
    size = batches * classes * boxes
    chosen = steps.map(
        (size,), lambda place: states[ix.unflatten(place, order.shape)].equals(CHOSEN)
    )
    found = positions_of(steps, chosen, wanted)

    def selected(row: Index, column: Index) -> Expr:
        batch, kind, place = ix.unflatten(ix.of(Data(found[row], size)), order.shape)
        box = order[batch, kind, place].cast(DType.INT64)
        which = value_of(column)
        rest = select(which.equals(1), value_of(kind), box)
        return select(which.equals(0), value_of(batch), rest)

    steps.map((wanted, 3), selected, to=0)
    return steps.nodes()


def _rounds(node: Node, graph: Graph) -> int:
    """How many boxes of one class may be chosen; one more than declared would be too many."""
    most = constant_input(node, graph, 2)
    declared = graph.tensor(node.outputs[0]).shape[0]
    boxes = graph.tensor(node.inputs[1]).shape[2]
    given = 0 if most is None or not most.size else int(most.reshape(-1)[0])
    return max(0, min(given, boxes, declared + 1))


def _corners(steps: Steps) -> Value:
    """Boxes by two corners: least y, least x, greatest y, greatest x."""
    boxes = steps.given(0)
    centred = steps.node.attr("center_point_box", 0)

    def corner(batch: Index, box: Index, which: Index) -> Expr:
        def number(place: Index | int) -> Expr:
            return boxes[batch, box, place]

        is_least = value_of(which) < 2
        if not centred:
            first, second = number(which % 2), number(which % 2 + 2)
            return select(is_least, smaller(first, second), larger(first, second))
        is_y = value_of(which % 2).equals(0)
        centre = select(is_y, number(1), number(0))
        half = select(is_y, number(3), number(2)) / 2
        return select(is_least, centre - half, centre + half)

    return steps.map(boxes.shape, corner)


def _round(steps: Steps, states: Value, order: Value, corners: Value) -> Value:
    """Choose the best box that waits, and drop those that overlap it."""
    boxes = states.shape[2]

    def waiting(batch: Index, kind: Index, place: Index) -> Expr:
        waits = states[batch, kind, place].equals(WAITING)
        return select(waits, count(place), count(boxes))

    best = steps.fold(comp.MINIMUM, states.shape[:2], (boxes,), waiting)

    def next_state(batch: Index, kind: Index, place: Index) -> Expr:
        state, chosen = states[batch, kind, place], best[batch, kind]
        mine = [corners[batch, order[batch, kind, place], side] for side in range(4)]
        other = [corners[batch, order[batch, kind, chosen], side] for side in range(4)]
        dropped = select(_overlaps(steps, mine, other), _state(DROPPED), state)
        after = select(count(place).equals(chosen), _state(CHOSEN), dropped)
        return select(state.equals(WAITING), after, state)

    return steps.map(states.shape, next_state)


def _overlaps(steps: Steps, a: list[Expr], b: list[Expr]) -> Expr:
    limit = steps.optional(3)
    threshold = const(0, DType.FLOAT32) if limit is None else limit.at((0,) * limit.rank)
    height = smaller(a[2], b[2]) - larger(a[0], b[0])
    width = smaller(a[3], b[3]) - larger(a[1], b[1])
    shared = height * width
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = areas[0] + areas[1] - shared
    has_area = (height > 0) & (width > 0) & (shared > 0)
    are_boxes = (areas[0] > 0) & (areas[1] > 0) & (union > 0)
    return has_area & are_boxes & (shared / union > threshold)


def _refuse(node: Node, graph: Graph) -> tuple[str, str] | None:
    if _rounds(node, graph) > MOST_ROUNDS:
        return (
            f"up to {_rounds(node, graph)} boxes of a class would be chosen one after another",
            f"let max_output_boxes_per_class be at most {MOST_ROUNDS}",
        )
    most = constant_input(node, graph, 2)
    if most is None or not most.size or most.reshape(-1)[0] <= 0:
        return None
    return nothing_declared(lambda node: 0)(node, graph)


register(Operator("NonMaxSuppression", _suppression, _refuse, needs={2: untold}))
