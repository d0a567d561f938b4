"""Remainders, shifts and bits. ``Mod`` is for floating-point numbers too."""

from __future__ import annotations

from typing import Any

import numpy as np

from ramforge.compiler.expressions.functions import define
from ramforge.compiler.expressions.terms import Expr, apply
from ramforge.compiler.ir import Node
from ramforge.kernels.operators.pointwise import Formula, pointwise


def _shift_left(x: Any, count: Any) -> Any:
    count, all_of_it = _counted(count, x)
    return np.where(all_of_it, x.dtype.type(0), np.left_shift(x, count))


def _shift_right(x: Any, count: Any) -> Any:
    count, all_of_it = _counted(count, x)
    return np.where(all_of_it, np.where(x < 0, -1, 0).astype(x.dtype), np.right_shift(x, count))


def _counted(count: Any, x: Any) -> tuple[Any, Any]:
    """The counts that NumPy knows, and where everything is shifted out."""
    all_of_it = (count < 0) | (count >= 8 * x.dtype.itemsize)
    return np.where(all_of_it, 0, count).astype(x.dtype), all_of_it


define("remainder", "rf_remainder({0}, {1})", np.fmod, cost=8)
define("modulo", "rf_modulo({0}, {1})", np.mod, cost=10)
define("shift_left", "rf_shift_left({0}, {1})", _shift_left)
define("shift_right", "rf_shift_right({0}, {1})", _shift_right)
define("bit_and", "({0} & {1})", np.bitwise_and)
define("bit_or", "({0} | {1})", np.bitwise_or)
define("bit_xor", "({0} ^ {1})", np.bitwise_xor)
define("bit_not", "(~{0})", np.bitwise_not)


def _mod(node: Node, arguments: list[Expr]) -> Expr:
    return apply("remainder" if node.attr("fmod", 0) else "modulo", *arguments)


def _shift(node: Node, arguments: list[Expr]) -> Expr:
    return apply("shift_left" if node.attr("direction") == "LEFT" else "shift_right", *arguments)


def _bits(function: str) -> Formula:
    return lambda node, arguments: apply(function, *arguments)


pointwise("Mod", _mod)
pointwise("BitShift", _shift)
pointwise("BitwiseAnd", _bits("bit_and"))
pointwise("BitwiseOr", _bits("bit_or"))
pointwise("BitwiseXor", _bits("bit_xor"))
pointwise("BitwiseNot", _bits("bit_not"))
