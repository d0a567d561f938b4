"""Pointwise operators: a row each. The C text, the NumPy function, and that is all the compiler
needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, broadcast_load, computed
from ramforge.compiler.expressions.functions import boolean, define
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.terms import Expr, apply, cast_to, const
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register

Formula = Callable[[Node, list[Expr]], Expr]


def operand(node: Node, graph: Graph, slot: int, axes: tuple[Index, ...]) -> Expr:
    """An input as NumPy would broadcast it; a constant of one element is a literal."""
    name = node.inputs[slot]
    value = graph.constants.get(name)
    tensor = graph.tensor(name)
    if value is not None and value.size == 1:
        return const(value.reshape(()).item(), tensor.dtype)
    return broadcast_load(slot, tensor, axes)


def pointwise(name: str, formula: Formula) -> None:
    """Register an operator whose output element is ``formula`` of the elements of its inputs."""

    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        output = graph.tensor(node.outputs[0])
        axes = comp.output_axes(output.shape)
        places = comp.positions(axes)
        arguments = [
            operand(node, graph, slot, places) for slot, name in enumerate(node.inputs) if name
        ]
        value = cast_to(formula(node, arguments), output.dtype)
        return (computed(node, Computation(axes, value)),)

    register(Operator(name, express))


def _fixed(function: str) -> Formula:
    return lambda node, arguments: apply(function, *arguments)


def rounded_once(formula: Formula) -> Formula:
    """The formula in the type that C computes in, rounded to the output's type at the end."""
    return lambda node, arguments: formula(node, [_wide(argument) for argument in arguments])


def _wide(x: Expr) -> Expr:
    if isinstance(x, terms.Const):
        return const(x.value, x.dtype.wide)
    return cast_to(x, x.dtype.wide)


def unary(name: str, function: str, c: str, numpy: Callable[..., Any], cost: int = 1) -> None:
    define(function, c, numpy, cost=cost)
    pointwise(name, _fixed(function))


def comparison(name: str, function: str, c: str, numpy: Callable[..., Any]) -> None:
    define(function, c, numpy, boolean)
    pointwise(name, _fixed(function))


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


unary("Relu", "relu", "rf_relu({0})", lambda x: np.maximum(x, 0))
unary("Abs", "abs", "rf_abs({0})", np.abs)
unary("Neg", "neg", "(-{0})", np.negative)
unary("Exp", "exp", "rf_exp({0})", np.exp, 12)
unary("Log", "log", "rf_log({0})", np.log, 12)
unary("Sqrt", "sqrt", "rf_sqrt({0})", np.sqrt, 4)
unary("Reciprocal", "reciprocal", "(1 / {0})", lambda x: 1 / x, 4)
unary("Tanh", "tanh", "rf_tanh({0})", np.tanh, 20)
unary("Sigmoid", "sigmoid", "rf_sigmoid({0})", _sigmoid, 16)
unary("Erf", "erf", "rf_erf({0})", np.vectorize(math.erf, otypes=[float]), 16)
unary("Floor", "floor", "rf_floor({0})", np.floor)
unary("Ceil", "ceil", "rf_ceil({0})", np.ceil)
unary("Round", "round", "rf_round({0})", np.rint)
unary("Sin", "sin", "rf_sin({0})", np.sin, 12)
unary("Cos", "cos", "rf_cos({0})", np.cos, 12)
unary("Sign", "sign", "rf_sign({0})", np.sign)
unary("Not", "not", "(!{0})", np.logical_not)

comparison("Equal", "equal", "({0} == {1})", np.equal)
comparison("Greater", "greater", "({0} > {1})", np.greater)
comparison("GreaterOrEqual", "greater_equal", "({0} >= {1})", np.greater_equal)
comparison("Or", "or", "({0} || {1})", np.logical_or)
comparison("Xor", "xor", "({0} != {1})", np.logical_xor)
comparison("IsNaN", "isnan", "({0} != {0})", np.isnan)
pointwise("Less", _fixed("less"))
pointwise("LessOrEqual", _fixed("less_equal"))
pointwise("And", _fixed("and"))

define("divide", "rf_divide({0}, {1})", lambda a, b: _divide(a, b), cost=4)
define("power", "rf_pow({0}, {1})", np.power, cost=20)
define("int_power", "rf_int_pow({1}, {0})", lambda n, x: _int_power(x, n), cost=8)
for _name, _function in (("Add", "add"), ("Sub", "sub"), ("Mul", "mul"), ("Div", "divide")):
    pointwise(_name, _fixed(_function))


def _divide(a: Any, b: Any) -> Any:
    if np.issubdtype(np.asarray(a).dtype, np.floating):
        return np.divide(a, b)
    b = np.asarray(b)
    quotient = a // np.where(b == 0, np.ones_like(b), b)
    up = (quotient * b != a) & (quotient < 0)  # NumPy rounds down, C towards zero
    return np.where(b == 0, np.zeros_like(quotient), quotient + up.astype(quotient.dtype))


def _int_power(base: Any, exponent: Any) -> Any:
    """As ``rf_int_pow``: a negative exponent gives what an integer can hold of 1 / x^n."""
    base, exponent = np.broadcast_arrays(base, exponent)
    square, left = base, np.where(exponent < 0, exponent % 2, exponent)
    power = np.ones_like(base)
    while np.any(left):
        power = np.where(left % 2 == 1, power * square, power)
        square, left = square * square, left // 2
    return np.where((exponent < 0) & (np.abs(base) != 1), np.zeros_like(power), power)


def _fold(function: str) -> Formula:
    def formula(node: Node, arguments: list[Expr]) -> Expr:
        result = arguments[0]
        for argument in arguments[1:]:
            result = apply(function, result, argument)
        return result

    return formula


pointwise("Sum", rounded_once(_fold("add")))
pointwise("Max", _fold("max"))
pointwise("Min", _fold("min"))


def _mean(node: Node, arguments: list[Expr]) -> Expr:
    return _fold("add")(node, arguments) / len(arguments)


def _power(node: Node, arguments: list[Expr]) -> Expr:
    base, exponent = arguments
    if isinstance(exponent, terms.Const) and exponent.value == 2:
        return base * base
    if isinstance(exponent, terms.Const) and exponent.value == 0.5 and base.dtype.is_float:
        root = apply("sqrt", base) + 0.0  # of -0 it is 0
        return terms.select(base.equals(-math.inf), const(math.inf, base.dtype), root)
    if not base.dtype.is_float and not exponent.dtype.is_float:
        return apply("int_power", exponent, base)
    is_double = DType.FLOAT64 in (base.dtype, exponent.dtype) or not base.dtype.is_float
    kind = DType.FLOAT64 if is_double else DType.FLOAT32
    return apply("power", cast_to(base, kind), cast_to(exponent, kind))


def _clip(node: Node, arguments: list[Expr]) -> Expr:
    present = iter(arguments)
    result = next(present)
    for slot, function in ((1, "max"), (2, "min")):
        if len(node.inputs) > slot and node.inputs[slot]:
            result = apply(function, result, next(present))
        elif result.dtype.is_float:  # an absent bound is the last finite number
            limits = ml_dtypes.finfo(result.dtype.numpy)  # type: ignore[no-untyped-call]
            bound = float(limits.min if slot == 1 else limits.max)
            result = apply(function, result, const(bound, result.dtype))
    return result


def _leaky_relu(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments
    slope = const(node.attr("alpha", 0.01), x.dtype)
    return terms.select(apply("less", x, const(0, x.dtype)), apply("mul", x, slope), x)


def _prelu(node: Node, arguments: list[Expr]) -> Expr:
    x, slope = arguments
    return terms.select(apply("less", x, const(0, x.dtype)), apply("mul", x, slope), x)


def _hard_sigmoid(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments
    scaled = apply("mul", x, const(node.attr("alpha", 0.2), x.dtype))
    line = apply("add", scaled, const(node.attr("beta", 0.5), x.dtype))
    return apply("min", apply("max", line, const(0, x.dtype)), const(1, x.dtype))


def _gelu(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments

    def number(value: float) -> Expr:
        return const(value, x.dtype)

    half = apply("mul", x, number(0.5))
    if node.attr("approximate", "none") == "tanh":
        cube = apply("mul", apply("mul", x, x), x)
        inner = apply("add", x, apply("mul", cube, number(0.044715)))
        curve = apply("tanh", apply("mul", inner, number(math.sqrt(2 / math.pi))))
    else:
        curve = apply("erf", apply("mul", x, number(math.sqrt(0.5))))
    return apply("mul", half, apply("add", curve, number(1)))


def _is_infinite(node: Node, arguments: list[Expr]) -> Expr:
    (x,) = arguments
    above = x.equals(math.inf) if node.attr("detect_positive", 1) else const(False, DType.BOOL)
    below = x.equals(-math.inf) if node.attr("detect_negative", 1) else const(False, DType.BOOL)
    return above | below


def _same(node: Node, arguments: list[Expr]) -> Expr:
    return arguments[0]


def _where(node: Node, arguments: list[Expr]) -> Expr:
    return terms.select(*arguments)


pointwise("Mean", rounded_once(_mean))
pointwise("Pow", rounded_once(_power))
pointwise("Clip", _clip)
pointwise("LeakyRelu", rounded_once(_leaky_relu))
pointwise("PRelu", rounded_once(_prelu))
pointwise("HardSigmoid", rounded_once(_hard_sigmoid))
pointwise("Gelu", rounded_once(_gelu))
pointwise("IsInf", rounded_once(_is_infinite))
pointwise("Where", _where)
pointwise("Identity", _same)
