"""Trigonometric and hyperbolic operators, and the activations that are made of exponentials.

An activation is computed as a whole in the type that C computes in, and rounded once.
"""

from __future__ import annotations

import math

import numpy as np

from ramforge.compiler.expressions.functions import define
from ramforge.compiler.expressions.terms import Expr, apply, const, larger, select, smaller
from ramforge.compiler.ir import DType, Node
from ramforge.kernels.operators.pointwise import pointwise, rounded_once, unary

unary("Tan", "tan", "rf_tan({0})", np.tan, 16)
unary("Asin", "asin", "rf_asin({0})", np.arcsin, 16)
unary("Acos", "acos", "rf_acos({0})", np.arccos, 16)
unary("Atan", "atan", "rf_atan({0})", np.arctan, 16)
unary("Sinh", "sinh", "rf_sinh({0})", np.sinh, 20)
unary("Cosh", "cosh", "rf_cosh({0})", np.cosh, 20)
unary("Asinh", "asinh", "rf_asinh({0})", np.arcsinh, 20)
unary("Acosh", "acosh", "rf_acosh({0})", np.arccosh, 20)
unary("Atanh", "atanh", "rf_atanh({0})", np.arctanh, 20)
define("expm1", "rf_expm1({0})", np.expm1, cost=16)
define("log1p", "rf_log1p({0})", np.log1p, cost=16)


def _elu(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments
    return select(x < 0, apply("expm1", x) * node.attr("alpha", 1.0), x)


def _selu(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments
    alpha: float = node.attr("alpha", 1.6732631921768188)
    gamma: float = node.attr("gamma", 1.0507010221481323)
    return select(x < 0, apply("expm1", x) * alpha, x) * gamma


def _celu(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments
    alpha = node.attr("alpha", 1.0)
    return select(x < 0, apply("expm1", x / alpha) * alpha, x)


def softplus(x: Expr) -> Expr:
    """log(exp(x) + 1), without an overflow on the way."""
    return larger(x, 0) + apply("log1p", apply("exp", -apply("abs", x)))


def _softplus(node: Node, arguments: list[Expr]) -> Expr:
    return softplus(arguments[0])


def _mish(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments
    return x * apply("tanh", softplus(x))


def _softsign(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments
    return x / (apply("abs", x) + 1)


def _swish(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments
    return x * apply("sigmoid", x * node.attr("alpha", 1.0))


def _hard_swish(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments
    return x * smaller(larger(x * (1 / 6) + 0.5, 0), 1)


def _thresholded_relu(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments
    return select(x > node.attr("alpha", 1.0), x, const(0, x.dtype))


def _below(x: Expr, limit: float) -> Expr:
    if x.dtype.is_float:
        return x < limit
    limits = np.iinfo(x.dtype.numpy)
    if limits.min < limit <= limits.max:
        return x < math.ceil(limit)
    return const(limit > limits.max, DType.BOOL)


def _above(x: Expr, limit: float) -> Expr:
    if x.dtype.is_float:
        return x > limit
    limits = np.iinfo(x.dtype.numpy)
    if limits.min <= limit < limits.max:
        return x > math.floor(limit)
    return const(limit < limits.min, DType.BOOL)


def _shrink(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments
    lambd, bias = node.attr("lambd", 0.5), node.attr("bias", 0.0)
    below, above = _below(x, -lambd), _above(x, lambd)
    if not x.dtype.is_float and bias.is_integer():
        shift = const(int(bias) % 2 ** (8 * x.dtype.itemsize), DType.UINT64).cast(x.dtype)
    else:
        x = x if x.dtype.is_float else x.cast(DType.FLOAT64)
        shift = const(bias, x.dtype)
    return select(below, x + shift, select(above, x - shift, const(0, x.dtype)))


for _name, _formula in (
    ("Elu", _elu),
    ("Selu", _selu),
    ("Celu", _celu),
    ("Softplus", _softplus),
    ("Mish", _mish),
    ("Softsign", _softsign),
    ("Swish", _swish),
    ("HardSwish", _hard_swish),
    ("ThresholdedRelu", _thresholded_relu),
    ("Shrink", _shrink),
):
    pointwise(_name, rounded_once(_formula))
