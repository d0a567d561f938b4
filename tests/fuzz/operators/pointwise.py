"""Operators that work element by element, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from onnx import helper

from tests.fuzz.maker import (
    ANY,
    BOOL,
    F16,
    F32,
    F64,
    FLOATS,
    I32,
    I64,
    INTEGERS,
    NUMBERS,
    SIGNED,
    UNSIGNED,
    Kind,
    Maker,
    Unsuitable,
    Value,
    is_float,
)

Options = dict[str, Sequence[Any]]

_FLOAT = (
    *("Exp", "Log", "Sqrt", "Reciprocal", "Tanh", "Sigmoid", "Erf", "Sin", "Cos", "Tan", "Asin"),
    *("Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "HardSwish", "Mish", "Softplus"),
    *("Softsign",),
)
_EXACT: dict[str, Sequence[Kind]] = {
    **dict.fromkeys(("Floor", "Ceil", "Round", "IsNaN"), FLOATS),
    **dict.fromkeys(("Neg", "Relu"), (*FLOATS, *SIGNED)),
    **dict.fromkeys(("Abs", "Sign"), NUMBERS),
    "Not": (BOOL,),
    "Identity": ANY,
    "BitwiseNot": INTEGERS,
}
_WITH_NUMBERS: dict[str, Options] = {
    "LeakyRelu": {"alpha": (0.1, 0.0, -0.5)},
    "Elu": {"alpha": (1.0, 0.3)},
    "Celu": {"alpha": (1.0, 0.3, 2.0)},
    "Selu": {"alpha": (1.5,), "gamma": (1.1, 0.5)},
    "HardSigmoid": {"alpha": (0.2, 0.7), "beta": (0.5, 0.1)},
    "ThresholdedRelu": {"alpha": (1.0, 0.2, -0.5)},
    "Shrink": {"lambd": (0.5, 0.1), "bias": (0.0, 0.2)},
    "Swish": {"alpha": (1.0, 0.5)},
    "Gelu": {"approximate": ("none", "tanh")},
    "IsInf": {"detect_negative": (0, 1), "detect_positive": (0, 1)},
}
_TO_BOOL = {
    **dict.fromkeys(("Equal",), ANY),
    **dict.fromkeys(("Less", "LessOrEqual", "Greater", "GreaterOrEqual"), NUMBERS),
}
_BITS = ("BitwiseAnd", "BitwiseOr", "BitwiseXor")


def options(maker: Maker, choices: Options) -> dict[str, Any]:
    """Some of these attributes; an absent one has its default."""
    return {name: maker.pick(found) for name, found in choices.items() if maker.chance(70)}


def _unary(op: str, kinds: Sequence[Kind], exact: bool, maker: Maker) -> None:
    maker.node(op, maker.some(kinds), exact=exact)


def _with_numbers(op: str, choices: Options, maker: Maker) -> None:
    kinds = (F32, F64, F16) if op != "Celu" else (F32,)
    maker.node(op, maker.some(kinds), exact=op == "IsInf", **options(maker, choices))


def _pair(maker: Maker, kinds: Sequence[Kind], style: str = "") -> tuple[Value, Value]:
    first = maker.some(kinds)
    second = maker.partner(first, style=style)
    return (second, first) if not style and maker.chance(50) else (first, second)


def _binary(op: str, kinds: Sequence[Kind], exact: bool, maker: Maker) -> None:
    first, second = _pair(maker, kinds)
    maker.node(op, first, second, exact=exact or not is_float(first.kind))


def _divide(maker: Maker) -> None:
    """Integers by numbers above 0: ONNX leaves open what x / 0 is."""
    kind = maker.pick(NUMBERS)
    first, second = _pair(maker, (kind,), "" if is_float(kind) else "positive")
    maker.node("Div", first, second, exact=not is_float(kind))


def _modulo(maker: Maker) -> None:
    kind = maker.pick(NUMBERS)
    first = maker.some((kind,), style="small")
    second = maker.partner(first, style="positive")
    fmod = 1 if is_float(kind) else maker.pick((0, 1))
    maker.node("Mod", first, second, fmod=fmod)


def _power(maker: Maker) -> None:
    kind = maker.pick((F32, F32, F64, I32, I64))
    if is_float(kind):
        base = maker.some((kind,), style=maker.pick(("positive", "small")))
        maker.node("Pow", base, maker.partner(base, maker.pick((kind, I32, I64)), "small"))
    else:
        base = maker.some((kind,), style="small")
        exponent = maker.partner(base, maker.pick((I32, I64)), "positive")
        if exponent.array.max(initial=0) > 7:
            raise Unsuitable
        maker.node("Pow", base, exponent)


def _several(op: str, kinds: Sequence[Kind], maker: Maker) -> None:
    kind = maker.pick(kinds)
    first = maker.some((kind,))
    others = [maker.partner(first) for _ in range(maker.integer(0, 2))]
    is_exact = op in ("Max", "Min") or not is_float(kind)
    maker.node(op, first, *others, exact=is_exact)


def _prelu(maker: Maker) -> None:
    first = maker.some((*FLOATS, I32, I64))
    shape = [1 if maker.chance(30) else size for size in first.shape]
    cut = maker.integer(0, len(shape))
    maker.node("PRelu", first, maker.fresh(first.kind, tuple(shape[cut:]), "unit"))


def _where(maker: Maker) -> None:
    first = maker.some(ANY)
    condition = maker.partner(first, BOOL)
    maker.node("Where", condition, first, maker.partner(first), exact=True)


def _clip(maker: Maker) -> None:
    value = maker.some(NUMBERS)
    bounds = sorted(maker.array(value.kind, (2,), "small").tolist())
    low, high = (
        maker.pick((maker.known, maker.given))(np.array(bound, value.kind))
        if maker.chance(75)
        else None
        for bound in bounds
    )
    maker.node("Clip", value, low, high, exact=True)


def _shift(maker: Maker) -> None:
    value = maker.some(UNSIGNED)
    places = maker.partner(value, style="positive")
    maker.node("BitShift", value, places, direction=maker.pick(("LEFT", "RIGHT")), exact=True)


def _fits(target: Kind, value: Value) -> bool:
    """Whether the conversion is defined: numbers that the target has."""
    if is_float(target) or target == BOOL or not is_float(value.kind):
        return True
    wide = value.array.astype(np.float64)
    limits = np.iinfo(target)
    inside = np.isfinite(wide) & (wide > float(limits.min) - 0.5) & (wide < float(limits.max) / 2)
    return bool(np.all(inside))


def _cast(maker: Maker) -> None:
    target = maker.pick((*ANY, F32))
    value = maker.some(ANY, where=partial(_fits, target))
    to = helper.np_dtype_to_tensor_dtype(target)
    maker.node("Cast", value, to=to, exact=not is_float(target))


def _cast_like(maker: Maker) -> None:
    target = maker.some(ANY)
    value = maker.some(ANY, where=partial(_fits, target.kind))
    maker.node("CastLike", value, target, exact=not is_float(target.kind))


def _dropout(maker: Maker) -> None:
    value = maker.some(FLOATS)
    ratio = maker.known(0.5, np.float32) if maker.chance(50) else None
    maker.node("Dropout", value, ratio, outputs=maker.pick((1, 2)), exact=True)


def _quantize(maker: Maker) -> None:
    value = maker.some((F32,), style="small")
    scale = maker.fresh(F32, (), "positive")
    zero = maker.fresh(maker.pick((np.dtype("int8"), np.dtype("uint8"))), (), "positive")
    maker.node("QuantizeLinear", value, scale, zero)


def _dequantize(maker: Maker) -> None:
    value = maker.some((np.dtype("int8"), np.dtype("uint8"), I32))
    scale = maker.fresh(F32, (), "positive")
    zero = maker.fresh(value.kind, (), "positive")
    maker.node("DequantizeLinear", value, scale, zero if value.kind != I32 else None)


GENERATORS: dict[str, Callable[[Maker], object]] = {
    **{op: partial(_unary, op, FLOATS, False) for op in _FLOAT},
    **{op: partial(_unary, op, kinds, True) for op, kinds in _EXACT.items()},
    **{op: partial(_with_numbers, op, choices) for op, choices in _WITH_NUMBERS.items()},
    **{op: partial(_binary, op, NUMBERS, False) for op in ("Add", "Sub", "Mul")},
    **{op: partial(_binary, op, kinds, True) for op, kinds in _TO_BOOL.items()},
    **{op: partial(_binary, op, (BOOL,), True) for op in ("And", "Or", "Xor")},
    **{op: partial(_binary, op, INTEGERS, True) for op in _BITS},
    **{op: partial(_several, op, NUMBERS) for op in ("Max", "Min")},
    **{op: partial(_several, op, FLOATS) for op in ("Sum", "Mean")},
    "Div": _divide,
    "Mod": _modulo,
    "Pow": _power,
    "PRelu": _prelu,
    "Where": _where,
    "Clip": _clip,
    "BitShift": _shift,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Dropout": _dropout,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
