"""Rules of matrix products, convolutions and softmax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from examples.gradients.movement import cut
from examples.gradients.tape import Rule, Step, Value


def _flip(x: Value, rank: int) -> Value:
    """The last two axes exchanged."""
    return x.transposed(*range(rank - 2), rank - 1, rank - 2)


def _matmul(step: Step, slope: Value) -> Sequence[Value]:
    shapes = [step.shape(0), step.shape(1)]
    a, b = step.input(0), step.input(1)
    if min(map(len, shapes)) < 2:
        raise step.refused("only operands with two axes or more have a rule")
    batch = step.out_shape[:-2]
    product = step.tape.node
    found = (
        product("MatMul", slope, _flip(b, len(shapes[1]))),
        product("MatMul", _flip(a, len(shapes[0])), slope),
    )
    return [
        each.summed_to((*batch, *shape[-2:]), shape)
        for each, shape in zip(found, shapes, strict=True)
    ]


def _gemm(step: Step, slope: Value) -> Sequence[Value]:
    a, b = step.input(0), step.input(1)
    product = step.tape.node
    scaled = slope * float(step.attribute("alpha", 1.0))
    flip_a, flip_b = step.attribute("transA", 0), step.attribute("transB", 0)
    by_a = product("Gemm", scaled, b, transB=1 - flip_b)
    if flip_a:
        by_a = product("Gemm", b, scaled, transA=flip_b, transB=1)
    by_b = product("Gemm", a, scaled, transA=1 - flip_a)
    if flip_b:
        by_b = product("Gemm", scaled, a, transA=1, transB=flip_a)
    if not step.has(2):
        return (by_a, by_b)
    offset = slope * float(step.attribute("beta", 1.0))
    return (by_a, by_b, offset.summed_to(step.out_shape, step.shape(2)))


def _conv(step: Step, slope: Value) -> Sequence[Value]:
    size, kernel = step.shape(0)[2:], step.shape(1)[2:]
    spatial = len(size)
    if step.attribute("auto_pad", "NOTSET") != "NOTSET":
        raise step.refused("only pads that are spelled out have a rule")
    strides = list(step.attribute("strides", [1] * spatial))
    dilations = list(step.attribute("dilations", [1] * spatial))
    pads = list(step.attribute("pads", [0] * 2 * spatial))
    groups = step.attribute("group", 1)
    # the pixels at the end that no window reaches
    reached = [
        (out - 1) * stride + (width - 1) * dilation + 1 - before - after
        for out, stride, width, dilation, before, after in zip(
            step.out_shape[2:], strides, kernel, dilations, pads, pads[spatial:], strict=False
        )
    ]
    rest = [whole - part for whole, part in zip(size, reached, strict=True)]
    by_x = step.tape.node(
        "ConvTranspose",
        slope,
        step.input(1),
        strides=strides,
        dilations=dilations,
        pads=pads,
        group=groups,
        output_padding=rest,
    )
    by_weight = _by_weight(step, slope, strides, dilations, pads, groups)
    over = [0, *range(2, 2 + spatial)]
    return (by_x, by_weight, slope.summed(over, keep=False))[: len(step.node.input)]


def _by_weight(
    step: Step,
    slope: Value,
    strides: list[int],
    dilations: list[int],
    pads: list[int],
    groups: int,
) -> Value:
    """The image convolved with the gradient, batch and channels exchanged: what was a stride of the
    window is now a distance between its elements.
    """
    batch, _, *size = step.shape(0)
    _, each, *kernel = step.shape(1)
    x = step.input(0).reshaped([batch, groups, each, *size])
    x = x.transposed(2, 1, 0, *range(3, 3 + len(size))).reshaped([each, groups * batch, *size])
    swapped = [1, 0, *range(2, 2 + len(size))]
    found = step.tape.node(
        "Conv",
        x,
        slope.transposed(*swapped),
        strides=dilations,
        dilations=strides,
        pads=pads,
        group=groups,
    )
    found = found.transposed(*swapped)
    for axis, wide in enumerate(kernel, start=2):
        found = cut(found, axis, 0, wide)
    return found


def _softmax(step: Step, slope: Value) -> Sequence[Value]:
    y, axis = step.output, step.attribute("axis", -1)
    return (y * (slope - (slope * y).summed([axis])),)


def _log_softmax(step: Step, slope: Value) -> Sequence[Value]:
    axis = step.attribute("axis", -1)
    return (slope - step.output.apply("Exp") * slope.summed([axis]),)


RULES: Mapping[str, Rule] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
}
