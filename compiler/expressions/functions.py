"""The table of scalar functions: a row says how one is written in C, how NumPy computes it and what
it returns.

The rows here are those that the compiler itself needs; ``kernels/pointwise.py`` adds the rest
beside its operators. C texts call ``rf_`` helpers of ``kernels/lib/math.cuh`` where C alone is not
enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ramforge.compiler.ir import DType

Result = Callable[[tuple[DType, ...]], DType]


def same(types: tuple[DType, ...]) -> DType:
    """The type of the last argument."""
    return types[-1]


def boolean(types: tuple[DType, ...]) -> DType:
    return DType.BOOL


@dataclass(frozen=True, slots=True)
class Function:
    """A scalar function. ``c`` is a format text; ``cost`` counts it in multiplications."""

    name: str
    c: str
    numpy: Callable[..., Any]
    result: Result = same
    cost: int = 1


_FUNCTIONS: dict[str, Function] = {}


def define(
    name: str, c: str, numpy: Callable[..., Any], result: Result = same, cost: int = 1
) -> Function:
    """Add a row; a second row of the same name is a mistake."""
    if name in _FUNCTIONS:
        raise ValueError(f"function {name} is defined twice")
    _FUNCTIONS[name] = Function(name, c, numpy, result, cost)
    return _FUNCTIONS[name]


def function(name: str) -> Function:
    return _FUNCTIONS[name]


define("cast", "", lambda x: x)
define("add", "({0} + {1})", np.add)
define("sub", "({0} - {1})", np.subtract)
define("mul", "({0} * {1})", np.multiply)
define("where", "({0} ? {1} : {2})", np.where)
define("less", "({0} < {1})", np.less, boolean)
define("less_equal", "({0} <= {1})", np.less_equal, boolean)
define("and", "({0} && {1})", np.logical_and, boolean)
define("max", "rf_max({0}, {1})", np.maximum)
define("min", "rf_min({0}, {1})", np.minimum)
