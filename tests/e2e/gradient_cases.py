"""A case for each rule of examples/gradients, with central differences as what it has to give.

Everything is in float64: the differences by ONNX Runtime, or by onnx.reference where that lacks an
operator in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

from examples.gradients import gradient_name, with_gradients
from tests.helpers import OPSET, Array, Case, many

STEP, TOLERANCE = 1e-6, 1e-7


class Erf(OpRun):
    """That of onnx.reference rounds to float32."""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.vectorize(math.erf)(x),)


class GridSample(OpRun):
    """That of onnx.reference rounds places to float32; ONNX Runtime's does not."""

    def _run(self, x: Array, grid: Array, **attributes: Any) -> tuple[Array]:
        attributes["mode"] = "linear"
        return (_sampler(x.shape, grid.shape, **attributes).run(None, {"x": x, "grid": grid})[0],)


@cache
def _sampler(
    image: tuple[int, ...], grid: tuple[int, ...], **attributes: Any
) -> onnxruntime.InferenceSession:
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], **attributes)
    model = model_of([node], {"x": np.zeros(image), "grid": np.zeros(grid)}, {}, ["y"])
    return session_of(model)


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def numbers(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape)


def positive(*shape: int) -> Array:
    return numbers(*shape, low=0.5)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Array],
    constants: Mapping[str, Array],
    outputs: Sequence[str],
    opset: int = OPSET,
) -> onnx.ModelProto:
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in inputs.items()}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kinds[name], inputs[name].shape) for name in inputs],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def evaluate(model: onnx.ModelProto) -> Callable[[Mapping[str, Array]], Array]:
    """The loss, by ONNX Runtime where it has all operators in float64."""
    try:
        session = session_of(model)
    except NoKernel:
        session = ReferenceEvaluator(model, new_ops=[Erf, GridSample])
    return lambda inputs: np.asarray(session.run(["loss"], dict(inputs))[0])


def central_differences(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    evaluated = evaluate(model)

    def loss(changed: str, place: int, by: float) -> float:
        array = inputs[changed].copy()
        array.flat[place] += by
        return float(evaluated({**inputs, changed: array}))

    slopes = []
    for name, array in inputs.items():
        pairs = [(loss(name, i, STEP), loss(name, i, -STEP)) for i in range(array.size)]
        slope = np.array([(above - below) / (2 * STEP) for above, below in pairs])
        slopes.append(slope.reshape(array.shape))
    return slopes


def case(text: str, inputs: Mapping[str, Array], **constants: Array) -> Case:
    """The backward graph of ``text``, which computes y."""
    return backward(many(text, text, inputs, ["y"], **constants))


def backward(made: Case) -> Case:
    """What the gradients of a case have to be, for a loss that weighs each number of its output."""
    inputs, y = made.inputs, made.outputs[0]
    alone = model_of(made.nodes, inputs, made.constants, [y], made.opset)
    shape = ReferenceEvaluator(alone).run(None, dict(inputs))[0].shape
    constants = {**made.constants, "weights": numbers(*shape, seed=9)}
    ending = (
        helper.make_node("Mul", [y, "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted"], ["loss"], keepdims=0),
    )
    plain = model_of((*made.nodes, *ending), inputs, constants, ["loss"], made.opset)
    model = with_gradients(plain, "loss", list(inputs))
    known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    names = tuple(map(gradient_name, inputs))
    nodes = tuple(model.graph.node)
    whole = Case(made.name, nodes, inputs, names, known, tolerance=TOLERANCE, opset=made.opset)
    return whole.giving(*central_differences(plain, inputs))


@cache
def unary_cases() -> list[Case]:
    x = {"x": numbers(2, 3)}
    everywhere = ("Identity", "Neg", "Exp", "Sin", "Cos", "Atan", "Tanh", "Sigmoid", "Softplus")
    made = [case(f"y = {op} (x)", x) for op in (*everywhere, "Erf", "Relu", "Abs")]
    roots = ("Sqrt", "Log", "Reciprocal")
    return [*made, *(case(f"y = {op} (x)", {"x": positive(2, 3)}) for op in roots)]


@cache
def binary_cases() -> list[Case]:
    shapes = (((2, 3), (2, 3)), ((2, 1, 3), (4, 1)), ((3,), (2, 2, 3)), ((2, 3), ()))
    pairs = [{"a": numbers(*a), "b": positive(*b)} for a, b in shapes]
    three = {"a": numbers(2, 3), "b": numbers(3, seed=1), "c": numbers(2, 1, seed=2)}
    low, high = np.array(-0.7), np.array(0.9)
    same = "same = Identity (a)\ny = Max (a, same, b)"
    return [
        *(case(f"y = {op} (a, b)", pair) for op in ("Add", "Sub", "Mul", "Div") for pair in pairs),
        *(case(f"y = {op} (a, b, c)", three) for op in ("Max", "Min", "Sum")),
        case(same, {"a": numbers(2, 3), "b": numbers(2, 3, seed=1)}),
        case("y = Pow (x, p)", {"x": positive(5)}, p=np.array([2.0, 0.5, -1.5, 3.0, 1.0])),
        case("y = Pow (x, p)", {"x": numbers(5)}, p=ints(3)),
        case("y = Clip (x, low, high)", {"x": numbers(9)}, low=low, high=high),
        case("y = Clip (x, , high)", {"x": numbers(9)}, high=high),
        case("y = Clip (x, low)", {"x": numbers(9)}, low=low),
        case("is_less = Less (a, b)\ny = Where (is_less, c, b)", three),
        case("t = Mul (x, x)\nu = Sin (t)\nv = Mul (u, t)\ny = Add (v, x)", {"x": numbers(4)}),
        case("whole = Floor (x)\ny = Sub (x, whole)", {"x": numbers(4)}),
    ]


@cache
def moving_cases() -> list[Case]:
    x = {"x": numbers(2, 3, 4)}
    image = {"x": numbers(1, 2, 4, 5)}
    pads = ints(0, 0, 1, 2, 0, 0, 3, 0)
    ends = np.iinfo(np.int64).min
    return [
        case("y = Reshape (x, s)", x, s=ints(4, -1)),
        case("y = Flatten <axis=2> (x)", x),
        case("t = Unsqueeze (x, a)\ny = Squeeze (t, a)", x, a=ints(1, 3)),
        case("y = Transpose <perm=[1, 2, 0]> (x)", x),
        case("y = Transpose (x)", x),
        case("y = Expand (x, s)", {"x": numbers(3, 1)}, s=ints(2, 3, 4)),
        case("t = Sin (x)\ny = Concat <axis=-1> (x, t, x)", x),
        case("p, q, r = Split <axis=2> (x, s)\ny = Mul (p, r)", x, s=ints(1, 2, 1)),
        case("y = Slice (x, s, e, a)", x, s=ints(-2, 1), e=ints(9, 3), a=ints(-1, 1)),
        case("y = Slice (x, s, e, a, t)", x, s=ints(2), e=ints(ends), a=ints(2), t=ints(-1)),
        *(case(f'y = Pad <mode="{m}"> (x, p)', image, p=pads) for m in ("reflect", "edge")),
        case("y = Pad (x, p)", image, p=pads),
        case('y = Pad <mode="reflect"> (x, p, , a)', image, p=ints(2, 1), a=ints(-1)),
        case("y = ReduceSum (x, a)", x, a=ints(0, -1)),
        case("y = ReduceMean <keepdims=0> (x, a)", x, a=ints(1)),
        case("y = ReduceMean (x)", x),
        case("y = GlobalAveragePool (x)", image),
    ]


@cache
def product_cases() -> list[Case]:
    shapes = (((2, 3), (3, 2)), ((2, 1, 2, 3), (4, 3, 2)), ((2, 3), (2, 3, 1)))
    pairs = [{"a": numbers(*a), "b": numbers(*b)} for a, b in shapes]
    flips = [(i, j) for i in (0, 1) for j in (0, 1)]
    convolved = {"x": numbers(2, 4, 7, 6), "w": numbers(6, 2, 3, 2), "b": numbers(6)}
    every = "<strides=[2, 1], dilations=[1, 2], pads=[1, 2, 0, 1], group=2>"
    return [
        *(case("y = MatMul (a, b)", pair) for pair in pairs),
        *(
            case(
                f"y = Gemm <transA={i}, transB={j}, alpha=1.5, beta=0.5> (a, b, c)",
                {
                    "a": numbers(*((3, 2) if i else (2, 3))),
                    "b": numbers(*((4, 3) if j else (3, 4))),
                    "c": numbers(4),
                },
            )
            for i, j in flips
        ),
        case(f"y = Conv {every} (x, w, b)", convolved),
        case("y = Conv <strides=[3]> (x, w)", {"x": numbers(1, 2, 9), "w": numbers(3, 2, 2)}),
        *(case(f"y = {op} <axis=1> (x)", {"x": numbers(2, 3)}) for op in ("Softmax", "LogSoftmax")),
    ]


@cache
def sampling_cases() -> list[Case]:
    batch = {"x": numbers(2, 2, 4, 5), "grid": numbers(2, 3, 2, 2, low=-1.4, high=1.4)}
    sizes = {"flat": ints(2, 1, 3, 4), "deep": ints(1, 1, 2, 3, 2)}
    return [
        *(
            case(f'y = GridSample <padding_mode="{padding}", align_corners={a}> (x, grid)', batch)
            for padding in ("zeros", "border")
            for a in (0, 1)
        ),
        *(
            case(f"y = AffineGrid <align_corners={a}> (t, s)", {"t": numbers(*t)}, s=sizes[size])
            for t, size in (((2, 2, 3), "flat"), ((1, 3, 4), "deep"))
            for a in (0, 1)
        ),
    ]


GROUPS = (unary_cases, binary_cases, moving_cases, product_cases, sampling_cases)
