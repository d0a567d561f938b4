"""What a computation is as a matrix product: rows of A that are runs of K, and columns of B.

A convolution is a product whose rows of A are runs of input channels: one run for each position of
the kernel window.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import (
    SUM,
    Computation,
    Roles,
    factors_of,
    loaded,
    rewritten,
)
from ramforge.compiler.expressions.index import Index, Var
from ramforge.compiler.expressions.placed import Placed
from ramforge.compiler.expressions.terms import Apply, Load
from ramforge.compiler.ir import DType
from ramforge.kernels import space

_BYTES = (DType.INT8, DType.UINT8)


@dataclass(frozen=True, slots=True)
class Product:
    """A computation taken apart into what the tile loop needs."""

    placed: Placed
    a: Load
    b: Load
    batch: tuple[Var, ...]
    rows: tuple[Var, ...]
    columns: tuple[Var, ...]
    segments: tuple[Var, ...]
    run: tuple[Var, ...]
    step: int

    @property
    def m(self) -> int:
        return space.size_of(self.rows)

    @property
    def n(self) -> int:
        return space.size_of(self.columns)

    @property
    def k(self) -> int:
        return space.size_of((*self.segments, *self.run))

    @property
    def batches(self) -> int:
        return space.size_of(self.batch)

    @property
    def is_packable(self) -> bool:
        """Whether B is a constant that is read nowhere else; an epilogue that reads it too wants it
        as it is.
        """
        slot = self.b.slot
        readers = [load for load in self.placed.computation.loads() if load.slot == slot]
        return self.placed.constants[slot] and len(readers) == 1

    @property
    def length(self) -> int:
        return space.size_of(self.run)

    @property
    def is_mixed(self) -> bool:
        """Whether the factors are stored as different types."""
        return self.a.dtype is not self.b.dtype

    def with_wide_weights(self) -> Product:
        """The same with float32 in the place of packed weights of 16 bits."""
        slot = self.b.slot
        if not (self.is_mixed and self.is_packable) or self.is_of_bytes:
            return self

        def change(load: Load) -> Load:
            if load.slot != slot:
                return load
            return terms.load(slot, load.indices, load.shape, DType.FLOAT32)

        tensors = list(self.placed.tensors)
        tensors[slot] = replace(tensors[slot], dtype=DType.FLOAT32)
        computation = rewritten(self.placed.computation, change)
        placed = replace(self.placed, computation=computation, tensors=tuple(tensors))
        return replace(self, placed=placed, b=change(self.b))

    @property
    def is_of_bytes(self) -> bool:
        return self.a.dtype in _BYTES

    @property
    def sum_type(self) -> str:
        """What products are added up in, as C has it."""
        return "int" if self.is_of_bytes else "float"

    @property
    def fill(self) -> int:
        """What lies outside of the tensor of A; other than 0 only for bytes."""
        return int(self.a.fill or 0) if self.a.loose_axes() else 0

    @property
    def together(self) -> int:
        """Elements of a run of A that can be copied at once: 16 bytes of them, or fewer."""
        return self._together(self.a) if self.step == 1 else 1

    @property
    def together_in_columns(self) -> int:
        """The same for the columns of B."""
        offset = ix.flatten(self.b.indices, self.placed.strides[self.b.slot])
        step = offset.coefficient(self.run[0]) if self.run else 1
        return self._together(self.b) if step == 1 else 1

    @property
    def has_whole_chunks(self) -> bool:
        """Whether what belongs to 16 bytes of a column of B lies together in A, on boundaries of 16
        bytes.
        """
        in_order = self.together == vector_of(self.a)
        return in_order and self.length % vector_of(self.b) == 0

    def _together(self, load: Load) -> int:
        offset = ix.flatten(load.indices, self.placed.strides[load.slot])
        if self.run:
            offset = offset - ix.of(self.run[0])
        factors = [self.length, offset.const, *(factor for _, factor in offset.terms)]
        return math.gcd(vector_of(load), *factors)


def vector_of(load: Load) -> int:
    """Elements in 16 bytes, the most that a thread copies at once."""
    return 16 // load.dtype.itemsize


def _factors(computation: Computation) -> tuple[Load, Load] | None:
    return factors_of(computation) or _bytes_of(computation)


def _bytes_of(computation: Computation) -> tuple[Load, Load] | None:
    """The factors of a matrix product of bytes that is summed in int32."""
    value = computation.value
    if computation.kind != SUM or computation.roles is None or value.dtype is not DType.INT32:
        return None
    if not isinstance(value, Apply) or value.name != "mul":
        return None
    left, right = (loaded(arg) for arg in value.args)
    if left is None or right is None or right.loose_axes():
        return None
    return (left, right) if left.dtype in _BYTES and right.dtype in _BYTES else None


@functools.lru_cache(maxsize=4096)
def take_apart(placed: Placed) -> Product | None:
    computation = placed.computation
    loads = _factors(computation)
    if loads is None or computation.roles is None:
        return None
    if computation.reduction_size == 0:
        return None
    placed, roles = _without_groups(placed, computation.roles)
    merged: dict[str, tuple[Var, ...]] = {}
    for name, axes in (("b", roles.batch), ("m", roles.rows), ("n", roles.columns)):
        placed, merged[name] = space.merge(placed, _ordered(placed, axes), name)
    folded = tuple(var for var in computation.reduction if var.size != 1)
    placed, folded = space.merge(placed, folded, "k")
    again = _factors(placed.computation)
    assert again is not None
    a, b = again
    offset = ix.flatten(a.indices, placed.strides[a.slot])
    run = folded[-1:]
    step = offset.coefficient(run[0]) if run else 1
    if run and not _is_plain(a, offset, run[0], step):
        if not a.loose_axes():
            return None
        run, step = (), 1  # with padding in between, every element of a row is a run of its own
    segments = folded[: len(folded) - len(run)]
    if a.loose_axes() and step != 1:
        return None
    return Product(placed, a, b, merged["b"], merged["m"], merged["n"], segments, run, step)


def _without_groups(placed: Placed, roles: Roles) -> tuple[Placed, Roles]:
    """Make the groups of a grouped convolution a batch axis of their own."""
    if roles.groups == 1:
        return placed, roles
    (channel,) = roles.columns
    group = Var("group", roles.groups)
    inner = Var("channel", channel.size // roles.groups)
    whole = ix.of(group) * inner.size + ix.of(inner)
    placed = placed.substitute({channel: whole})
    return placed, Roles((group, *roles.batch), roles.rows, (inner,))


def _ordered(placed: Placed, axes: tuple[Var, ...]) -> tuple[Var, ...]:
    """Output axes in memory order, before them those that are no output axes."""
    extra = tuple(var for var in axes if var not in placed.computation.axes and var.size != 1)
    return (*extra, *placed.memory_order(axes))


def _is_plain(a: Load, offset: Index, run: Var, step: int) -> bool:
    """Whether the run variable only ever adds ``step`` to the address."""
    rest = offset - ix.of(run) * step
    guards = [a.indices[axis] for axis in a.loose_axes()]
    return step > 0 and not any(run in ix.variables(index) for index in (rest, *guards))
