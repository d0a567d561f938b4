"""LSTM, GRU and RNN, unrolled over time.

The input's part of every gate is one product for all times and directions. A time step is then a
product with the state before it and a few maps; what a sequence has beyond its length leaves the
state as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, const, select
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators import activations
from ramforge.kernels.operators.activations import Activation
from ramforge.kernels.operators.pieces import Piece, stacked

# The element of a state at (batch, hidden); None is a state of zeros.
State = Callable[[Index, Index], Expr] | None
# The element of the sum that goes into a gate, at (batch, gate, hidden).
Gates = Callable[[Index, int, Index], Expr]


@dataclass(frozen=True, slots=True)
class _Operator:
    """What tells the three apart: number of gates, default activations, inputs by their slot."""

    gates: int
    activations: tuple[str, ...]
    initial_c: int | None = None
    peepholes: int | None = None


_LSTM = _Operator(4, ("Sigmoid", "Tanh", "Tanh"), 6, 7)
_GRU = _Operator(3, ("Sigmoid", "Tanh"))
_RNN = _Operator(1, ("Tanh",))
_OPERATORS = {"LSTM": _LSTM, "GRU": _GRU, "RNN": _RNN}


def _directions(node: Node) -> int:
    return 2 if node.attr("direction", "forward") == "bidirectional" else 1


def _names(node: Node) -> list[str]:
    """The activations of all directions, in the order of the attribute."""
    return activations.names(node, _OPERATORS[node.op].activations * _directions(node))


class _Layer:
    """One node at work: its operands by name, and what all three operators do alike."""

    def __init__(self, node: Node, graph: Graph) -> None:
        self.node = node
        self.kind = kind = _OPERATORS[node.op]
        self.steps = steps = Steps(node, graph)
        x, self.r = steps.given(0), steps.given(2)
        self.dtype = x.dtype
        self.batch_first = node.attr("layout", 0) == 1
        self.time, self.batch = x.shape[:2][:: -1 if self.batch_first else 1]
        self.hidden = self.r.shape[2]
        self.directions = _directions(node)
        self.bias, self.lengths = steps.optional(3), steps.optional(4)
        self.activations = self._activations()
        self.width = kind.gates * self.hidden
        self.input = self._input_product(x, steps.given(1)) if self.time else None

    def _activations(self) -> list[Activation]:
        """As in ONNX Runtime, only the sums of gates are clipped, not the cell in h(C)."""
        names, limit = _names(self.node), self.node.attr("clip")
        numbers = activations.numbers(self.node, names)
        return [
            activations.activation(name, alpha, beta, None if self._of_cell(place) else limit)
            for place, (name, (alpha, beta)) in enumerate(zip(names, numbers, strict=True))
        ]

    def _of_cell(self, place: int) -> bool:
        return self.kind is _LSTM and place % 3 == 2

    def _input_product(self, x: Value, w: Value) -> Value:
        inner = x.shape[1]

        def finish(total: Expr, row: Index, column: Index) -> Expr:
            if self.bias is None:
                return total
            direction, gate = column // self.width, column % self.width
            bias = self.bias[direction, gate]
            recurrent = self.bias[direction, gate + self.width]
            if self.node.op == "GRU" and self.node.attr("linear_before_reset", 0):
                # that of the hidden gate stands inside of the reset
                free = terms.inside(gate, 0, 2 * self.hidden)
                recurrent = select(free, recurrent, const(0, self.dtype))
            return total + (bias + recurrent)

        return self.steps.product(
            (),
            self.time * self.batch,
            self.directions * self.width,
            x.shape[2],
            lambda row, k: x[row // inner, row % inner, k],
            lambda k, column: w[column // self.width, column % self.width, k],
            finish,
        )

    def from_input(self, time: int, direction: int, batch: Index, column: Index) -> Expr:
        """The input's part of a gate; ``column`` counts through the gates of the direction."""
        assert self.input is not None
        row = batch * self.time + time if self.batch_first else batch + time * self.batch
        return self.input[row, column + direction * self.width]

    def recurrent(
        self,
        direction: int,
        state: Callable[[Index, Index], Expr],
        gates: range,
        finish: Callable[[Expr, Index, Index], Expr],
    ) -> Value:
        """The product of a state with the weights of these gates."""
        first = gates.start * self.hidden
        return self.steps.product(
            (),
            self.batch,
            len(gates) * self.hidden,
            self.hidden,
            state,
            lambda k, column: self.r[direction, column + first, k],
            finish,
        )

    def gates(self, time: int, direction: int, state: State, number: int) -> Gates:
        """What goes into the first ``number`` gates."""
        if state is None:
            return lambda batch, gate, at: self.from_input(
                time, direction, batch, at + gate * self.hidden
            )
        sums = self.recurrent(
            direction,
            state,
            range(number),
            lambda total, batch, column: total + self.from_input(time, direction, batch, column),
        )
        return lambda batch, gate, at: sums[batch, at + gate * self.hidden]

    def beside_input(self, sums: Value, time: int, direction: int) -> Gates:
        """Gates whose products stand alone, and the input's part of each."""

        def gate(batch: Index, number: int, at: Index) -> Expr:
            column = at + number * self.hidden
            return sums[batch, column] + self.from_input(time, direction, batch, column)

        return gate

    def initial(self, slot: int | None, direction: int) -> State:
        value = self.steps.optional(slot) if slot is not None else None
        if value is None:
            return None
        if self.batch_first:
            return lambda batch, at: value[batch, direction, at]
        return lambda batch, at: value[direction, batch, at]

    def alive(self, time: int, batch: Index) -> Expr:
        """Whether a sequence is that long."""
        lengths = self.lengths
        if lengths is None or (lengths.known is not None and np.all(lengths.known > time)):
            return terms.const(True, DType.BOOL)
        return lengths[batch] > time

    def kept(self, time: int, new: Expr, old: State, batch: Index, at: Index) -> Expr:
        """The new state where the sequence goes on, else the old one."""
        return select(self.alive(time, batch), new, _at(old, batch, at, self.dtype))

    def map(self, formula: Callable[[Index, Index], Expr]) -> Value:
        return self.steps.map((self.batch, self.hidden), formula)

    def write(self, hidden: Sequence[Sequence[Value]], last: Sequence[Sequence[State]]) -> None:
        """The outputs: Y of the states of each time and direction, then the last states."""
        if self.steps.wants(0):
            self._write_all(hidden)
        for number, states in enumerate(last, start=1):
            if self.steps.wants(number):
                self._write_last(number, states)

    def _write_all(self, hidden: Sequence[Sequence[Value]]) -> None:
        def piece(time: int, value: Value) -> Piece:
            def formula(_: Index, batch: Index, at: Index) -> Expr:
                alive = self.alive(time, batch)
                return select(alive, value[batch, at], const(0, self.dtype))

            return Piece(1, formula)

        pieces = [piece(time, value) for time, row in enumerate(hidden) for value in row]
        pieces = pieces or [Piece(0, lambda *places: const(0, self.dtype))]
        every = stacked(self.steps, pieces, (self.batch, self.hidden))

        def formula(*places: Index) -> Expr:
            batch, time, direction, at = places
            if not self.batch_first:
                time, direction, batch, at = places
            return every(time * self.directions + direction, batch, at)

        self.steps.map(self.steps.shape(0), formula, to=0)

    def _write_last(self, number: int, states: Sequence[State]) -> None:
        def formula(*places: Index) -> Expr:
            direction, batch, at = places
            if self.batch_first:
                batch, direction, at = places
            parts = [_at(state, batch, at, self.dtype) for state in states]
            return select(terms.inside(direction, 0, 1), parts[0], parts[-1])

        self.steps.map(self.steps.shape(number), formula, to=number)

    def times(self, direction: int) -> Iterable[int]:
        backward = direction == 1 or self.node.attr("direction", "forward") == "reverse"
        return reversed(range(self.time)) if backward else range(self.time)


def _at(state: State, batch: Index, at: Index, dtype: DType) -> Expr:
    return const(0, dtype) if state is None else state(batch, at)


def _state(value: Value) -> Callable[[Index, Index], Expr]:
    return lambda batch, at: value[batch, at]


def _express(node: Node, graph: Graph) -> tuple[Node, ...]:
    layer = _Layer(node, graph)
    step = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _rnn_step}[node.op]
    hidden: list[list[Value]] = [[] for _ in range(layer.time)]
    last: list[list[State]] = [[], []]
    for direction in range(layer.directions):
        h, c = layer.initial(5, direction), layer.initial(layer.kind.initial_c, direction)
        for time in layer.times(direction):
            value, c = step(layer, time, direction, h, c)
            h = _state(value)
            hidden[time].append(value)
        last[0].append(h)
        last[1].append(c)
    layer.write(hidden, last)
    return layer.steps.nodes()


def _lstm_step(layer: _Layer, time: int, direction: int, h: State, c: State) -> tuple[Value, State]:
    f, g, squash = layer.activations[3 * direction : 3 * direction + 3]
    gates = layer.gates(time, direction, h, 4)
    peepholes = layer.steps.optional(7)

    def gate(number: int, cell: State, batch: Index, at: Index) -> Expr:
        total = gates(batch, number, at)
        if peepholes is not None and cell is not None:
            weight = peepholes[direction, at + number * layer.hidden]
            total = total + weight * cell(batch, at)
        return f(total)

    def cell(batch: Index, at: Index) -> Expr:
        entry = gate(0, c, batch, at)
        result = entry * g(gates(batch, 3, at))
        if c is not None:
            coupled = layer.node.attr("input_forget", 0)
            forget = 1.0 - entry if coupled else gate(2, c, batch, at)
            result = forget * c(batch, at) + result
        return layer.kept(time, result, c, batch, at)

    cells = _state(layer.map(cell))

    def hidden(batch: Index, at: Index) -> Expr:
        result = gate(1, cells, batch, at) * squash(_at(cells, batch, at, layer.dtype))
        return layer.kept(time, result, h, batch, at)

    return layer.map(hidden), cells


def _gru_step(layer: _Layer, time: int, direction: int, h: State, c: State) -> tuple[Value, State]:
    f, g = layer.activations[2 * direction : 2 * direction + 2]
    linear = bool(layer.node.attr("linear_before_reset", 0))
    update, reset, candidate = range(3)
    sums = None
    if h is not None and linear:  # all three are products with the same state
        sums = layer.recurrent(direction, h, range(3), lambda total, batch, column: total)
        gates = layer.beside_input(sums, time, direction)
    else:
        gates = layer.gates(time, direction, h, 2)

    def from_input(batch: Index, at: Index) -> Expr:
        return layer.from_input(time, direction, batch, at + candidate * layer.hidden)

    def inner(total: Expr | None, batch: Index, at: Index) -> Expr:
        """What goes into the hidden gate; ``total`` is its product with the state."""
        if linear and layer.bias is not None:
            bias = layer.bias[direction, at + layer.width + candidate * layer.hidden]
            total = bias if total is None else total + bias
        if total is None:
            return from_input(batch, at)
        if linear:
            total = f(gates(batch, reset, at)) * total
        return from_input(batch, at) + total

    def mixed(total: Expr | None, batch: Index, at: Index) -> Expr:
        share = f(gates(batch, update, at))
        result = (1.0 - share) * g(inner(total, batch, at))
        if h is not None:
            result = result + share * h(batch, at)
        return layer.kept(time, result, h, batch, at)

    if h is None:
        return layer.map(lambda batch, at: mixed(None, batch, at)), None
    if sums is not None:
        own = sums
        first = candidate * layer.hidden
        return layer.map(lambda batch, at: mixed(own[batch, at + first], batch, at)), None
    before = h
    factor = _state(layer.map(lambda batch, at: f(gates(batch, reset, at)) * before(batch, at)))
    return layer.recurrent(direction, factor, range(candidate, candidate + 1), mixed), None


def _rnn_step(layer: _Layer, time: int, direction: int, h: State, c: State) -> tuple[Value, State]:
    f = layer.activations[direction]
    if h is None:
        gates = layer.gates(time, direction, None, 1)

        def first(batch: Index, at: Index) -> Expr:
            return layer.kept(time, f(gates(batch, 0, at)), None, batch, at)

        return layer.map(first), None

    def finish(total: Expr, batch: Index, at: Index) -> Expr:
        result = f(total + layer.from_input(time, direction, batch, at))
        return layer.kept(time, result, h, batch, at)

    return layer.recurrent(direction, h, range(1), finish), None


def _refuse(node: Node, graph: Graph) -> tuple[str, str] | None:
    reason = next(_complaints(node, graph), None)
    return (
        (reason, "check the model against the ONNX standard, and export it again")
        if reason
        else None
    )


def _complaints(node: Node, graph: Graph) -> Iterator[str]:
    """What the attributes and shapes of a node have against it."""
    direction, layout = node.attr("direction", "forward"), node.attr("layout", 0)
    if direction not in ("forward", "reverse", "bidirectional"):
        yield f"direction is {direction!r}, expected forward, reverse or bidirectional"
    if layout not in (0, 1):
        yield f"layout is {layout}, expected 0 or 1"
    yield from activations.complaints(node, _OPERATORS[node.op].activations * _directions(node))
    x, w, r = (graph.tensor(name).shape for name in node.inputs[:3])
    if (len(x), len(w), len(r)) != (3, 3, 3):
        yield f"X, W and R have {len(x)}, {len(w)} and {len(r)} axes, expected 3 each"
        return
    directions, hidden, width = _directions(node), r[2], _OPERATORS[node.op].gates * r[2]
    batch = x[0] if layout else x[1]
    state = (batch, directions, hidden) if layout else (directions, batch, hidden)
    if node.attr("hidden_size", hidden) != hidden:
        yield f"hidden_size is {node.attr('hidden_size')}, and R is for {hidden}"
    expected = (
        x,
        (directions, width, x[2]),
        (directions, width, hidden),
        (directions, 2 * width),
        (batch,),
        state,
        state,
        (directions, 3 * hidden),
    )
    for slot, (name, wanted) in enumerate(zip(node.inputs, expected, strict=False)):
        found = graph.tensor(name).shape if name else wanted
        if found != wanted:
            yield f"input {slot} ({name!r}) has the shape {list(found)}, expected {list(wanted)}"


for _name in _OPERATORS:
    register(Operator(_name, _express, _refuse))
