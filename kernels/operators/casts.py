"""Cast, CastLike, BitCast: the same numbers, or the same bits, as another type."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.functions import define
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps
from ramforge.compiler.expressions.terms import Expr
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register

# What is added to a fraction, in parts of 2^-23, before it is cut off.
_SHARES = {"up": 0x7FFFFF, "nearest": 0x400000, "down": 0}


def _power_of_two(share: int) -> Callable[..., Any]:
    def compute(x: Any, dtype: np.dtype[Any]) -> Any:
        bits = np.asarray(x, np.float32).view(np.uint32)
        wide = np.where(bits < 0x800000, (bits << 1) & 0x7FFFFF, bits).astype(np.uint32)
        power = (wide + np.uint32(share)) & np.uint32(0x7F800000)
        power = np.where(power == 0, np.uint32(0x400000), power).astype(np.uint32)
        return np.where(bits > 0x7F800000, x, power.view(np.float32))

    return compute


for _mode, _share in _SHARES.items():
    define(f"power_of_two_{_mode}", f"rf_power_of_two<{_share}u>({{0}})", _power_of_two(_share),
           cost=4, typed=True)  # fmt: skip
define("bits", "rf_bits<{T}>({0})", lambda x, dtype: np.asarray(x).view(dtype), typed=True)


def _facts(dtype: DType) -> Any:
    facts: Any = ml_dtypes  # which has no types for these
    return facts.finfo(dtype.numpy) if dtype.is_float else facts.iinfo(dtype.numpy)


def bit_width(dtype: DType) -> int:
    """How many bits ONNX counts; here all have whole bytes."""
    return 8 if dtype is DType.BOOL else int(_facts(dtype).bits)


def limits(dtype: DType) -> tuple[float, float]:
    """The least and the largest number of a small type."""
    facts = _facts(dtype)
    return float(facts.min), float(facts.max)


def saturated(x: Expr, dtype: DType) -> Expr:
    """A number as a small floating-point type, in which what is too large is the largest."""
    wide = x if x.dtype is DType.FLOAT64 else x.cast(DType.FLOAT32)
    least, most = limits(dtype)
    return terms.smaller(terms.larger(wide, least), most).cast(dtype)


def _power(x: Expr, saturates: bool, mode: str) -> Expr:
    """A number as one that has nothing but an exponent."""
    wide = x.cast(DType.FLOAT32)
    low, high = 2.0**-127, 2.0**127
    if saturates:
        wide = terms.smaller(terms.larger(wide, low), high)
    else:
        wide = terms.select(
            (wide >= low) & (wide <= high), wide, terms.const(math.nan, DType.FLOAT32)
        )
    rounded = terms.convert(f"power_of_two_{mode}", DType.FLOAT32, wide)
    return rounded.cast(DType.FLOAT8E8M0)


def converted(x: Expr, dtype: DType, saturates: bool = True, mode: str = "up") -> Expr:
    """As Cast says it: only numbers of a byte have these rules, all others are as C casts them."""
    if x.dtype is dtype:
        return x
    if dtype is DType.FLOAT8E8M0:
        return _power(x, saturates, mode)
    if dtype.is_float and dtype.itemsize == 1 and saturates:
        return saturated(x, dtype)
    return x.cast(dtype)


def _cast(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x = steps.given(0)
    saturates, mode = bool(node.attr("saturate", 1)), node.attr("round_mode", "up")
    steps.map(x.shape, lambda *at: converted(x[at], steps.dtype(), saturates, mode), to=0)
    return steps.nodes()


def _refuse_mode(node: Node, graph: Graph) -> tuple[str, str] | None:
    mode = node.attr("round_mode", "up")
    if mode in _SHARES:
        return None
    return f"round_mode is {mode!r}", f"use one of {', '.join(_SHARES)}"


def _bit_cast(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, dtype = steps.given(0), steps.dtype()

    def formula(*at: Index) -> Expr:
        if x.dtype is dtype:
            return x[at]
        if dtype is DType.BOOL:
            return terms.convert("bits", DType.UINT8, x[at]).cast(dtype)
        return terms.convert("bits", dtype, x[at])

    steps.map(x.shape, formula, to=0)
    return steps.nodes()


def _refuse_widths(node: Node, graph: Graph) -> tuple[str, str] | None:
    old, new = (graph.tensor(name).dtype for name in (node.inputs[0], node.outputs[0]))
    if bit_width(old) == bit_width(new):
        return None
    return (
        f"{old.label} has {bit_width(old)} bits and {new.label} has {bit_width(new)}",
        "BitCast to a type of as many bits, or Cast",
    )


register(Operator("Cast", _cast, _refuse_mode))
register(Operator("CastLike", _cast, _refuse_mode))
register(Operator("BitCast", _bit_cast, _refuse_widths))
