"""The expression IR: one scalar value for each position of an output.

Expressions are interned, so equal ones are the same object and a shared part is shared however the
expression was built. ``Load`` reads an input of the node at a computed index; ``fill`` is what lies
outside of that input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, cast
from weakref import WeakValueDictionary

from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions.functions import function
from ramforge.compiler.expressions.index import Data, Index, Var
from ramforge.compiler.ir import DType

Scalar = float | int | bool
LONGEST_KEY = 1024


class Expr:
    """Base of all expressions. Never made directly: use the functions of this module."""

    __slots__ = ("__weakref__", "_key", "_loads", "args", "dtype", "parts")
    _interned: ClassVar[WeakValueDictionary[object, Expr]] = WeakValueDictionary()

    args: tuple[Expr, ...]
    dtype: DType
    parts: tuple[object, ...]
    _key: str
    _loads: tuple[Load, ...] | None

    def __add__(self, other: Expr | Scalar) -> Expr:
        return apply("add", self, self._like(other))

    def __radd__(self, other: Scalar) -> Expr:
        return apply("add", self._like(other), self)

    def __sub__(self, other: Expr | Scalar) -> Expr:
        return apply("sub", self, self._like(other))

    def __rsub__(self, other: Scalar) -> Expr:
        return apply("sub", self._like(other), self)

    def __mul__(self, other: Expr | Scalar) -> Expr:
        return apply("mul", self, self._like(other))

    def __rmul__(self, other: Scalar) -> Expr:
        return apply("mul", self._like(other), self)

    def __truediv__(self, other: Expr | Scalar) -> Expr:
        return apply("divide", self, self._like(other))

    def __rtruediv__(self, other: Scalar) -> Expr:
        return apply("divide", self._like(other), self)

    def __neg__(self) -> Expr:
        return apply("neg", self)

    def __lt__(self, other: Expr | Scalar) -> Expr:
        return apply("less", self, self._like(other))

    def __le__(self, other: Expr | Scalar) -> Expr:
        return apply("less_equal", self, self._like(other))

    def __gt__(self, other: Expr | Scalar) -> Expr:
        return apply("less", self._like(other), self)

    def __ge__(self, other: Expr | Scalar) -> Expr:
        return apply("less_equal", self._like(other), self)

    def __and__(self, other: Expr) -> Expr:
        return conjunction([self, other])

    def __or__(self, other: Expr) -> Expr:
        return apply("or", self, other)

    def __invert__(self) -> Expr:
        return apply("not", self)

    def equals(self, other: Expr | Scalar) -> Expr:
        """Whether both are the same number; ``==`` asks whether they are the same expression."""
        return apply("equal", self, self._like(other))

    def cast(self, dtype: DType) -> Expr:
        return cast_to(self, dtype)

    def _like(self, other: Expr | Scalar) -> Expr:
        if not isinstance(other, Expr):
            return const(other, self.dtype)
        assert other.dtype is self.dtype, f"{self.dtype.label} meets {other.dtype.label}"
        return other

    @property
    def key(self) -> str:
        """A stable text of the expression, for sorting; that of a long one ends in a digest."""
        if not self._key:
            inner = ",".join(arg.key for arg in self.args)
            self._key = _short(f"{type(self).__name__}{_parts_key(self.parts)}[{inner}]")
        return self._key

    def walk(self) -> Iterator[Expr]:
        """Every distinct expression in here, arguments before their users, indices included."""
        seen: set[int] = set()
        stack: list[tuple[Expr, bool]] = [(self, False)]
        while stack:
            expr, ready = stack.pop()
            if id(expr) in seen:
                continue
            if ready:
                seen.add(id(expr))
                yield expr
                continue
            stack.append((expr, True))
            stack.extend((inner, False) for inner in (*expr.args, *index_data(expr)))

    def variables(self) -> set[Var]:
        found: set[Var] = set()
        for expr in self.walk():  # which goes into run-time integers too
            for position in expr.indices:
                found.update(ix.own_variables(position))
        return found

    @property
    def indices(self) -> tuple[Index, ...]:
        return ()


def _short(key: str) -> str:
    """Shared parts stand in a key as often as they are used: without a bound it would explode."""
    if len(key) <= LONGEST_KEY:
        return key
    return f"{key[:LONGEST_KEY]}#{hashlib.sha256(key.encode()).hexdigest()}"


def _parts_key(parts: tuple[object, ...]) -> str:
    texts = []
    for part in parts:
        if isinstance(part, Index):
            texts.append(part.key)
        elif isinstance(part, tuple):
            texts.append(_parts_key(part))
        else:
            texts.append(repr(part))
    return f"({';'.join(texts)})"


def index_data(expr: Expr) -> list[Expr]:
    """The run-time integers in its indices."""
    return [inner for position in expr.indices for inner in _data_of(position)]


def _data_of(position: Index) -> Iterator[Expr]:
    for atom, _ in position.terms:
        if isinstance(atom, Data):
            yield atom.expr
        elif not isinstance(atom, Var):
            yield from _data_of(atom.operand)


class Const(Expr):
    """A literal."""

    __slots__ = ()

    @property
    def value(self) -> Scalar:
        return cast(Scalar, self.parts[0])


class Load(Expr):
    """The element of input ``slot`` at ``index``, or ``fill`` outside of it."""

    __slots__ = ()

    @property
    def slot(self) -> int:
        return cast(int, self.parts[0])

    @property
    def indices(self) -> tuple[Index, ...]:
        return cast("tuple[Index, ...]", self.parts[1])

    @property
    def shape(self) -> tuple[int, ...]:
        return cast("tuple[int, ...]", self.parts[2])

    @property
    def fill(self) -> Scalar | None:
        return cast("Scalar | None", self.parts[3])

    def loose_axes(self) -> tuple[int, ...]:
        """The axes along which the index can leave the tensor."""
        if self.fill is None:
            return ()
        spans = [ix.bounds(position) for position in self.indices]
        return tuple(
            axis for axis, (low, high) in enumerate(spans) if low < 0 or high >= self.shape[axis]
        )


class Apply(Expr):
    """A scalar function of other expressions."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return cast(str, self.parts[0])


class IndexValue(Expr):
    """An index as a value (int64)."""

    __slots__ = ()

    @property
    def indices(self) -> tuple[Index, ...]:
        return (cast(Index, self.parts[0]),)


class Hole(Expr):
    """The value a reduction or a row computed, in what is done with it afterwards."""

    __slots__ = ()


class Named(Expr):
    """A value that was worked out before and goes by a name."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return cast(str, self.parts[0])


def _make(
    kind: type[Expr], dtype: DType, parts: tuple[object, ...], args: tuple[Expr, ...] = ()
) -> Expr:
    # repr tells 0.0 from -0.0 and 1 from True, which compare equal
    identity = (kind, dtype, parts, tuple(map(repr, parts)) if kind is Const else (), args)
    found = Expr._interned.get(identity)
    if found is None:
        found = kind()
        found.dtype, found.parts, found.args, found._key = dtype, parts, args, ""
        found._loads = None
        Expr._interned[identity] = found
    return found


def const(value: Scalar, dtype: DType) -> Expr:
    # repr(nan) is stable although nan != nan, so the text takes its place in the identity
    plain = dtype.numpy.type(value).astype(dtype.wide.numpy)
    return _make(Const, dtype, (plain.item(),))


def load(
    slot: int,
    index: tuple[Index, ...],
    shape: tuple[int, ...],
    dtype: DType,
    fill: Scalar | None = None,
) -> Load:
    assert len(index) == len(shape), (index, shape)
    return cast(Load, _make(Load, dtype, (slot, index, shape, fill)))


def apply(name: str, *args: Expr) -> Expr:
    """A function of the table; arguments must already have the types it wants."""
    dtype = function(name).result(tuple(arg.dtype for arg in args))
    return _make(Apply, dtype, (name,), args)


def convert(name: str, dtype: DType, *args: Expr) -> Expr:
    """A function of the table whose result has the type that the caller says."""
    return _make(Apply, dtype, (name,), args)


def cast_to(expr: Expr, dtype: DType) -> Expr:
    if expr.dtype is dtype:
        return expr
    if isinstance(expr, Const) and not expr.dtype.is_float and dtype is DType.INT64:
        return const(expr.value, dtype)
    return convert("cast", dtype, expr)


def index_value(position: Index) -> Expr:
    if position.is_const:
        return const(position.const, DType.INT64)
    return _make(IndexValue, DType.INT64, (position,))


def hole(dtype: DType) -> Expr:
    return _make(Hole, dtype, ())


def named(name: str, dtype: DType) -> Expr:
    return _make(Named, dtype, (name,))


def select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    if isinstance(condition, Const):
        return yes if condition.value else no
    return apply("where", condition, yes, no)


def larger(first: Expr, second: Expr | Scalar) -> Expr:
    return apply("max", first, first._like(second))


def smaller(first: Expr, second: Expr | Scalar) -> Expr:
    return apply("min", first, first._like(second))


def value_of(position: Index | int, dtype: DType = DType.INT64) -> Expr:
    """An index as a number."""
    index = ix.constant(position) if isinstance(position, int) else position
    if index.is_const:
        return const(index.const, dtype)
    return cast_to(index_value(index), dtype)


def inside(position: Index, low: int, high: int) -> Expr:
    """Whether ``low <= position < high``; a literal where the ranges decide it."""
    first, last = ix.bounds(position)
    checks: list[Expr] = []
    if first >= high or last < low:
        return const(False, DType.BOOL)
    if first < low:
        checks.append(apply("less_equal", const(low, DType.INT64), index_value(position)))
    if last >= high:
        checks.append(apply("less", index_value(position), const(high, DType.INT64)))
    return conjunction(checks)


def conjunction(checks: list[Expr]) -> Expr:
    """All of these; true if there are none, false if one is literally false."""
    kept = [check for check in checks if not isinstance(check, Const) or not check.value]
    for check in kept:
        if isinstance(check, Const):
            return check
    if not kept:
        return const(True, DType.BOOL)
    result = kept[0]
    for check in kept[1:]:
        result = apply("and", result, check)
    return result


def rewrite(
    expr: Expr,
    variables: Mapping[Var, Index] | None = None,
    loads: Callable[[Load], Expr] | None = None,
    filled: Expr | None = None,
    parts: Mapping[Expr, Expr] | None = None,
) -> Expr:
    """Put indices in the place of variables, expressions in the place of loads, of the hole and of
    whole parts.

    ``loads`` sees each load after its index was rewritten.
    """
    places = variables or {}
    others = parts or {}
    done: dict[int, Expr] = {}

    def change(atom: Var | Data) -> Index:
        if isinstance(atom, Var):
            return places.get(atom, ix.of(atom))
        inner = visit(atom.expr)
        if isinstance(inner, IndexValue):
            return inner.indices[0]
        if isinstance(inner, Const):
            return ix.constant(ix.wrapped(int(inner.value), atom.size))
        return ix.of(Data(inner, atom.size))

    def visit(node: Expr) -> Expr:
        if id(node) not in done:
            done[id(node)] = rebuild(node)
        return done[id(node)]

    def rebuild(node: Expr) -> Expr:
        if node in others:
            return others[node]
        if isinstance(node, Load):
            moved = tuple(ix.rewrite(position, change) for position in node.indices)
            again = load(node.slot, moved, node.shape, node.dtype, node.fill)
            return loads(again) if loads else again
        if isinstance(node, IndexValue):
            return index_value(ix.rewrite(node.indices[0], change))
        if isinstance(node, Hole):
            return filled if filled is not None else node
        if not node.args:
            return node
        arguments = tuple(visit(arg) for arg in node.args)
        if cast(Apply, node).name == "where":
            return select(*arguments)
        return _make(type(node), node.dtype, node.parts, arguments)

    return visit(expr)


def loads_of(expr: Expr) -> tuple[Load, ...]:
    """Every distinct load, in the order of first use."""
    if expr._loads is None:
        # without itself, or a load would hold itself alive
        inner = (node for node in expr.walk() if isinstance(node, Load) and node is not expr)
        expr._loads = tuple(inner)
    return (*expr._loads, expr) if isinstance(expr, Load) else expr._loads
