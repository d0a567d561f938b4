"""Operators that spread their input over overlapping windows. Each output looks for what reaches
it, so that nothing is added to by two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, const
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.registry import Operator, Told, register, untold
from ramforge.kernels.operators.convolution import product_roles
from ramforge.kernels.operators.declared import exactly
from ramforge.kernels.operators.window import Meeting

Part = tuple[int, int, int]


def _parts(meeting: Meeting) -> list[Part]:
    """The phases by the number of offsets they meet: (first phase, how many phases, offsets)."""
    whole, more = divmod(meeting.kernel, meeting.phases)
    parts = [(0, more, whole + 1), (more, meeting.phases - more, whole)]
    return [part for part in parts if part[1] and part[2]]


class _Transposition:
    """A transposed convolution with stride s is s products, one for each phase of its outputs.

    Phases that meet as many offsets are one product with a batch. With stride 1 there is one phase,
    and its product is the output itself.
    """

    def __init__(self, node: Node, graph: Graph) -> None:
        self.steps = steps = Steps(node, graph)
        self.x, self.weight = steps.given(0), steps.given(1)
        self.outputs = steps.shape()
        self.groups = node.attr("group", 1)
        rank = self.x.rank - 2
        strides = node.attr("strides") or (1,) * rank
        dilations = node.attr("dilations") or (1,) * rank
        self.meetings = [
            Meeting(*sizes) for sizes in zip(self.weight.shape[2:], strides, dilations, strict=True)
        ]
        self.before = [self._padding(node, axis, meeting) for axis, meeting in self._axes()]
        self.first_turns = [m.turn_of(self.before[axis]).const for axis, m in self._axes()]
        self.phased = [axis for axis, meeting in self._axes() if meeting.phases > 1]

    def _axes(self) -> Iterator[tuple[int, Meeting]]:
        return enumerate(self.meetings)

    def _padding(self, node: Node, axis: int, meeting: Meeting) -> int:
        """What is cut off in front, given or from the size that the output has to have."""
        mode = node.attr("auto_pad", "NOTSET")
        is_same = mode in ("SAME_UPPER", "SAME_LOWER")
        if not is_same and not node.attr("output_shape"):
            pads = node.attr("pads") if mode == "NOTSET" else None
            return int(pads[axis]) if pads else 0
        reach = (meeting.kernel - 1) * meeting.dilation + 1
        extra = node.attr("output_padding")
        full = meeting.stride * (self.x.shape[2 + axis] - 1) + reach + (extra[axis] if extra else 0)
        total = max(0, full - self.outputs[2 + axis])
        return total // 2 if mode == "SAME_UPPER" else total - total // 2

    def nodes(self) -> tuple[Node, ...]:
        products = [
            (parts, self._product(parts))
            for parts in itertools.product(*map(_parts, self.meetings))
        ]
        bias = self.steps.optional(2)
        wide = self.x.dtype.wide

        def element(*at: Index) -> Expr:
            total = const(0, wide)
            for number, (parts, product) in enumerate(products):
                found = product.at(self._place(at, parts), fill=0)
                total = total + found if number else found
            checks = [m.is_met(at[2 + axis] + self.before[axis]) for axis, m in self._axes()]
            total = terms.select(terms.conjunction(checks), total, const(0, wide))
            return total if bias is None else total + bias[at[1]].cast(wide)

        self.steps.map(self.outputs, element, to=0)
        return self.steps.nodes()

    def _place(self, at: Sequence[Index], parts: Sequence[Part]) -> tuple[Index, ...]:
        """Where an output lies in the product of these phases; outside if it is of others."""
        places = [place + self.before[axis] for axis, place in enumerate(at[2:])]
        phases = [
            self.meetings[axis].phase_of(places[axis]) - parts[axis][0] for axis in self.phased
        ]
        turns = [m.turn_of(places[axis]) - self.first_turns[axis] for axis, m in self._axes()]
        return (*phases, *at[:2], *turns)

    def _product(self, parts: Sequence[Part]) -> Value:
        """``[phases..., n, channels, turns...]``"""
        x, weight, groups = self.x, self.weight, self.groups
        per_group, columns = x.shape[1] // groups, weight.shape[1]
        last = [self.outputs[2 + axis] - 1 + before for axis, before in enumerate(self.before)]
        turns = [
            m.turn_of(last[axis]).const - self.first_turns[axis] + 1 for axis, m in self._axes()
        ]
        phases = [parts[axis][1] for axis in self.phased]
        shape = (*phases, *self.outputs[:2], *turns)
        wide, lead = x.dtype.wide, len(phases)

        def product(*at: Index) -> Expr:
            phase = [ix.constant(0)] * len(self.meetings)
            for number, axis in enumerate(self.phased):
                phase[axis] = at[number] + parts[axis][0]
            n, m, *rest = at[lead:]
            rank = len(self.meetings)
            *numbers, channel = rest[rank:]
            inputs, offsets = [], []
            for axis, meeting in self._axes():
                turn = rest[axis] + self.first_turns[axis]
                place, offset = meeting.pair(turn, phase[axis], numbers[axis])
                inputs.append(place)
                offsets.append(offset)
            channel = m // columns * per_group + channel
            element = x.at((n, channel, *inputs), fill=0)
            return element.cast(wide) * weight[(channel, m % columns, *offsets)].cast(wide)

        over = [count for _, _, count in parts]
        roles = product_roles(shape, groups, lead) if per_group > 1 or groups == 1 else None
        return self.steps.fold(comp.SUM, shape, (*over, per_group), product, roles=roles)


def _col2im(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    columns, block = steps.given(0), steps.given(2)
    assert block.known is not None
    kernel = tuple(int(size) for size in block.known)
    rank, outputs = len(kernel), steps.shape()
    strides = node.attr("strides") or (1,) * rank
    dilations = node.attr("dilations") or (1,) * rank
    pads = node.attr("pads") or (0,) * (2 * rank)
    meetings = [Meeting(*sizes) for sizes in zip(kernel, strides, dilations, strict=True)]
    blocks = _blocks(node, graph, kernel, outputs[2:])
    wide = columns.dtype.wide

    def apart(*at: Index) -> Expr:
        offsets, places = at[2 : 2 + rank], at[2 + rank :]
        flat = ix.flatten((at[1], *offsets), _strides((outputs[1], *kernel)))
        return columns[at[0], flat, ix.flatten(places, _strides(blocks))]

    parted = steps.map((*outputs[:2], *kernel, *blocks), apart)

    def reaching(*at: Index) -> Expr:
        offsets, places, checks = [], [], []
        for axis, meeting in enumerate(meetings):
            place = at[2 + axis] + pads[axis]
            turn, phase = meeting.turn_of(place), meeting.phase_of(place)
            position, offset = meeting.pair(turn, phase, at[2 + rank + axis])
            places.append(position)
            offsets.append(offset)
            checks.append(meeting.is_met(place))
        value = parted.at((*at[:2], *offsets, *places), fill=0).cast(wide)
        return terms.select(terms.conjunction(checks), value, const(0, wide))

    steps.fold(comp.SUM, outputs, [meeting.turns for meeting in meetings], reaching, to=0)
    return steps.nodes()


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _blocks(
    node: Node, graph: Graph, kernel: Sequence[int], image: Sequence[int]
) -> tuple[int, ...]:
    """How many blocks there are along each axis."""
    rank = len(kernel)
    strides = node.attr("strides") or (1,) * rank
    dilations = node.attr("dilations") or (1,) * rank
    pads = node.attr("pads") or (0,) * (2 * rank)
    return tuple(
        (image[axis] + pads[axis] + pads[rank + axis] - dilations[axis] * (kernel[axis] - 1) - 1)
        // strides[axis]
        + 1
        for axis in range(rank)
    )


def _refuse_col2im(node: Node, graph: Graph) -> tuple[str, str] | None:
    kernel = [int(size) for size in graph.constants[node.inputs[2]]]
    image = graph.tensor(node.outputs[0]).shape[2:]
    found = graph.tensor(node.inputs[0]).shape[2]
    wanted = math.prod(_blocks(node, graph, kernel, image))
    if found == wanted:
        return None
    return (
        f"the image has {wanted} blocks, the input {found}",
        "check image_shape, pads and strides",
    )


def _image_shape(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    return (exactly(*graph.tensor(node.outputs[0]).shape[2:]),)


def _refuse_transposed(node: Node, graph: Graph) -> tuple[str, str] | None:
    source, weight = (graph.tensor(name).shape for name in node.inputs[:2])
    if len(source) == len(weight) and source[1] == weight[0]:
        return None
    return f"its weight {list(weight)} is not for an input {list(source)}", "check the weight"


register(
    Operator(
        "ConvTranspose",
        lambda node, graph: _Transposition(node, graph).nodes(),
        _refuse_transposed,
    )
)
register(Operator("Col2Im", _col2im, _refuse_col2im, needs={1: _image_shape, 2: untold}))
