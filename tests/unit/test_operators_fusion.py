"""Chains: what the passes merge must compute what the single operators would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator

from ramforge.compiler.expressions import interpret
from ramforge.compiler.expressions.computation import computation_of
from ramforge.compiler.frontend import import_model
from ramforge.compiler.pipeline import optimise
from tests.helpers import Array, Case, check, many, numbers


def weights(*shape: int, seed: int = 5) -> Array:
    return np.asarray(numbers(*shape, seed=seed) / np.float32(np.sqrt(np.prod(shape[1:]))))


def convolution_cases() -> list[Case]:
    image = {"x": numbers(1, 4, 6, 5)}
    kernels = {"w": weights(4, 4, 3, 3), "b": numbers(4), "v": weights(4, 4, 1, 1)}
    statistics = {name: numbers(4, seed=seed) for seed, name in enumerate(("s", "t", "m"))}
    spread = {"q": np.abs(numbers(4, seed=9)) + np.float32(0.5)}
    padded = "pads = [1, 1, 1, 1]"
    return [
        many(
            "a residual that is read twice",
            f"""c = Conv<{padded}>(x, w, b)
            r = Relu(c)
            d = Conv<{padded}>(r, w, b)
            e = Add(d, r)
            y = Relu(e)
            z = Conv(y, v)""",
            image,
            ("y", "z", "r"),
            **kernels,
        ),
        many(
            "a residual of the same convolution twice",
            f"""c = Conv<{padded}>(x, w, b)
            d = Add(c, c)
            e = Mul(d, c)
            y = Sigmoid(e)""",
            image,
            ("y",),
            **kernels,
        ),
        many(
            "padding before convolutions, with zero and with another number",
            """p = Pad(x, by)
            y = Conv(p, w, b)
            q = Pad(x, by, five)
            z = Conv(q, w, b)""",
            image,
            ("y", "z"),
            by=np.array([0, 0, 1, 2, 0, 0, 0, 1]),
            five=np.array(5, np.float32),
            **kernels,
        ),
        many(
            "concatenated convolutions, one of them an output",
            f"""c = Conv<{padded}>(x, w, b)
            d = Conv(x, v)
            e = Relu(d)
            k = Concat<axis = 1>(c, e, x)
            y = Conv(k, u)""",
            image,
            ("y", "e"),
            u=weights(3, 12, 2, 2),
            **kernels,
        ),
        many(
            "batch norm behind a convolution and alone, and a pool behind it",
            f"""c = Conv<{padded}>(x, w, b)
            n = BatchNormalization(c, s, t, m, q)
            r = Relu(n)
            y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], {padded}>(r)
            o = BatchNormalization(r, s, t, m, q)
            z = GlobalAveragePool(o)""",
            image,
            ("y", "z"),
            **kernels,
            **statistics,
            **spread,
        ),
        many(
            "shuffled channels between grouped convolutions",
            """c = Conv<group = 2>(x, g)
            r = Reshape(c, five)
            t = Transpose<perm = [0, 2, 1, 3, 4]>(r)
            f = Reshape(t, four)
            d = Conv<group = 4>(f, h)
            y = Flatten(d)""",
            image,
            ("y",),
            g=weights(8, 2, 1, 1),
            h=weights(8, 2, 3, 3),
            five=np.array([1, 2, 4, 6, 5]),
            four=np.array([1, 8, 6, 5]),
        ),
    ]


def attention_cases() -> list[Case]:
    x = {"x": numbers(2, 7, 12)}
    square = {name: weights(12, 12, seed=seed) for seed, name in enumerate(("wq", "wk", "wv"))}
    shapes = {"heads": np.array([2, 7, 3, 4]), "flat": np.array([2, 7, 12])}
    return [
        many(
            "attention",
            """q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            q4 = Reshape(q, heads)
            k4 = Reshape(k, heads)
            v4 = Reshape(v, heads)
            qt = Transpose<perm = [0, 2, 1, 3]>(q4)
            kt = Transpose<perm = [0, 2, 3, 1]>(k4)
            vt = Transpose<perm = [0, 2, 1, 3]>(v4)
            s = MatMul(qt, kt)
            h = Mul(s, half)
            a = Add(h, mask)
            p = Softmax(a)
            o = MatMul(p, vt)
            ot = Transpose<perm = [0, 2, 1, 3]>(o)
            of = Reshape(ot, flat)
            e = Add(of, x)
            y = LayerNormalization(e, g, d)""",
            {**x, "mask": np.where(numbers(7, 7) > 0.8, np.float32(-1e9), np.float32(0))},
            ("y",),
            **square,
            **shapes,
            half=np.array(0.5, np.float32),
            g=numbers(12, seed=1),
            d=numbers(12, seed=2),
        ),
        many(
            "a product with its own transpose",
            """t = Transpose<perm = [0, 2, 1]>(x)
            y = MatMul(x, t)
            z = MatMul(t, x)
            s = MatMul(z, z)
            u = Add(s, s)""",
            x,
            ("y", "u"),
        ),
        many(
            "layer norm after transposes, softmax over a middle axis of a product",
            """t = Transpose<perm = [2, 0, 1]>(x)
            n = LayerNormalization(t, g)
            m = MatMul(n, w)
            y = Softmax<axis = 1>(m)
            l = LogSoftmax<axis = 0>(y)
            z = ReduceMax<keepdims = 0>(l, first)""",
            x,
            ("y", "z"),
            g=numbers(7),
            w=weights(7, 5),
            first=np.array([1]),
        ),
        many(
            "a gated product read through slices",
            """m = MatMul(x, w)
            a, b = Split<axis = -1, num_outputs = 2>(m)
            s = Sigmoid(a)
            g = Mul(s, b)
            y = Gelu(g)
            z = Slice(m, from, to, axis, step)""",
            x,
            ("y", "z"),
            w=weights(12, 10),
            **{
                name: np.array([value])
                for name, value in (("from", -1), ("to", -100), ("axis", 2), ("step", -3))
            },
        ),
    ]


def graph_cases() -> list[Case]:
    x = numbers(3, 5)
    return [
        many("an input that is an output", "y = Relu(x)", {"x": x}, ("y", "x")),
        many(
            "an output twice",
            "y = Exp(x)\nz = Identity(y)\nu = Identity(y)",
            {"x": x},
            ("y", "z", "u"),
        ),
        many(
            "a constant output",
            "y = Add(x, k)\nz = Identity(k)",
            {"x": x},
            ("y", "z"),
            k=numbers(5),
        ),
        many(
            "an output that is read on",
            "y = Tanh(x)\nz = Neg(y)\nu = Abs(z)",
            {"x": x},
            ("z", "y", "u"),
        ),
        many(
            "movement alone",
            "a = Transpose(x)\nb = Reshape(a, s)\ny = Slice(b, o, p)",
            {"x": x},
            ("y", "b"),
            s=np.array([3, 5]),
            o=np.array([1]),
            p=np.array([3]),
        ),
        many(
            "an unused part of a split",
            "a, b, c = Split(x, s)\ny = Neg(b)",
            {"x": x},
            ("y",),
            s=np.array([1, 1, 1]),
        ),
        many(
            "an empty tensor on the way",
            "e = Slice(x, o, o)\nf = Relu(e)\n"
            "y = Concat<axis = 0>(f, x)\nz = MatMul(t, f)\nu = Identity(f)",
            {"x": x, "t": np.zeros((4, 0), np.float32)},
            ("y", "z", "u"),
            o=np.array([1]),
        ).giving(x, np.zeros((4, 5), np.float32), x[:0]),
        many(
            "gathered by computed places",
            "a = Add(i, one)\nb = Neg(a)\ny = Gather(x, b)",
            {"x": x, "i": np.array([[0, 2], [1, 1]])},
            ("y",),
            one=np.array(1),
        ),
        many(
            "gathered, reshaped, padded",
            "g = Gather(x, i)\nr = Reshape(g, s)\np = Pad(r, o)\ny = Softmax<axis = 0>(p)",
            {"x": x, "i": np.array([-1, 0])},
            ("y",),
            s=np.array([5, 2]),
            o=np.array([1, 0, 1, 2]),
        ),
        many(
            "signs and bounds of integers",
            "a = Sign(i)\nb = Max(a, i)\nc = Relu(b)\n"
            "d = Sign(x)\ne = Exp(d)\nf = Max(e, d)\nh = Sigmoid(f)",
            {"x": x, "i": np.arange(-4, 5, dtype=np.int8)},
            ("c", "h"),
        ).reference(),  # not every ONNX Runtime has Max of int8
        many(
            "powers of constants",
            "a = Neg(k)\ny = Sub(x, a)\nz = Neg(y)",
            {"x": x},
            ("z",),
            k=np.array(-0.0, np.float32),
        ),
        many(
            "many relus",
            "\n".join(f"r{n + 1} = Relu(r{n})" for n in range(30)),
            {"r0": x},
            ("r30",),
        ),
        many(
            "reduced and spread again",
            "m = ReduceMean(x, l)\nd = Sub(x, m)\ns = Mul(d, d)\n"
            "v = ReduceMean(s, l)\ne = Add(v, k)\nq = Sqrt(e)\ny = Div(d, q)\n"
            "c = Cast<to = 7>(m)\nw = Where(b, d, m)",
            {"x": x},
            ("y", "c", "w"),
            l=np.array([1]),
            k=np.array(0.1, np.float32),
            b=numbers(3, 1, dtype=np.bool_),
        ),
    ]


CASES = [*convolution_cases(), *attention_cases(), *graph_cases()]


def test_convolutions_and_what_surrounds_them(tmp_path: Path) -> None:
    check(convolution_cases(), tmp_path)


def test_products_and_what_surrounds_them(tmp_path: Path) -> None:
    check(attention_cases(), tmp_path)


def test_outputs_constants_and_integers(tmp_path: Path) -> None:
    check(graph_cases(), tmp_path)


ROWS_OF_WEIGHTS = "x2 = Reshape(x, flat) p = Gemm(x2, w) "
TAILS = {
    "the same shape": ("y = Relu(p)", "float[6, 5] y", 1),
    "an axis of length 1 more": ("q = Reshape(p, more) y = Add(q, x1)", "float[1, 6, 5] y", 1),
    "axes of length 1 elsewhere": ("q = Reshape(p, apart) y = Relu(q)", "float[6, 1, 5, 1] y", 1),
    "another order": ("q = Transpose<perm=[1, 0]>(p) y = Relu(q)", "float[5, 6] y", 2),
    "another shape": ("q = Reshape(p, other) y = Relu(q)", "float[2, 3, 5] y", 2),
}


@pytest.mark.parametrize("name", TAILS)
def test_a_tail_belongs_to_its_product_whatever_axes_of_length_1_there_are(name: str) -> None:
    tail, output, nodes = TAILS[name]
    constants = (
        "flat = Constant<value_ints=[6, 4]>() more = Constant<value_ints=[1, 6, 5]>() "
        "apart = Constant<value_ints=[6, 1, 5, 1]>() other = Constant<value_ints=[2, 3, 5]>() "
    )
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        f"g (float[1, 6, 4] x, float[1, 6, 5] x1, float[4, 5] w) => ({output})"
        f"{{ {constants} {ROWS_OF_WEIGHTS} {tail} }}"
    )
    graph = optimise(import_model(model))
    assert len(graph.nodes) == nodes
    random = np.random.default_rng(2)
    feeds = {
        value.name: random.standard_normal(
            [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for value in model.graph.input
    }
    known = {**graph.constants, **feeds}
    for node in graph.nodes:
        given = [known[name] for name in node.inputs]
        known[node.outputs[0]] = interpret.run(computation_of(node), given)
    (expected,) = ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_allclose(known["y"], expected, rtol=1e-5, atol=1e-5)
