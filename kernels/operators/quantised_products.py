"""Matrix products and convolutions of quantised numbers.

Those of bytes are products of the bytes as they are stored, for which there are instructions. What
the zero points make of that is put right at the end, for K numbers that are multiplied:

    sum((a - za) * (b - zb)) = sum(a * b) - za * sum(b) - zb * sum(a) + K * za * zb
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Roles
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr
from ramforge.compiler.ir import Array, DType, Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.convolution import product_roles
from ramforge.kernels.operators.quantisation import quantised
from ramforge.kernels.operators.window import Window

Finish = Callable[..., Expr]
Refused = tuple[str, str] | None
Shape = tuple[int, ...]

_BYTES = (DType.INT8, DType.UINT8)


def _less(number: Expr, zero: Expr | None) -> Expr:
    """A number less its zero point, both in a type that has room for that."""
    if zero is None or (isinstance(zero, terms.Const) and zero.value == 0):
        return number
    return number - zero.cast(number.dtype)


def _is_nothing(zero: Value | None) -> bool:
    """Whether a zero point is known to be 0."""
    return zero is None or (zero.known is not None and not np.any(zero.known))


def _shifted(
    steps: Steps, value: Value, zero: Value | None, spread: Callable[[Array], Array]
) -> tuple[Value, Value | None]:
    """Known numbers less their known zero point, if bytes can hold that, and no zero point."""
    if _is_nothing(zero):
        return value, None
    assert zero is not None
    if value.known is None or zero.known is None:
        return value, zero
    moved = value.known.astype(np.int32) - spread(zero.known.astype(np.int32))
    limits = np.iinfo(np.int8)
    if moved.size and not (moved.min() >= limits.min and moved.max() <= limits.max):
        return value, zero
    return steps.constant(moved.astype(np.int8)), None


def _one(value: Value | None) -> Expr | None:
    """What belongs to a whole tensor."""
    return None if value is None else value.at([0] * value.rank)


class _MatMul:
    """The sum of products of two operands. Its slots are those of each operand and its zero
    point.
    """

    def __init__(self, steps: Steps, left: tuple[int, int], right: tuple[int, int]) -> None:
        self._steps = steps
        self._a, self._a_zero = steps.given(left[0]), steps.optional(left[1])
        self._b, self._b_zero = steps.given(right[0]), steps.optional(right[1])
        is_float = self._a.dtype.is_float or self._b.dtype.is_float
        self._kind = DType.FLOAT32 if is_float else DType.INT32

    def add(self, finish: Finish | None = None) -> None:
        if self._a.dtype in _BYTES and self._b.dtype in _BYTES:
            return self._add_bytes(finish)

        def formula(*at: Index) -> Expr:
            out, deep = at[:-1], at[-1]
            batch, row, column = self._parts(out)
            a = self._a.spread([*batch, *row, deep]).cast(self._kind)
            b = self._b.spread([*batch, deep, *column]).cast(self._kind)
            return _less(a, self.of_row(self._a_zero, out)) * _less(
                b, self.of_column(self._b_zero, out)
            )

        depth = self._a.shape[-1]
        self._steps.fold(comp.SUM, self._steps.shape(), (depth,), formula, finish, to=0)

    def _add_bytes(self, finish: Finish | None) -> None:
        """The product of bytes, and what puts it right."""
        steps, a, a_zero = self._steps, self._a, self._a_zero
        if _is_nothing(a_zero):
            a_zero = None
        b, b_zero = _shifted(steps, self._b, self._b_zero, lambda zero: zero)
        depth = a.shape[-1]
        of_columns = None if a_zero is None else self._column_sums(b)
        of_rows = None
        if b_zero is not None:
            of_rows = steps.fold(
                comp.SUM, a.shape[:-1], (depth,), lambda *at: a[at].cast(DType.INT32)
            )

        def left(*at: Index) -> Expr:
            batch, row, _ = self._parts(at[:-1])
            return a.spread([*batch, *row, at[-1]]).cast(DType.INT32)

        def right(*at: Index) -> Expr:
            batch, _, column = self._parts(at[:-1])
            return b.spread([*batch, at[-1], *column]).cast(DType.INT32)

        def put_right(total: Expr, *out: Index) -> Expr:
            batch, row, column = self._parts(out)
            row_zero, column_zero = self.of_row(a_zero, out), self.of_column(b_zero, out)
            if row_zero is not None and of_columns is not None:
                sums = of_columns.spread([*batch, *column])
                total = total - row_zero.cast(DType.INT32) * sums
            if column_zero is not None and of_rows is not None:
                rest = of_rows.spread([*batch, *row])
                if row_zero is not None:
                    rest = rest - row_zero.cast(DType.INT32) * depth
                total = total - column_zero.cast(DType.INT32) * rest
            return total if finish is None else finish(total, *out)

        self._contract(left, right, put_right)

    def _contract(self, left: Finish, right: Finish, finish: Finish) -> None:
        shape, depth = self._steps.shape(), self._a.shape[-1]
        columns = (len(shape) - 1,) if self._b.rank > 1 else ()
        first = len(shape) - len(columns) - (self._a.rank > 1)
        if self._b.rank <= 2:  # one for the whole batch: the batch is only more rows
            first = 0
        rows = tuple(range(first, len(shape) - len(columns)))
        self._steps.contract(shape, (depth,), rows, columns, left, right, finish, to=0)

    def _column_sums(self, b: Value) -> Value:
        """The sum of each column of the right operand."""
        lead, width = b.shape[:-2], b.shape[-1:] if b.rank > 1 else ()
        depth = self._a.shape[-1]
        if b.known is not None:
            along = -2 if b.rank > 1 else -1
            return self._steps.constant(b.known.sum(axis=along, dtype=np.int32))

        def formula(*at: Index) -> Expr:
            return b[(*at[: len(lead)], at[-1], *at[len(lead) : -1])].cast(DType.INT32)

        return self._steps.fold(comp.SUM, (*lead, *width), (depth,), formula)

    def of_row(self, value: Value | None, out: Sequence[Index]) -> Expr | None:
        """A scale or zero point of the left operand, which may be one for each row."""
        batch, row, _ = self._parts(out)
        if value is None or value.size == 1:
            return _one(value)
        return value[tuple(row)] if value.rank == 1 else value.spread([*batch, *row, 0])

    def of_column(self, value: Value | None, out: Sequence[Index]) -> Expr | None:
        """A scale or zero point of the right operand, which may be one for each column."""
        batch, _, column = self._parts(out)
        if value is None or value.size == 1:
            return _one(value)
        return value[tuple(column)] if value.rank == 1 else value.spread([*batch, 0, *column])

    def _parts(self, out: Sequence[Index]) -> tuple[Sequence[Index], ...]:
        """The batch, the row and the column of an output position; a vector has none."""
        end = len(out) - (self._b.rank > 1)
        start = end - (self._a.rank > 1)
        return out[:start], out[start:end], out[end:]


def _refuse_shapes(node: Node, graph: Graph, slots: Sequence[int], *allowed: Shape) -> Refused:
    for slot in slots:
        if slot >= len(node.inputs) or not node.inputs[slot]:
            continue
        tensor = graph.tensor(node.inputs[slot])
        if tensor.size != 1 and tensor.shape not in allowed:
            wanted = " or ".join(map(str, ((), *allowed)))
            return (
                f"input {tensor.name!r} has the shape {tensor.shape}, expected {wanted}",
                "export the model with one scale and zero point for each tensor",
            )
    return None


def _refuse_rows(node: Node, graph: Graph, slot: int, others: Sequence[int]) -> Refused:
    shape = graph.tensor(node.inputs[slot]).shape
    if len(shape) < 2:
        return _refuse_shapes(node, graph, others)
    return _refuse_shapes(node, graph, others, shape[-2:-1], (*shape[:-1], 1))


def _refuse_columns(node: Node, graph: Graph, slot: int, others: Sequence[int]) -> Refused:
    shape = graph.tensor(node.inputs[slot]).shape
    if len(shape) < 2:
        return _refuse_shapes(node, graph, others)
    return _refuse_shapes(node, graph, others, shape[-1:], (*shape[:-2], 1, shape[-1]))


def _matmul_integer(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    _MatMul(steps, (0, 2), (1, 3)).add()
    return steps.nodes()


def _refuse_matmul_integer(node: Node, graph: Graph) -> Refused:
    return _refuse_rows(node, graph, 0, (2,)) or _refuse_columns(node, graph, 1, (3,))


def _qlinear_matmul(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    product = _MatMul(steps, (0, 2), (3, 5))

    def finish(total: Expr, *out: Index) -> Expr:
        left = product.of_row(steps.given(1), out)
        right = product.of_column(steps.given(4), out)
        return _requantised(total, (left, right, _one(steps.given(6))), _one(steps.given(7)), steps)

    product.add(finish)
    return steps.nodes()


def _refuse_qlinear_matmul(node: Node, graph: Graph) -> Refused:
    return (
        _refuse_rows(node, graph, 0, (1, 2))
        or _refuse_columns(node, graph, 3, (4, 5))
        or _refuse_shapes(node, graph, (6, 7))
    )


def _requantised(
    total: Expr, scales: tuple[Expr | None, ...], zero: Expr | None, steps: Steps
) -> Expr:
    """A sum of products of two scales as numbers of a third."""
    left, right, scale = (scale.cast(DType.FLOAT32) for scale in scales if scale is not None)
    # not in floats: they do not hold every sum of 32 bits
    number = total.cast(DType.FLOAT64) * (left * right / scale).cast(DType.FLOAT64)
    return quantised(number, zero, steps.dtype())


def _convolve(
    steps: Steps,
    source: tuple[int, int],
    kernel: tuple[int, int],
    finish: Finish | None = None,
) -> None:
    """Add the sum of products of a convolution; zero points are those of the operands."""
    x, zero = steps.given(source[0]), steps.optional(source[1])
    w, w_zeros = steps.given(kernel[0]), steps.optional(kernel[1])
    w, w_zeros = _shifted(steps, w, w_zeros, lambda zero: zero.reshape(-1, *[1] * (w.rank - 1)))
    shape, groups = steps.shape(), steps.node.attr("group", 1)
    outputs = shape[1] // groups
    window = Window(steps.node, w.shape[2:], x.shape[2:], shape[2:])
    is_padded = any((*window.before, *window.after))
    is_known = zero is None or zero.known is not None  # and so is what padding counts as
    if w_zeros is None and (is_known or not is_padded) and (groups == 1 or w.shape[1] > 1):
        _convolve_bytes(steps, x, zero, w, window, finish)
        return
    x_zero = _one(zero)

    def formula(*at: Index) -> Expr:
        out, offsets, channel = at[: len(shape)], at[len(shape) : -1], at[-1]
        places = window.positions(out[2:], offsets)
        inputs = (out[0], out[1] // outputs * w.shape[1] + channel, *places)
        number = x.at(inputs, fill=0).cast(DType.INT32)
        if x_zero is not None:  # what is padded is 0 once the zero point is gone
            sizes = zip(places, x.shape[2:], strict=True)
            known = terms.conjunction([terms.inside(place, 0, size) for place, size in sizes])
            number = terms.select(known, _less(number, x_zero), terms.const(0, DType.INT32))
        weight = w[(out[1], channel, *offsets)].cast(DType.INT32)
        return number * _less(weight, _of_output(w_zeros, out[1]))

    over = (*w.shape[2:], w.shape[1])
    steps.fold(comp.SUM, shape, over, formula, finish, to=0)


def _convolve_bytes(
    steps: Steps,
    x: Value,
    zero: Value | None,
    w: Value,
    window: Window,
    finish: Finish | None,
) -> None:
    """As a matrix product of weights without zero points; padding counts as the zero point of x."""
    shape, groups = steps.shape(), steps.node.attr("group", 1)
    outputs, rank = shape[1] // groups, len(shape)
    fill = 0 if zero is None or zero.known is None else int(zero.known.reshape(()))
    sums = None
    if not _is_nothing(zero):
        sums = _sums_of_outputs(steps, w)

    def product(*at: Index) -> Expr:
        *offsets, channel = at[rank:]
        places = window.positions(at[2:rank], offsets)
        inputs = (at[0], at[1] // outputs * w.shape[1] + channel, *places)
        number = x.at(inputs, fill=fill).cast(DType.INT32)
        return number * w[(at[1], channel, *offsets)].cast(DType.INT32)

    def put_right(total: Expr, *out: Index) -> Expr:
        x_zero = _one(zero)
        if x_zero is not None and sums is not None:
            total = total - x_zero.cast(DType.INT32) * sums[out[1]]
        return total if finish is None else finish(total, *out)

    over = (*w.shape[2:], w.shape[1])
    roles: Roles = product_roles(shape, groups)
    steps.fold(comp.SUM, shape, over, product, put_right, to=0, roles=roles)


def _sums_of_outputs(steps: Steps, w: Value) -> Value:
    """The sum of the weights of each output channel."""
    if w.known is not None:
        return steps.constant(w.known.reshape(w.shape[0], -1).sum(axis=1, dtype=np.int32))
    return steps.fold(comp.SUM, w.shape[:1], w.shape[1:], lambda *at: w[at].cast(DType.INT32))


def _of_output(value: Value | None, channel: Index) -> Expr | None:
    """A scale or zero point of the weights, which may be one for each output channel."""
    if value is None or value.size == 1:
        return _one(value)
    return value[channel]


def _conv_integer(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    _convolve(steps, (0, 2), (1, 3))
    return steps.nodes()


def _refuse_conv_integer(node: Node, graph: Graph) -> Refused:
    channels = graph.tensor(node.inputs[1]).shape[:1]
    return _refuse_shapes(node, graph, (2,)) or _refuse_shapes(node, graph, (3,), channels)


def _qlinear_conv(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    bias = steps.optional(8)

    def finish(total: Expr, *out: Index) -> Expr:
        if bias is not None:
            total = total + bias[out[1]]
        scales = (_one(steps.given(1)), _of_output(steps.given(4), out[1]), _one(steps.given(6)))
        return _requantised(total, scales, _one(steps.given(7)), steps)

    _convolve(steps, (0, 2), (3, 5), finish)
    return steps.nodes()


def _refuse_qlinear_conv(node: Node, graph: Graph) -> Refused:
    channels = graph.tensor(node.inputs[3]).shape[:1]
    return _refuse_shapes(node, graph, (1, 2, 6, 7)) or _refuse_shapes(
        node, graph, (4, 5), channels
    )


register(Operator("MatMulInteger", _matmul_integer, _refuse_matmul_integer))
register(Operator("QLinearMatMul", _qlinear_matmul, _refuse_qlinear_matmul))
register(Operator("ConvInteger", _conv_integer, _refuse_conv_integer))
register(Operator("QLinearConv", _qlinear_conv, _refuse_qlinear_conv))
