"""QuantizeLinear and DequantizeLinear: numbers as small ones, by a scale and a zero point."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Place, Steps
from ramforge.compiler.expressions.terms import Expr, apply, select
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.casts import limits, saturated

Refused = tuple[str, str] | None
Shape = tuple[int, ...]


def quantised(number: Expr, zero: Expr | None, dtype: DType, saturates: bool = True) -> Expr:
    """``saturate(round(number) + zero)``; small floating-point types round as they are cast."""
    if number.dtype is not DType.FLOAT64:
        number = number.cast(DType.FLOAT32)
    offset = None if zero is None else zero.cast(number.dtype)
    if isinstance(zero, terms.Const) and zero.value == 0:
        offset = None
    if dtype.is_float:
        if offset is not None:  # -0 + 0 would be 0
            number = select(offset.equals(0), number, number + offset)
        return saturated(number, dtype) if saturates else number.cast(dtype)
    number = apply("round", number)
    if offset is not None:
        number = number + offset
    if not dtype.is_stored_only:
        return number.cast(dtype)  # which saturates
    least, most = limits(dtype)
    return terms.smaller(terms.larger(number, least), most).cast(dtype)


class _Grain:
    """Which scale, or zero point, an element has: one for all, one along an axis, or blocks."""

    def __init__(self, node: Node, shape: Shape, given: Shape) -> None:
        self.block = node.attr("block_size", 0)
        self._shape = shape
        self._given = given
        axis = node.attr("axis", 1)
        self.axis = 0 if len(shape) == 1 else axis + len(shape) if axis < 0 else axis

    @property
    def is_one(self) -> bool:
        return math.prod(self._given) == 1

    def complaint(self) -> str:
        """What is wrong with the shape; empty if nothing is."""
        if self.is_one:
            return ""
        if not 0 <= self.axis < len(self._shape):
            return f"axis {self.axis} of {len(self._shape)} axes"
        if not self.block:
            wanted: Shape = (self._shape[self.axis],)
        elif self.block < 0:
            return f"block_size is {self.block}"
        else:
            blocks = -(-self._shape[self.axis] // self.block)
            wanted = (*self._shape[: self.axis], blocks, *self._shape[self.axis + 1 :])
        if self._given == wanted:
            return ""
        return f"a scale or zero point has the shape {self._given}, expected {wanted} or ()"

    def places(self, at: Sequence[Index]) -> list[Place]:
        if self.is_one:
            return [0] * len(self._given)
        if not self.block:
            return [at[self.axis]]
        return [
            place // self.block if axis == self.axis else place for axis, place in enumerate(at)
        ]


def _at(steps: Steps, slot: int, at: Sequence[Index]) -> Expr | None:
    """The scale or the zero point of an element, None if the model gives none."""
    value = steps.optional(slot)
    if value is None:
        return None
    grain = _Grain(steps.node, steps.given(0).shape, value.shape)
    return value.at(grain.places(at))


def _refuse_grain(node: Node, graph: Graph) -> Refused:
    shape = graph.tensor(node.inputs[0]).shape
    for name in filter(None, node.inputs[1:3]):
        complaint = _Grain(node, shape, graph.tensor(name).shape).complaint()
        if complaint:
            return complaint, "give one scale, one for each index of axis, or blocks of block_size"
    return None


def _precision(node: Node, x: DType, scale: DType) -> DType:
    """The type that QuantizeLinear divides in."""
    asked = node.attr("precision", 0)
    if asked:
        return {
            onnx.TensorProto.FLOAT: DType.FLOAT32,
            onnx.TensorProto.FLOAT16: DType.FLOAT16,
            onnx.TensorProto.BFLOAT16: DType.BFLOAT16,
            onnx.TensorProto.DOUBLE: DType.FLOAT64,
        }[asked]
    if scale is DType.FLOAT8E8M0:
        return DType.FLOAT32
    return scale if scale.is_float else DType.FLOAT64


def _quantize(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, scale = steps.given(0), steps.given(1)
    kind = _precision(node, x.dtype, scale.dtype)
    saturates = bool(node.attr("saturate", 1))

    def formula(*at: Index) -> Expr:
        step = _at(steps, 1, at)
        assert step is not None
        number = x[at].cast(kind) / step.cast(kind)
        return quantised(number, _at(steps, 2, at), steps.dtype(), saturates)

    steps.map(x.shape, formula, to=0)
    return steps.nodes()


def _refuse_quantize(node: Node, graph: Graph) -> Refused:
    asked = node.attr("precision", 0)
    proto = onnx.TensorProto
    if asked not in (0, proto.FLOAT, proto.FLOAT16, proto.BFLOAT16, proto.DOUBLE):
        return f"precision is element type {asked}", "use float32, float16 or bfloat16"
    return _refuse_grain(node, graph)


def _dequantize(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x = steps.given(0)
    # the difference of two numbers of 32 bits needs more
    kind = DType.FLOAT64 if x.dtype.itemsize == 4 else DType.FLOAT32

    def formula(*at: Index) -> Expr:
        number, zero, step = x[at], _at(steps, 2, at), _at(steps, 1, at)
        assert step is not None
        if zero is not None and not (isinstance(zero, terms.Const) and zero.value == 0):
            number = number.cast(kind) - zero.cast(kind)
        return number.cast(DType.FLOAT32) * step.cast(DType.FLOAT32)

    steps.map(x.shape, formula, to=0)
    return steps.nodes()


register(Operator("QuantizeLinear", _quantize, _refuse_quantize))
register(Operator("DequantizeLinear", _dequantize, _refuse_grain))
