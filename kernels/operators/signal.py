"""DFT and STFT.

A transform of n = r * s elements is one of r elements for every s-th one, and then one of s
elements for each result: a step for each factor of n. Angles are whole parts of a turn, reduced as
integers, so that they are as exact for the last element as for the first.

Of a real signal, and for a large factor, a step is a sum of r products. Others go through sums and
differences of opposite elements, in the order of NumPy's pocketfft. There each product is rounded
by itself: fused with a sum, x * w - x * w would be a rounding error and not 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions.functions import define
from ramforge.compiler.expressions.index import Index, constant
from ramforge.compiler.expressions.steps import Place, Steps, Value
from ramforge.compiler.expressions.terms import Expr, apply, const, inside, select, value_of
from ramforge.compiler.ir import Array, DType, Graph, Node
from ramforge.compiler.registry import Operator, Told, register, untold
from ramforge.kernels.operators.declared import exactly, some_axes
from ramforge.kernels.operators.movement import constant_input

# Factors up to this one are joined where steps are sums: fewer steps for a few more products.
WIDEST_STEP = 32
# Factors up to this one are butterflies, each written out.
WIDEST_BUTTERFLY = 11

define("product", "rf_product({0}, {1})", np.multiply)


def factors(size: int) -> list[int]:
    """Numbers whose product is ``size``: primes, where they are small joined into a few numbers of
    about the same size.
    """
    primes = _primes(size)
    small = sorted((prime for prime in primes if prime <= WIDEST_STEP), reverse=True)
    joined, count = [size], 0
    while small and max(joined) > WIDEST_STEP:
        count += 1
        joined = [1] * count
        for prime in small:
            joined.sort()
            joined[0] *= prime
    large = [prime for prime in primes if prime > WIDEST_STEP]
    return sorted([*(joined if small else ()), *large]) or [1]


def radices(size: int) -> list[int]:
    """Numbers whose product is ``size``: primes, but 8 and 4 for most twos."""
    primes = _primes(size)
    twos = primes.count(2)
    eights, rest = divmod(twos, 3)
    two, four = [2] * (rest == 1), [4] * (rest == 2)
    return [*two, *[8] * eights, *four, *primes[twos:]] or [1]


def _primes(size: int) -> list[int]:
    primes: list[int] = []
    rest, divisor = size, 2
    while rest > 1:
        while rest % divisor == 0:
            primes.append(divisor)
            rest //= divisor
        divisor = divisor + 1 if divisor * divisor <= rest else max(rest, 2)
    return primes


# Gives a part of a complex number, real (0) or imaginary (1): read(before, low, n, after, part).
Read = Callable[[Sequence[Index], Index, Index, Sequence[Index], Index], Expr]


@dataclass(frozen=True, slots=True)
class Signal:
    """Numbers along an axis that is to be transformed, and the sizes of the axes before and after.

    ``low`` in ``read`` counts the transforms that it has become so far.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    read: Read
    is_real: bool = False


class Transform:
    """``sum over n of signal[n] * exp(-2 pi i k n / size)``, or with plus if it is the inverse."""

    def __init__(self, steps: Steps, working: DType, inverse: bool, size: int) -> None:
        self.steps = steps
        self.size = size
        cosine, sine = _circle(size)
        if inverse:
            sine = -sine
        # what each part of a product takes of the same part of a number, and of its other part
        self.same = steps.constant(cosine.astype(working.numpy))
        self.other = steps.constant(np.stack([sine, -sine], axis=-1).astype(working.numpy))
        # and what it takes of a real number
        self.real = steps.constant(np.stack([cosine, -sine], axis=-1).astype(working.numpy))

    def run(self, signal: Signal, wanted: int, parts: int, finish: Callable[..., Expr]) -> None:
        """Make the node's output of the first elements; ``parts`` is 1 for the real ones alone."""
        done, rank = 1, len(signal.before)
        sums = signal.is_real
        *early, last = factors(self.size) if sums else radices(self.size)
        for factor in early:
            left = self.size // done // factor
            shape = (*signal.before, done * factor, left, *signal.after, 2)
            if sums or factor > WIDEST_BUTTERFLY:
                term = self._term(signal, done, factor)
                value = self.steps.fold(comp.SUM, shape, (factor,), term)
            else:
                value = self.steps.map(shape, self._butterfly(signal, done, factor))
            signal = self._signal(signal, value)
            done *= factor
        shape = (*signal.before, wanted, *signal.after, parts)

        def of_output(formula: Callable[..., Expr]) -> Callable[..., Expr]:
            return lambda *at: formula(*at[: rank + 1], constant(0), *at[rank + 1 :])

        if sums or last > WIDEST_BUTTERFLY:
            term = of_output(self._term(signal, done, last))
            self.steps.fold(comp.SUM, shape, (last,), term, finish, to=0)
        else:
            element = of_output(self._butterfly(signal, done, last))
            self.steps.map(shape, lambda *at: finish(element(*at), *at), to=0)

    @staticmethod
    def _signal(old: Signal, value: Value) -> Signal:
        return Signal(
            old.before,
            old.after,
            lambda before, low, n, after, part: value.at([*before, low, n, *after, part]),
        )

    def _term(self, signal: Signal, done: int, factor: int) -> Callable[..., Expr]:
        """One of the products that make ``[done * factor, left]`` of ``signal[done, length]``."""
        length, rank = self.size // done, len(signal.before)
        left = length // factor

        def term(*at: Index) -> Expr:
            before, (result, here), rest = at[:rank], at[rank : rank + 2], at[rank + 2 :]
            *after, part, number = rest
            n = number * left + here
            turn = _turn(result // done, n, length, done)

            def read(part: Index) -> Expr:
                return signal.read(before, result % done, n, after, part)

            if signal.is_real:
                return read(constant(0)) * self.real[turn, part]
            return read(part) * self.same[turn] + read(part * -1 + 1) * self.other[turn, part]

        return term

    def _butterfly(self, signal: Signal, done: int, factor: int) -> Callable[..., Expr]:
        """``[done * factor, left]`` of ``signal[done, length]``: sums over ``factor`` elements that
        are ``left`` apart, turned to where the next step needs them.
        """
        length, rank = self.size // done, len(signal.before)
        left = length // factor

        def element(*at: Index) -> Expr:
            before, (result, here), (*after, part) = at[:rank], at[rank : rank + 2], at[rank + 2 :]
            place = result // done

            def read(number: int, part: Index) -> Expr:
                return signal.read(before, result % done, here + number * left, after, part)

            def total(part: Index, opposite: Index) -> Expr:
                same, other = read(0, part), None
                if factor % 2 == 0:
                    turn = place * (factor // 2) % factor * (self.size // factor)
                    same += _product(read(factor // 2, part), self.same[turn])
                for number in range(1, (factor + 1) // 2):
                    turn, mirror = place * number % factor * (self.size // factor), factor - number
                    alike = read(number, part) + read(mirror, part)
                    unlike = read(number, opposite) - read(mirror, opposite)
                    same += _product(alike, self.same[turn])
                    crossed = _product(unlike, self.other[turn, part])
                    other = crossed if other is None else other + crossed
                return same if other is None else same + other

            opposite = part * -1 + 1
            if left == 1:
                return total(part, opposite)
            turn = _turn(place, here, length, done)
            own = _product(total(part, opposite), self.same[turn])
            return own + _product(total(opposite, part), self.other[turn, part])

        return element


def _product(a: Expr, b: Expr) -> Expr:
    return apply("product", a, b)


def _circle(size: int) -> tuple[Array, Array]:
    """Cosine and sine of each part of a turn; quarter turns are exact."""
    angle = 2 * np.pi * np.arange(size) / size
    values = np.stack([np.cos(angle), np.sin(angle)])
    cosine, sine = np.where(np.abs(values) < 1e-15, 0.0, values)
    return cosine, sine


def _turn(k: Index, n: Index, length: int, step: int) -> Place:
    """``k * n`` parts of ``length``, counted in parts of the whole transform."""
    if k.is_const or n.is_const:
        return (k * n.const if n.is_const else n * k.const) % length * step
    kind = DType.INT32 if length * length < 2**31 else DType.INT64
    product = value_of(k, kind) * value_of(n, kind)
    return (product - apply("divide", product, const(length, kind)) * length) * step


def _working(dtype: DType) -> DType:
    return DType.FLOAT64 if dtype is DType.FLOAT64 else DType.FLOAT32


def _dft(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x = steps.given(0)
    axis, size = _axis(node, graph), _length(node, graph)
    inverse, half = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    working = _working(x.dtype)

    def read(
        before: Sequence[Index], low: Index, n: Index, after: Sequence[Index], part: Index
    ) -> Expr:
        return x.at([*before, n, *after, part], 0).cast(working)

    signal = Signal(x.shape[:axis], x.shape[axis + 1 : -1], read, x.shape[-1] == 1)
    if inverse and half:
        signal = _completed(steps, signal, size)

    def finish(value: Expr, *at: Index) -> Expr:
        return value / size if inverse else value

    shape = steps.shape()
    Transform(steps, working, inverse, size).run(signal, shape[axis], shape[-1], finish)
    return steps.nodes()


def _completed(steps: Steps, signal: Signal, size: int) -> Signal:
    """The spectrum of a real signal, from its first half: the other half is conjugated.

    The numbers that are their own conjugates have no imaginary part.
    """
    rank = len(signal.before)

    def element(*at: Index) -> Expr:
        before, n, (*after, part) = at[:rank], at[rank], at[rank + 1 :]
        real = inside(part, 0, 1)
        first = signal.read(before, constant(0), n, after, part)
        mirrored = signal.read(before, constant(0), n * -1 + size, after, part)
        second = select(real, mirrored, -mirrored)
        value = select(inside(n, 0, size // 2 + 1), first, second)
        is_own = inside(n * 2 % size, 0, 1)
        return select(real | ~is_own, value, const(0, value.dtype))

    # a signal that is real has no imaginary part to read
    parts = 1 if signal.is_real else 2
    value = steps.map((*signal.before, size, *signal.after, parts), element)

    def read(
        before: Sequence[Index], low: Index, n: Index, after: Sequence[Index], part: Index
    ) -> Expr:
        return value.at([*before, n, *after, part])

    return Signal(signal.before, signal.after, read, signal.is_real)


def _axis(node: Node, graph: Graph) -> int:
    given = constant_input(node, graph, 2)
    rank = len(graph.tensor(node.inputs[0]).shape)
    return (-2 if given is None else int(given.reshape(()).item())) % rank


def _length(node: Node, graph: Graph) -> int:
    given = constant_input(node, graph, 1)
    if given is not None:
        return int(given.reshape(()).item())
    size = graph.tensor(node.inputs[0]).shape[_axis(node, graph)]
    return 2 * (size - 1) if node.attr("inverse", 0) and node.attr("onesided", 0) else size


def _refuse_dft(node: Node, graph: Graph) -> tuple[str, str] | None:
    x, y = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    if len(x.shape) < 2 or x.shape[-1] not in (1, 2):
        return f"{x.shape} is no signal of real or complex numbers", "make the last axis 1 or 2"
    axis, size = _axis(node, graph), _length(node, graph)
    if axis == len(x.shape) - 1:
        return "the last axis is that of the complex numbers", "use another axis"
    inverse, half = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    wanted = size // 2 + 1 if half and not inverse else size
    expected = (*x.shape[:axis], wanted, *x.shape[axis + 1 : -1], 1 if half and inverse else 2)
    if y.size and y.shape != expected:
        return f"its output is declared as {y.shape}, and is {expected}", "correct the shape"
    return None


def _stft(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, window = steps.given(0), steps.optional(2)
    given = constant_input(node, graph, 1)
    assert given is not None
    step, size = int(given.reshape(()).item()), _frame_length(node, graph)
    working = _working(x.dtype)

    def read(
        before: Sequence[Index], low: Index, n: Index, after: Sequence[Index], part: Index
    ) -> Expr:
        batch, frame = before
        value = x.at([batch, frame * step + n, part], 0).cast(working)
        return value if window is None else value * window[n].cast(working)

    batch, frames, wanted, parts = steps.shape()
    signal = Signal((batch, frames), (), read, x.shape[-1] == 1)
    Transform(steps, working, False, size).run(signal, wanted, parts, lambda value, *at: value)
    return steps.nodes()


def _frame_length(node: Node, graph: Graph) -> int:
    given = constant_input(node, graph, 3)
    if given is not None:
        return int(given.reshape(()).item())
    if len(node.inputs) > 2 and node.inputs[2]:
        return graph.tensor(node.inputs[2]).shape[0]
    return graph.tensor(node.inputs[0]).shape[1]


def _refuse_stft(node: Node, graph: Graph) -> tuple[str, str] | None:
    shape = graph.tensor(node.inputs[0]).shape
    if len(shape) != 3 or shape[-1] not in (1, 2):
        return f"{shape} is no signal of real or complex numbers", "give [batch, length, 1 or 2]"
    size = _frame_length(node, graph)
    if len(node.inputs) > 2 and node.inputs[2]:
        window = graph.tensor(node.inputs[2]).shape
        if window != (size,):
            return f"the window is {window} and a frame has {size}", "make them equally long"
    bins = size // 2 + 1 if node.attr("onesided", 1) else size
    found = graph.tensor(node.outputs[0]).shape
    if found[2:] != (bins, 2):
        return f"its output is declared as {found}, with {bins} bins", "correct the shape"
    return None


def _dft_length(node: Node, graph: Graph, slot: int) -> Sequence[Told]:
    """The axis has to be known first; half a spectrum may be that of two lengths."""
    if len(node.inputs) > 2 and node.inputs[2] and node.inputs[2] not in graph.constants:
        return ()
    size = graph.tensor(node.outputs[0]).shape[_axis(node, graph)]
    if node.attr("onesided", 0) and not node.attr("inverse", 0):
        return [exactly(2 * size - 2), exactly(2 * size - 1)]
    return (exactly(size),)


register(Operator("DFT", _dft, _refuse_dft, needs={2: some_axes, 1: _dft_length}))
register(Operator("STFT", _stft, _refuse_stft, needs={1: untold, 3: untold}))
