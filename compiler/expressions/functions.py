"""The table of scalar functions: a row says how one is written in C, how NumPy computes it and what
it returns.

The rows here are those that the compiler itself needs; ``kernels/operators/pointwise.py`` adds the
rest beside its operators. C texts call ``rf_`` helpers of ``kernels/lib/math.cuh`` where C alone is
not enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ramforge.compiler.ir import Array, DType

Result = Callable[[tuple[DType, ...]], DType]


def same(types: tuple[DType, ...]) -> DType:
    """The type of the last argument."""
    return types[-1]


def boolean(types: tuple[DType, ...]) -> DType:
    return DType.BOOL


@dataclass(frozen=True, slots=True)
class Function:
    """A scalar function. ``c`` is a format text, in which ``{T}`` is the C name of the result's
    type; ``cost`` counts it in multiplications. With ``typed`` the NumPy function gets the result's
    dtype as well, and arguments come as they are stored.
    """

    name: str
    c: str
    numpy: Callable[..., Any]
    result: Result = same
    cost: int = 1
    typed: bool = False


_FUNCTIONS: dict[str, Function] = {}


def define(
    name: str,
    c: str,
    numpy: Callable[..., Any],
    result: Result = same,
    cost: int = 1,
    typed: bool = False,
) -> Function:
    """Add a row; a second row of the same name is a mistake."""
    if name in _FUNCTIONS:
        raise ValueError(f"function {name} is defined twice")
    _FUNCTIONS[name] = Function(name, c, numpy, result, cost, typed)
    return _FUNCTIONS[name]


def function(name: str) -> Function:
    return _FUNCTIONS[name]


def _cast(x: Any, dtype: np.dtype[Any]) -> Any:
    """As ``rf_integer``: what an integer cannot hold becomes the nearest it can, NaN becomes 0."""
    x = np.asarray(x)
    kind, wanted = DType.of(x), DType.of(dtype)
    if kind is DType.FLOAT64 and wanted.is_float and wanted.is_stored_only:
        return _to_odd(x).astype(dtype)
    if not kind.is_float or wanted.is_float or wanted is DType.BOOL:
        return x.astype(dtype)
    limits = np.iinfo(wanted.wide.numpy)
    wide = np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))
    whole = np.clip(wide, float(limits.min), float(limits.max)).astype(wanted.wide.numpy)
    # the largest integers are no floats: the nearest float above them does not fit
    whole = np.where(wide >= float(limits.max), limits.max, whole)
    return whole.astype(dtype)


def _to_odd(x: Array) -> Array:
    """As ``rf_to_odd``: a float that rounds once more as the double itself would."""
    near = x.astype(np.float32)
    bits, back = near.view(np.uint32), near.astype(np.float64)
    changes = np.isfinite(near) & (back != x) & (bits % 2 == 0)
    away = (x > 0) == (back < x)
    moved = np.where(away, bits + np.uint32(1), bits - np.uint32(1))
    return np.where(changes, moved, bits).astype(np.uint32).view(np.float32)


define("cast", "", _cast, typed=True)
define("add", "({0} + {1})", np.add)
define("sub", "({0} - {1})", np.subtract)
define("mul", "({0} * {1})", np.multiply)
define("where", "({0} ? {1} : {2})", np.where)
define("less", "({0} < {1})", np.less, boolean)
define("less_equal", "({0} <= {1})", np.less_equal, boolean)
define("and", "({0} && {1})", np.logical_and, boolean)
define("max", "rf_max({0}, {1})", np.maximum)
define("min", "rf_min({0}, {1})", np.minimum)
