"""What operators that sort, search and count are built of: binary search, merge sort, prefix folds.

All of it is made of maps and folds of fixed size, so the work is known at compile time: a sort of n
takes n log^2 n, a prefix fold n, a search log n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, apply, const, select, value_of
from ramforge.compiler.ir import DType

COUNT = DType.INT32  # the type of positions inside a tensor
SHORT_LINE = 64  # up to which every element looks at every other one
BLOCK = 32

Places = Sequence[Index]
Precedes = Callable[[Places, Expr, Expr], Expr]


def count(position: Index | int) -> Expr:
    """A position as a number to calculate with."""
    return value_of(position, COUNT)


def leading(size: int, holds: Callable[[Expr], Expr]) -> Expr:
    """How many of the positions 0, 1, ... size - 1 come before the first that does not hold.

    Those that hold must all come first.
    """
    found = count(0)
    step = 1 << (size.bit_length() - 1) if size else 0
    reach = 0  # how far the search can have come
    while step:
        further = found + step if reach else count(step)
        passed = holds(further - 1 if reach else count(step - 1))
        if reach + step > size:
            passed = (further <= size) & passed
        found = select(passed, further, found)
        reach += step
        step //= 2
    return found


def is_nan(value: Expr) -> Expr | None:
    """Whether this is no number; None if it always is one."""
    return ~value.equals(value) if value.dtype.is_float else None


def below(a: Expr, b: Expr) -> Expr:
    """Whether a comes before b in rising order, where NaN comes last, as in NumPy."""
    a_lost, b_lost = is_nan(a), is_nan(b)
    if a_lost is None or b_lost is None:
        return a < b
    return (a < b) | (b_lost & ~a_lost)


def alike(a: Expr, b: Expr) -> Expr:
    """Whether neither comes before the other."""
    a_lost, b_lost = is_nan(a), is_nan(b)
    same = a.equals(b)
    return same if a_lost is None or b_lost is None else same | (a_lost & b_lost)


def by_value(x: Callable[[Places, Expr], Expr], falling: bool = False) -> Precedes:
    """The stable order of the elements ``x(line, position)``."""

    def precedes(line: Places, first: Expr, second: Expr) -> Expr:
        a, b = x(line, first), x(line, second)
        if falling:
            a, b = b, a
        earlier = first < second
        before, after = (below(a, b), below(b, a))
        return before | (~after & earlier)

    return precedes


def ordered(
    steps: Steps, lines: Sequence[int], size: int, precedes: Precedes, keep: int | None = None
) -> Value:
    """Sort ``size`` elements in each line, and give the positions of the first ``keep``.

    Blocks are sorted by counting, then merged in pairs. No list grows longer than ``keep``, so that
    a few of many cost little more than the blocks do.
    """
    keep = size if keep is None else keep
    width = size if size <= 2 * SHORT_LINE else BLOCK
    merged = _sorted_blocks(steps, lines, size, precedes, width, keep)
    while merged.shape[-2] > 1:
        merged = _merged_pairs(steps, merged, size, precedes, keep)
    rank = len(lines)
    return steps.map((*lines, keep), lambda *at: merged[(*at[:rank], 0, at[rank])])


def _sorted_blocks(
    steps: Steps, lines: Sequence[int], size: int, precedes: Precedes, width: int, keep: int
) -> Value:
    """Positions in order in each block; ``size`` stands where a block has no more."""
    blocks = -(-size // width)
    before = _before(size, blocks * width, precedes)
    rank = len(lines)

    def comes_before(*at: Index) -> Expr:
        *line, block, place, other = at
        earlier = before(line, count(block * width + other), count(block * width + place))
        return select(earlier, count(1), count(0))

    ranks = steps.fold(comp.SUM, (*lines, blocks, width), (width,), comes_before)

    def placed(*at: Index) -> Expr:
        line, (block, number, place) = at[:rank], at[rank:]
        here = block * width + place
        found = ranks[(*line, block, place)].equals(count(number))
        return select(found & terms.inside(here, 0, size), count(here), count(size))

    return steps.fold(comp.MINIMUM, (*lines, blocks, min(width, keep)), (width,), placed)


def _before(size: int, reach: int, precedes: Precedes) -> Precedes:
    """The same order over positions of which those from ``size`` on stand for nothing."""
    if reach == size:
        return precedes

    def before(line: Places, first: Expr, second: Expr) -> Expr:
        is_there, other = first < size, second < size
        return is_there & (~other | precedes(line, first, second))

    return before


def _merged_pairs(steps: Steps, lists: Value, size: int, precedes: Precedes, keep: int) -> Value:
    *lines, number, length = lists.shape
    before = _before(size, size + 1, precedes)
    rank = len(lines)

    def merged(*at: Index) -> Expr:
        line, (pair, place) = at[:rank], at[rank:]
        wanted = count(place)

        def left(position: Expr) -> Expr:
            return lists.at((*line, pair * 2, position), fill=size)

        def right(position: Expr) -> Expr:
            return lists.at((*line, pair * 2 + 1, position), fill=size)

        def is_among_first(position: Expr) -> Expr:
            opposite = wanted - 1 - position
            first = before(line, left(position), right(opposite))
            return (opposite >= 0) & ((opposite >= length) | first)

        taken = leading(length, is_among_first)
        rest = wanted - taken
        first, second = left(taken), right(rest)
        is_left = (taken < length) & ((rest >= length) | before(line, first, second))
        return select(is_left, first, second)

    shape = (*lines, -(-number // 2), min(2 * length, keep))
    return steps.map(shape, merged)


def prefix(
    steps: Steps,
    x: Value,
    axis: int,
    kind: str,
    exclusive: bool = False,
    reverse: bool = False,
    to: int | None = None,
) -> Value:
    """Combine everything up to each position along an axis, in blocks of blocks."""
    size = x.shape[axis]
    dtype = x.dtype.wide
    nothing = comp.identity(kind, dtype)
    outside = comp.identity(kind, x.dtype)

    def counts(here: Index, other: Index) -> Expr:
        first, second = (here, other) if reverse else (other, here)
        return terms.inside(second - first, 1 if exclusive else 0, size + BLOCK)

    if size <= SHORT_LINE:

        def earlier(*at: Index) -> Expr:
            *place, other = at
            value = x[(*place[:axis], other, *place[axis + 1 :])].cast(dtype)
            return select(counts(place[axis], other), value, const(nothing, dtype))

        return steps.fold(kind, x.shape, (size,), earlier, to=to)

    blocks = -(-size // BLOCK)

    def element(place: Places, block: Index, other: Index) -> Expr:
        there = (*place[:axis], block * BLOCK + other, *place[axis + 1 :])
        return x.at(there, fill=outside).cast(dtype)

    totals = steps.fold(
        kind,
        (*x.shape[:axis], blocks, *x.shape[axis + 1 :]),
        (BLOCK,),
        lambda *at: element(at[:-1], at[axis], at[-1]),
    )
    carried = prefix(steps, totals, axis, kind, exclusive=True, reverse=reverse)

    def in_block(*at: Index) -> Expr:
        *place, other = at
        block, here = place[axis] // BLOCK, place[axis] % BLOCK
        value = element(place, block, other)
        return select(counts(here, other), value, const(nothing, dtype))

    def with_carried(inner: Expr, *place: Index) -> Expr:
        block = place[axis] // BLOCK
        function = {comp.SUM: "add", comp.PRODUCT: "mul"}[kind]
        return apply(function, inner, carried[(*place[:axis], block, *place[axis + 1 :])])

    return steps.fold(kind, x.shape, (BLOCK,), in_block, with_carried, to)


def numbered(steps: Steps, flags: Value) -> Value:
    """How many of these flags are set up to and with each position."""
    ones = steps.map(flags.shape, lambda place: select(flags[place], count(1), count(0)))
    return prefix(steps, ones, 0, comp.SUM)


def positions(steps: Steps, upto: Value, wanted: int) -> Value:
    """Where the flags are set, the first ``wanted`` of them, by what ``numbered`` says."""
    (size,) = upto.shape
    return steps.map(
        (wanted,), lambda number: leading(size, lambda place: upto[place] <= count(number))
    )


def positions_of(steps: Steps, flags: Value, wanted: int) -> Value:
    """Where the flags are set. A run in which not just ``wanted`` of them are set fails."""
    upto = numbered(steps, flags)
    node = steps.node
    message = f"{node.op} {node.name!r} did not find the {wanted} that its output declares"
    steps.check((1,), lambda _: upto[flags.shape[0] - 1].equals(wanted), message)
    return positions(steps, upto, wanted)
