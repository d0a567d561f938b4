"""Write expressions as C: a list of named values, one statement for each shared or long part.

A ``Writer`` is one block of code. It declares each value once, in the order of use, so that nothing
is computed twice however often it appears.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions.functions import function
from ramforge.compiler.expressions.index import Data, FloorDiv, Index, Var
from ramforge.compiler.expressions.terms import (
    Apply,
    Const,
    Expr,
    Hole,
    IndexValue,
    Load,
    Named,
    conjunction,
    inside,
)
from ramforge.compiler.ir import DType

INT32_LIMIT = 2**31 - 1
_INTEGER_SUFFIXES = {DType.INT32: "", DType.INT64: "LL", DType.UINT32: "U", DType.UINT64: "ULL"}


def literal(value: float | int | bool, dtype: DType) -> str:
    """A C literal that reads back as exactly this value."""
    if dtype is DType.BOOL:
        return "true" if value else "false"
    if dtype.is_stored_only:
        return f"(({dtype.c_name}){literal(value, dtype.wide)})"
    if dtype.is_float:
        suffix = "f" if dtype is DType.FLOAT32 else ""
        if math.isnan(value):
            return f"({dtype.c_name})RF_NAN"
        if math.isinf(value):
            return (
                f"({dtype.c_name})RF_INFINITY" if value > 0 else f"(-({dtype.c_name})RF_INFINITY)"
            )
        text = repr(float(value))
        if dtype is DType.FLOAT32:
            text = _shortest_float32(float(value))
        if "e" not in text and "." not in text:
            text += ".0"
        return f"({text}{suffix})" if text.startswith("-") else f"{text}{suffix}"
    if dtype.itemsize < 4:
        return f"(({dtype.c_name}){int(value)})"
    suffix = _INTEGER_SUFFIXES[dtype]
    if value == -(2 ** (8 * dtype.itemsize - 1)):  # C has no negative literals
        return f"({int(value) + 1}{suffix} - 1)"
    return f"({int(value)}{suffix})" if value < 0 else f"{int(value)}{suffix}"


def _shortest_float32(value: float) -> str:
    import numpy as np

    return str(np.float32(value))


class Writer:
    """Turns expressions into statements and a final C expression.

    ``names`` gives the C text of each variable, ``pointers`` of each slot; ``strides`` are those of
    each slot's tensor in memory; ``filled`` is the text of the hole.
    """

    def __init__(
        self,
        names: Mapping[Var, str],
        pointers: Sequence[str],
        strides: Sequence[tuple[int, ...]],
        filled: str = "",
        prefix: str = "t",
    ) -> None:
        self._names = names
        self._pointers = pointers
        self._strides = strides
        self._filled = filled
        self._prefix = prefix
        # by the expression itself: guards live only here, and an id alone would be given out again
        self._texts: dict[Expr, str] = {}
        self._count = 0
        self.statements: list[str] = []

    def value(self, expr: Expr) -> str:
        """The C text of an expression; what it needs is declared in ``statements``."""
        uses = _uses(expr)
        for node in expr.walk():
            if node in self._texts:
                continue
            text = self._node(node)
            if uses.get(id(node), 0) > 1 and isinstance(node, Apply | Load):
                text = self.declare(node.dtype.c_name, text)
            self._texts[node] = text
        return self._texts[expr]

    def declare(self, c_type: str, text: str) -> str:
        name = f"{self._prefix}{self._count}"
        self._count += 1
        self.statements.append(f"const {c_type} {name} = {text};")
        return name

    def index(self, position: Index) -> str:
        """The C text of an index: 32-bit unless it can be larger."""
        for atom, _ in position.terms:
            self._prepare(atom)
        low, high = ix.bounds(position)
        wide = low < -INT32_LIMIT or high > INT32_LIMIT
        return self._sum(position, wide)

    def _prepare(self, atom: object) -> None:
        if isinstance(atom, Data):
            self.value(atom.expr)
        elif isinstance(atom, FloorDiv | ix.Mod):
            for inner, _ in atom.operand.terms:
                self._prepare(inner)

    def _sum(self, position: Index, wide: bool) -> str:
        text = ""
        for atom, coefficient in position.terms:
            part = f"(long long){self._atom(atom)}" if wide else self._atom(atom)
            if abs(coefficient) != 1:
                part = f"{part} * {abs(coefficient)}"
            text = _appended(text, part, coefficient < 0)
        if position.const or not text:
            text = _appended(text, str(abs(position.const)), position.const < 0)
        return text

    def _atom(self, atom: object) -> str:
        if isinstance(atom, Var):
            return self._names[atom]
        if isinstance(atom, Data):
            return f"rf_wrap({self._texts[atom.expr]}, {atom.size})"
        assert isinstance(atom, FloorDiv | ix.Mod)
        low, _ = ix.bounds(atom.operand)
        inner = self._sum(atom.operand, False)
        grouped = inner if inner.isidentifier() else f"({inner})"
        if isinstance(atom, FloorDiv):
            plain, careful = f"({grouped} / {atom.divisor})", "rf_floor_div"
        else:
            plain, careful = f"({grouped} % {atom.divisor})", "rf_floor_mod"
        return plain if low >= 0 else f"{careful}({inner}, {atom.divisor})"

    def _node(self, node: Expr) -> str:
        if isinstance(node, Const):
            return literal(node.value, node.dtype)
        if isinstance(node, Hole):
            return self._filled
        if isinstance(node, Named):
            return node.name
        if isinstance(node, IndexValue):
            return f"(long long)({self.index(node.indices[0])})"
        if isinstance(node, Load):
            return self._load(node)
        assert isinstance(node, Apply)
        arguments = [self._texts[arg] for arg in node.args]
        if node.name == "cast":
            return _cast(arguments[0], node.args[0].dtype, node.dtype)
        scalar = function(node.name)
        if node.name != "where" and not scalar.typed:
            arguments = [
                _computable(text, arg.dtype) for text, arg in zip(arguments, node.args, strict=True)
            ]
        if node.name in ("less", "less_equal"):
            arguments = [self._compared(arg, arguments[i]) for i, arg in enumerate(node.args)]
        text = scalar.c.format(*arguments, T=node.dtype.c_name)
        # C computes small types as larger ones; the result must round or wrap as its own type does
        if node.dtype.itemsize < 4 and node.dtype is not DType.BOOL and node.name != "where":
            return f"({node.dtype.c_name})({text})"
        return text

    def _compared(self, arg: Expr, text: str) -> str:
        """An index in a comparison needs no 64 bits if it fits into 32."""
        if isinstance(arg, IndexValue):
            low, high = ix.bounds(arg.indices[0])
            if low >= -INT32_LIMIT and high <= INT32_LIMIT:
                return self.index(arg.indices[0])
        if isinstance(arg, Const) and arg.dtype is DType.INT64 and abs(arg.value) <= INT32_LIMIT:
            return str(arg.value)
        return text

    def _load(self, node: Load) -> str:
        offset = ix.flatten(node.indices, self._strides[node.slot])
        access = f"{self._pointers[node.slot]}[{self.index(offset)}]"
        loose = node.loose_axes()
        if not loose:
            return access
        guard = conjunction([inside(node.indices[axis], 0, node.shape[axis]) for axis in loose])
        assert node.fill is not None
        if isinstance(guard, Const) and not guard.value:
            return literal(node.fill, node.dtype)
        return f"({self._condition(guard)} ? {access} : {literal(node.fill, node.dtype)})"

    def _condition(self, guard: Expr) -> str:
        return Writer.value(self, guard)


def _computable(text: str, dtype: DType) -> str:
    """What is only stored, as the type it is computed in."""
    return f"({dtype.c_compute})({text})" if dtype.is_stored_only else text


def _cast(text: str, old: DType, new: DType) -> str:
    text = _computable(text, old)
    if new is DType.BOOL:
        return f"({text} != 0)"
    if old.is_float and not new.is_float:
        return f"({new.c_name})rf_integer<{new.c_compute}>({text})"
    if old is DType.FLOAT64 and new.is_stored_only:
        return f"({new.c_name})rf_to_odd({text})"
    if new.is_stored_only and old.wide is not new.wide:
        return f"({new.c_name})({new.c_compute})({text})"
    return f"({new.c_name})({text})"


def _appended(text: str, part: str, negative: bool) -> str:
    if not text:
        return f"-{part}" if negative else part
    return f"{text} {'-' if negative else '+'} {part}"


def _uses(expr: Expr) -> dict[int, int]:
    counts: dict[int, int] = {}
    for node in expr.walk():
        for arg in node.args:
            counts[id(arg)] = counts.get(id(arg), 0) + 1
        for position in node.indices:
            for inner in _data(position):
                counts[id(inner)] = counts.get(id(inner), 0) + 1
    return counts


def _data(position: Index) -> list[Expr]:
    found: list[Expr] = []
    for atom, _ in position.terms:
        if isinstance(atom, Data):
            found.append(atom.expr)
        elif isinstance(atom, FloorDiv | ix.Mod):
            found.extend(_data(atom.operand))
    return found
