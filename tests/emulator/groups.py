"""What is run: for every family of bodies the sizes that fill no tile, no warp and no chunk.

Products are of small whole numbers. Their sums are exact in any order and in every precision, so
that whatever is added once too often, or not at all, shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from ramforge.compiler.device import PRECISIONS, THREADS
from ramforge.compiler.schedule import POLICIES
from ramforge.kernels.tiles import TILES
from tests.emulator.running import Group
from tests.helpers import Array, Case, Known, ints, many, numbers, one

SIZES = (1, 7, 63, 65, 1000)
# So many multiplications a race build gets through in a fraction of a second, and any other.
FEW, MANY = 300_000, 4_500_000
SOURCES = ("packed", "dense", "along k")
TOLERANCES = {"fp32": 1e-4, "tf32": 4e-3, "fp16": 4e-3, "bf16": 4e-2}


def groups() -> list[Group]:
    """All of them; a new kind of body is one more entry."""
    return [
        *_products(),
        *_convolutions(),
        *_attention(),
        *_cells(),
        Group("integer products", lambda: list(integer_products())),
        Group("rows", lambda: list(rows())),
        Group("rows, 128 threads", lambda: list(rows()), threads=THREADS[1]),
        Group("reductions", lambda: list(reductions())),
        Group("reductions, 128 threads", lambda: list(reductions()), threads=THREADS[1]),
        Group("windows", lambda: list(windows())),
        Group("maps", lambda: list(maps())),
        *(Group(f"barriers, {name}", lambda: [barriers()], policy=name) for name in POLICIES),
    ]


def _products() -> Iterator[Group]:
    """Each size in as many tiles as there are sources and sizes of a block."""
    kinds = list(itertools.product(PRECISIONS, SOURCES))
    for number, (precision, source) in enumerate(kinds):
        for threads in THREADS:
            name = f"products, {precision}, {source}, {threads} threads"
            first = number + 4 * THREADS.index(threads)
            yield Group(name, _few(source), precision, threads, first=first)
        name = f"large products, {precision}, {source}"
        yield Group(name, _many(source), precision, first=number, is_large=True)
    for dtype in (np.float16, ml_dtypes.bfloat16, np.int8):
        name = f"products, weights in {np.dtype(dtype).name}"
        yield Group(name, lambda dtype=dtype: list(_widened(dtype)))  # type: ignore[misc]


def _few(source: str) -> Any:
    """And one in a row in every tile."""
    in_all = [product(source, 65, 65, 63)] * len(TILES)
    return lambda: [*in_all, *(product(source, *each) for each in sizes(1, FEW))]


def _many(source: str) -> Any:
    return lambda: [product(source, *each) for each in sizes(FEW + 1, MANY)]


def sizes(fewest: int, most: int) -> list[tuple[int, int, int]]:
    """M, N and K of products with so many multiplications."""
    return [
        each
        for each in itertools.product((*SIZES, 3), SIZES, SIZES)
        if fewest <= np.prod(each) <= most
    ]


def whole(*shape: int, seed: int = 0) -> Array:
    """Small whole numbers."""
    random = np.random.default_rng([seed, *shape])
    return random.integers(-8, 9, shape).astype(np.float32)


def product(source: str, m: int, n: int, k: int) -> Case:
    name, x = f"[{m} x {k}] by [{k} x {n}], {source}", whole(m, k)
    if source == "packed":
        text = "p = MatMul(x, w)\ns = Add(p, b)\ny = Relu(s)"
        case = many(name, text, {"x": x}, ["y"], w=whole(k, n, seed=1), b=whole(n, seed=2))
    elif source == "dense":
        case = many(name, "y = MatMul(x, w)", {"x": x, "w": whole(k, n, seed=1)}, ["y"])
    else:
        text = "t = Transpose<perm=[1, 0]>(w)\ny = MatMul(x, t)"
        case = many(name, text, {"x": x, "w": whole(n, k, seed=1)}, ["y"])
    return replace(case, tolerance=0.0)


def _widened(dtype: Any) -> Iterator[Case]:
    """Products of floats and weights that are stored in fewer bits."""
    for m, n, k in (*[(65, 65, 63)] * len(TILES), *sizes(1, FEW)):
        text = "v = Cast<to=1>(w)\ny = MatMul(x, v)"
        weights = whole(k, n, seed=1).astype(dtype)
        name = f"[{m} x {k}] by [{k} x {n}]"
        yield replace(many(name, text, {"x": whole(m, k)}, ["y"], w=weights), tolerance=0.0)


def _convolutions() -> Iterator[Group]:
    for number, precision in enumerate(PRECISIONS):
        name = f"convolutions, {precision}"
        yield Group(name, lambda: list(convolutions()), precision, first=number)


def convolutions() -> Iterator[Case]:
    shapes: tuple[tuple[tuple[int, int], dict[str, Any]], ...] = (
        ((1, 1), {}),
        ((3, 3), {"pads": [1, 1, 1, 1]}),
        ((3, 3), {"pads": [1, 0, 0, 2], "strides": [2, 2]}),
        ((2, 5), {"pads": [0, 2, 1, 2], "dilations": [2, 1]}),
    )
    for channels, filters, (kernel, attributes) in itertools.product(
        (1, 3, 8, 65), (1, 7, 65), shapes
    ):
        x, w = whole(1, channels, 9, 7), whole(filters, channels, *kernel, seed=1)
        case = one("Conv", x, Known(w), Known(whole(filters, seed=2)), **attributes)
        yield replace(case, tolerance=0.0)
    for batch, size in ((2, (5, 5)), (1, (1, 1)), (1, (17, 33))):
        x, w = whole(batch, 7, *size), whole(9, 7, 3, 3, seed=1)
        yield replace(one("Conv", x, Known(w), pads=[1, 1, 1, 1]), tolerance=0.0)
    for channels, group in ((6, 3), (24, 3), (130, 2)):
        x, w = whole(1, channels, 6, 5), whole(2 * channels, channels // group, 3, 3, seed=1)
        yield replace(one("Conv", x, Known(w), group=group, pads=[1, 1, 1, 1]), tolerance=0.0)


def _attention() -> Iterator[Group]:
    for number, precision in enumerate(PRECISIONS):
        for threads in THREADS:
            name = f"attention, {precision}, {threads} threads"
            cases = _attentions(TOLERANCES[precision])
            yield Group(name, cases, precision, threads, first=number)


def _attentions(tolerance: float) -> Any:
    return lambda: [replace(case, tolerance=tolerance) for case in attentions()]


def attentions() -> Iterator[Case]:
    """Heads side by side, with and without a mask; queries, keys and width of a head. One in a row
    in every tile.
    """
    text = """
        t = Transpose<perm=[0, 2, 1]>(k)
        q1 = Mul(q, scale)
        s = MatMul(q1, t)
        m = Add(s, mask)
        p = Softmax<axis=-1>(m)
        y = MatMul(p, v)
    """
    shapes = [
        *[(65, 130, 64)] * 3,  # six cases, more than there are candidates
        *itertools.product((1, 3, 7, 65), (1, 63, 65, 200), (7, 64)),
        *((1, 1000, 64), (7, 1000, 65), (63, 65, 1)),
    ]
    for queries, keys, width in shapes:
        q, k, v = (numbers(2, n, width, seed=n) for n in (queries, keys, keys))
        scale = np.array(width**-0.5, np.float32)
        masked = np.arange(keys) > np.arange(queries)[:, None] + keys - queries
        masks = {"": np.zeros((1, 1), np.float32)}
        if keys >= queries:
            masks[", causal"] = np.where(masked, -1e9, 0).astype(np.float32)
        for label, mask in masks.items():
            name = f"{queries} queries, {keys} keys, {width} wide{label}"
            yield many(name, text, {"q": q, "k": k, "v": v}, ["y"], scale=scale, mask=mask)


def _cells() -> Iterator[Group]:
    for number, precision in enumerate(PRECISIONS):
        name, tolerance = f"cells, {precision}", TOLERANCES[precision]
        yield Group(name, _states(tolerance), precision, THREADS[number % 2], first=number)


def _states(tolerance: float) -> Any:
    return lambda: [replace(case, tolerance=tolerance) for case in cells()]


def cells() -> Iterator[Case]:
    """A step of an LSTM and what reads both its states; rows, and the width of a state."""
    text = """
        p = MatMul(x, w)
        a, b, c, d = Split<axis = 1, num_outputs = 4>(p)
        i = Sigmoid(a)
        f = Sigmoid(b)
        o = Sigmoid(c)
        g = Tanh(d)
        k = Mul(f, s)
        m = Mul(i, g)
        state = Add(k, m)
        t = Tanh(state)
        h = Mul(o, t)
        r = MatMul(h, v)
        y = Add(r, state)
    """
    for rows_, width, depth in ((1, 8, 64), (2, 16, 8), (3, 48, 1000), (4, 64, 64)):
        x, s = numbers(rows_, depth), numbers(rows_, width, seed=1)
        w, v = numbers(depth, 4 * width, seed=2), numbers(width, width, seed=3)
        weights = {"w": w / np.float32(np.sqrt(depth)), "v": v / np.float32(np.sqrt(width))}
        name = f"{rows_} rows, {width} wide, of {depth}"
        yield many(name, text, {"x": x, "s": s}, ["y"], **weights)


def integer_products() -> Iterator[Case]:
    shapes = itertools.product((1, 7, 65), (1, 63, 65), SIZES)
    for m, n, k in (*[(65, 65, 63)] * len(TILES), *shapes):
        for left, right in ((np.uint8, np.int8), (np.int8, np.int8)):
            a, b = numbers(m, k, dtype=left), numbers(k, n, seed=1, dtype=right)
            zeros = left(5), right(-3)
            yield one("MatMulInteger", a, Known(b), Known(zeros[0]), Known(zeros[1]))


def rows() -> Iterator[Case]:
    for height, width in itertools.product((1, 7, 65), SIZES):
        x = numbers(height, width)
        for axis in (-1, 0):
            yield one("Softmax", x, axis=axis)
            yield one("LogSoftmax", x, axis=axis)
        scale, bias = Known(numbers(width, seed=1)), Known(numbers(width, seed=2))
        yield one("LayerNormalization", x, scale, bias)
        text = """
            s = Mul(x, x)
            m = ReduceMean<keepdims=1>(s, last)
            e = Add(m, epsilon)
            r = Sqrt(e)
            d = Div(x, r)
            y = Mul(d, w)
        """
        constants = {"last": np.array([-1]), "epsilon": np.array(1e-6, np.float32)}
        name = f"root mean square of rows {height} x {width}"
        yield many(name, text, {"x": x}, ["y"], w=numbers(width, seed=3), **constants)
    for channels, area in ((1, 63), (7, 65), (65, 7)):
        x = numbers(2, channels, area)
        scale, bias = Known(numbers(channels, seed=1)), Known(numbers(channels, seed=2))
        yield one("InstanceNormalization", x, scale, bias)


def reductions() -> Iterator[Case]:
    kinds = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp")
    shapes = [(7, *each) for each in itertools.product((1, 65), SIZES)]
    axes = ((2,), (1,), (0, 2), (0, 1))
    for shape, number, op in itertools.product(shapes, range(len(axes)), kinds):
        yield one(op, numbers(*shape), ints(*axes[number]), keepdims=number % 2)
    for width in SIZES:
        yield one("ArgMax", numbers(7, width), axis=1)
        yield one("CumSum", whole(7, width), Known(np.array(1)))


def windows() -> Iterator[Case]:
    """Folds over windows: pooling and depthwise convolutions."""
    for channels, size in itertools.product((1, 7, 65), ((9, 7), (33, 5))):
        x = numbers(1, channels, *size)
        pooled = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
        yield one("MaxPool", x, **pooled)
        yield one("AveragePool", x, count_include_pad=channels % 2, **pooled)
        yield one("GlobalAveragePool", x)
    for channels, kernel in itertools.product((1, 7, 65, 1000), (3, 5)):
        x, w = whole(1, channels, 8, 6), whole(channels, 1, kernel, kernel, seed=1)
        same = [kernel // 2] * 4
        for stride in (1, 2):
            case = one("Conv", x, Known(w), group=channels, pads=same, strides=[stride, stride])
            yield replace(case, tolerance=0.0)


def maps() -> Iterator[Case]:
    for width in SIZES:
        x = numbers(7, 3, width)
        yield one("Add", x, numbers(3, 1))
        yield one("Mul", x, numbers(width))
        yield one("Transpose", x, perm=[2, 0, 1])
        yield one("Concat", x, numbers(7, 2, width), axis=1)
        yield one("Concat", x, numbers(7, 3, 5), axis=2)
        yield one("Pad", x, ints(0, 1, 2, 1, 0, 3))
        yield one("Slice", x, ints(6, -1), ints(-8, -(10**6)), ints(0, 2), ints(-2, -1))
        yield one("Gather", x, Known(np.array([2, 0, 0, 1])), axis=1)
        yield one("Where", numbers(7, 3, width, dtype=np.bool_), x, numbers(7, 3, width, seed=1))
        yield one("Erf", x)
        yield one("Tanh", x)
        yield one("Cast", x, to=6)


def barriers() -> Case:
    """A chain in which every step reads what many others wrote in the step before."""
    steps = "\n".join(
        f"t{i} = Transpose<perm=[1, 0]>(a{i})\ns{i} = Softmax(t{i})\na{i + 1} = Add(s{i}, x)"
        for i in range(6)
    )
    text = f"a0 = Neg(x)\n{steps}\ny = Neg(a6)"
    return many("a chain of transposed softmaxes", text, {"x": numbers(65, 65)}, ["y"])
