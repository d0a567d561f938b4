"""Rules of operators that move elements, and of sums and means: each brings them back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from examples.gradients.tape import Rule, Step, Value

_FIRST = -(2**31)


def cut(x: Value, axis: int, start: int, stop: int) -> Value:
    given = (x.tape.indices([number]) for number in (start, stop, axis))
    return x.tape.node("Slice", x, *given)


def flipped(x: Value, axis: int) -> Value:
    given = (x.tape.indices([number]) for number in (-1, _FIRST, axis, -1))
    return x.tape.node("Slice", x, *given)


def padded(x: Value, before: Sequence[int], after: Sequence[int]) -> Value:
    return x.tape.node("Pad", x, x.tape.indices([*before, *after])) if any((*before, *after)) else x


def _padded_axis(x: Value, rank: int, axis: int, before: int, after: int) -> Value:
    def alone(number: int) -> list[int]:
        return [number if i == axis else 0 for i in range(rank)]

    return padded(x, alone(before), alone(after))


def _reshape(step: Step, slope: Value) -> Sequence[Value]:
    return (slope.reshaped(step.shape(0)),)


def _transpose(step: Step, slope: Value) -> Sequence[Value]:
    order = step.attribute("perm", [*reversed(range(len(step.out_shape)))])
    return (slope.transposed(*np.argsort(order).tolist()),)


def _expand(step: Step, slope: Value) -> Sequence[Value]:
    return (slope.summed_to(step.out_shape, step.shape(0)),)


def _concat(step: Step, slope: Value) -> Sequence[Value]:
    axis = step.attribute("axis", 0)
    sizes = [step.shape(slot)[axis] for slot in range(len(step.node.input))]
    given = step.tape.indices(sizes)
    return step.tape.nodes("Split", slope, given, outputs=len(sizes), axis=axis)


def _split(step: Step, *slopes: Value) -> Sequence[Value]:
    return (step.tape.node("Concat", *slopes, axis=step.attribute("axis", 0)),)


def _slice(step: Step, slope: Value) -> Sequence[Value]:
    shape = step.shape(0)
    starts, ends = step.known(1), step.known(2)
    axes = step.axes(3, range(len(starts)))
    strides = step.known(4, [1] * len(starts))
    before, after = [0] * len(shape), [0] * len(shape)
    for axis, start, end, stride in zip(axes, starts, ends, strides, strict=True):
        places = range(*slice(start, end, stride).indices(shape[axis]))
        if abs(stride) != 1 or not places:
            raise step.refused("only steps of 1 and -1 that take something have a rule")
        before[axis], after[axis] = min(places), shape[axis] - 1 - max(places)
        if stride < 0:
            slope = flipped(slope, axis)
    return (padded(slope, before, after),)


def _pad(step: Step, slope: Value) -> Sequence[Value]:
    """What came from the border goes back to where it was taken from."""
    shape, mode = step.shape(0), step.attribute("mode", "constant")
    rank, pads = len(shape), step.known(1)
    axes = step.axes(3, range(rank))
    if mode not in ("constant", "reflect", "edge") or min(pads) < 0:
        raise step.refused("only constant, reflect and edge have a rule, with pads from 0 on")
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        size = shape[axis]
        inner = cut(slope, axis, before, before + size)
        left = cut(slope, axis, 0, before)
        right = cut(slope, axis, before + size, before + size + after)
        for border, count, is_left in ((left, before, True), (right, after, False)):
            if mode != "constant" and count:
                inner = inner + _folded(border, axis, count, shape, mode, is_left)
        slope = inner
    return (slope,)


def _folded(
    border: Value, axis: int, count: int, shape: Sequence[int], mode: str, is_left: bool
) -> Value:
    """The border's gradient at the pixels that it shows."""
    mirrored = mode == "reflect"
    back = flipped(border, axis) if mirrored else border.summed([axis])
    wide, near = (count, 1) if mirrored else (1, 0)
    far = shape[axis] - wide - near
    return _padded_axis(back, len(shape), axis, *((near, far) if is_left else (far, near)))


def _reduced(step: Step, slope: Value) -> tuple[Value, int]:
    """The gradient of a sum, and how many elements each has."""
    shape = step.shape(0)
    axes = step.axes(1)
    if not axes and not step.attribute("noop_with_empty_axes", 0):
        axes = [*range(len(shape))]
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    return slope.reshaped(kept).expanded(shape), math.prod(shape[axis] for axis in axes)


def _reduce_sum(step: Step, slope: Value) -> Sequence[Value]:
    return (_reduced(step, slope)[0],)


def _reduce_mean(step: Step, slope: Value) -> Sequence[Value]:
    spread, count = _reduced(step, slope)
    return (spread / float(count),)


def _global_average_pool(step: Step, slope: Value) -> Sequence[Value]:
    shape = step.shape(0)
    return (slope.expanded(shape) / float(math.prod(shape[2:])),)


RULES: Mapping[str, Rule] = {
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Expand": _expand,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "ReduceSum": _reduce_sum,
    "ReduceMean": _reduce_mean,
    "GlobalAveragePool": _global_average_pool,
}
