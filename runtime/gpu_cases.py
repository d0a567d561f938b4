"""The small models that exercise each primitive of the kernel library, written in ONNX's own text
form.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.compose
import onnx.parser

from ramforge.kernels.attention import BLOCKS
from ramforge.kernels.tiles import TILES
from ramforge.zoo import MODELS

_HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


def model_of(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A graph in text, with random weights of these shapes."""
    model = onnx.parser.parse_model(_HEAD + text)
    generator = np.random.default_rng(7)
    for name, shape in weights.items():
        value = generator.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


def primitive_models() -> dict[str, onnx.ModelProto]:
    """rf_tile_map, rf_tile_fold, rf_row_fold, rf_row_store, each with sizes that fill no warp."""
    return {
        "map, one long row": model_of("g (float[5, 1001] x) => (float[5, 1001] y) { y = Exp(x) }"),
        "map, transposed": model_of(
            "g (float[33, 65, 7] x) => (float[7, 33, 65] y) { y = Transpose<perm=[2, 0, 1]>(x) }"
        ),
        "map, broadcast": model_of(
            "g (float[33, 1, 7] x, float[65, 1] w) => (float[33, 65, 7] y) { y = Add(x, w) }"
        ),
        "map, special functions": model_of(
            "g (float[1000] x) => (float[1000] y)"
            "{ a = Tanh(x) b = Erf(x) c = Sigmoid(x) d = Add(a, b) y = Mul(c, d) }"
        ),
        "fold, strips": model_of(
            "g (float[1, 65, 33, 31] x) => (float[1, 65, 16, 15] y)"
            "{ y = MaxPool<kernel_shape=[3, 3], strides=[2, 2]>(x) }"
        ),
        "fold, rows": model_of(
            "g (float[37, 1003] x) => (float[37, 1] y) { y = ReduceMean<axes=[1]>(x) }"
        ),
        "fold, rows, maximum": model_of(
            "g (float[37, 1003] x) => (float[37] y) { y = ReduceMax<axes=[1], keepdims=0>(x) }"
        ),
        "row, softmax": model_of("g (float[37, 1003] x) => (float[37, 1003] y) { y = Softmax(x) }"),
        "row, log-softmax": model_of(
            "g (float[37, 31] x) => (float[37, 31] y) { y = LogSoftmax(x) }"
        ),
        "row, of a warp": model_of(
            "g (float[3000, 66] x) => (float[3000, 66] y) { y = Softmax(x) }"
        ),
        "row, read again": model_of(
            "g (float[3, 5004] x) => (float[3, 5004] y) { y = Softmax(x) }"
        ),
        "row, normalize": model_of(
            "g (float[37, 1003] x, float[1003] s, float[1003] b) => (float[37, 1003] y)"
            "{ y = LayerNormalization(x, s, b) }"
        ),
    }


def together(models: Mapping[str, onnx.ModelProto]) -> onnx.ModelProto:
    """All these models side by side in one, the outputs named after them: one build for all."""
    parts = []
    for number, (name, model) in enumerate(models.items()):
        part = onnx.compose.add_prefix(model, f"c{number}_").graph
        (output,) = part.output
        for node in part.node:
            for position, made in enumerate(node.output):
                if made == output.name:
                    node.output[position] = name
        output.name = name
        parts.append(part)
    graph = onnx.helper.make_graph(
        [node for part in parts for node in part.node],
        "together",
        [value for part in parts for value in part.input],
        [value for part in parts for value in part.output],
        [value for part in parts for value in part.initializer],
    )
    first = next(iter(models.values()))
    return onnx.helper.make_model(graph, opset_imports=first.opset_import, ir_version=8)


def tile_shapes() -> dict[str, tuple[int, ...]]:
    """Every tile for each kind of inner loop; where only the instruction is another, a few."""
    every = tuple(range(len(TILES)))
    few = (0, len(TILES) // 2, len(TILES) - 1)
    return {"fp32": every, "fp16": every, "tf32": few, "bf16": few}


def block_shapes() -> dict[str, tuple[int, ...]]:
    """The same for the blocks of attention."""
    every = tuple(range(len(BLOCKS)))
    return {"fp32": every, "fp16": every, "tf32": every[:1], "bf16": every[-1:]}


def product_models() -> dict[str, onnx.ModelProto]:
    """rf_contract with packed and with dense operands; sizes that are multiples of nothing."""
    return {
        "product, packed": model_of(
            "g (float[129, 77] x) => (float[129, 131] y) { p = MatMul(x, w) y = Relu(p) }",
            w=(77, 131),
        ),
        "product, dense batch": model_of(
            "g (float[3, 65, 33] x, float[3, 33, 70] w) => (float[3, 65, 70] y){ y = MatMul(x, w) }"
        ),
        "product, transposed operand": model_of(
            "g (float[2, 65, 40] x, float[2, 70, 40] k) => (float[2, 65, 70] y)"
            "{ t = Transpose<perm=[0, 2, 1]>(k) y = MatMul(x, t) }"
        ),
        "product, weights in float16": model_of(
            "g (float[65, 130] x) => (float[65, 140] y)"
            "{ h = Cast<to=10>(w) v = Cast<to=1>(h) y = MatMul(x, v) }",
            w=(130, 140),
        ),
        "product, three rows, weights in float16": model_of(
            "g (float[3, 136] x) => (float[3, 140] y)"
            "{ h = Cast<to=10>(w) v = Cast<to=1>(h) y = MatMul(x, v) }",
            w=(136, 140),
        ),
        "product, bytes": model_of(
            "g (float[65, 77] x) => (float[65, 70] y)"
            "{ a = Cast<to=3>(x) b = Cast<to=3>(w) p = MatMulInteger(a, b) y = Cast<to=1>(p) }",
            w=(77, 70),
        ),
        "product, two rows of bytes": model_of(
            "g (float[2, 272] x) => (float[2, 70] y)"
            "{ a = Cast<to=3>(x) b = Cast<to=3>(w) p = MatMulInteger(a, b) y = Cast<to=1>(p) }",
            w=(272, 70),
        ),
        "convolution, bytes": model_of(
            "g (float[1, 16, 7, 9] x) => (float[1, 34, 7, 9] y)"
            "{ a = Cast<to=3>(x) b = Cast<to=3>(w) p = ConvInteger<pads=[1, 1, 1, 1]>(a, b)"
            "  y = Cast<to=1>(p) }",
            w=(34, 16, 3, 3),
        ),
        "product, one row": model_of(
            "g (float[1, 264] x) => (float[1, 200] y) { p = MatMul(x, w) y = Relu(p) }",
            w=(264, 200),
        ),
        "product, three rows": model_of(
            "g (float[3, 1000] x) => (float[3, 33] y) { p = MatMul(x, w) y = Add(p, b) }",
            w=(1000, 33),
            b=(33,),
        ),
        "convolution, four rows": model_of(
            "g (float[1, 16, 3, 3] x) => (float[1, 40, 2, 2] y)"
            "{ y = Conv<pads=[1, 1, 0, 0], strides=[2, 2]>(x, w) }",
            w=(40, 16, 2, 2),
        ),
        "convolution, padded": model_of(
            "g (float[1, 19, 15, 17] x) => (float[1, 67, 8, 9] y)"
            "{ y = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(x, w, b) }",
            w=(67, 19, 3, 3),
            b=(67,),
        ),
        "convolution, groups": model_of(
            "g (float[1, 24, 9, 9] x) => (float[1, 36, 9, 9] y)"
            "{ y = Conv<pads=[1, 1, 1, 1], group=3>(x, w) }",
            w=(36, 8, 3, 3),
        ),
    }


def attention_models() -> dict[str, onnx.ModelProto]:
    """rf_attend and rf_attend_few; sizes that are multiples of nothing."""

    def model(queries: str, keys: str, values: str, out: str) -> onnx.ModelProto:
        return model_of(
            f"g (float[{queries}] q, float[{keys}] k, float[{values}] v, float[1] c)"
            f" => (float[{out}] y) {{ t = Transpose<perm=[0, 2, 1]>(k) s = MatMul(q, t)"
            " z = Mul(s, c) p = Softmax(z) y = MatMul(p, v) }"
        )

    return {
        "attention": model("3, 70, 64", "3, 130, 64", "3, 130, 64", "3, 70, 64"),
        "attention, odd": model("2, 33, 20", "2, 65, 20", "2, 65, 12", "2, 33, 12"),
        "attention, one query": model("4, 1, 64", "4, 100, 64", "4, 100, 32", "4, 1, 32"),
    }


def barrier_models() -> dict[str, onnx.ModelProto]:
    """A chain in which every wave reads what many others wrote in the wave before."""
    steps = "".join(
        f"t{i} = Transpose<perm=[1, 0]>(a{i}) s{i} = Softmax(t{i}) a{i + 1} = Add(s{i}, x) "
        for i in range(8)
    )
    return {
        "barriers, a chain of transposed softmaxes": model_of(
            f"g (float[200, 200] x) => (float[200, 200] y) {{ a0 = Neg(x) {steps} y = Neg(a8) }}"
        )
    }


def example_models() -> dict[str, onnx.ModelProto]:
    """Some of the small networks."""
    names = ("resnet_small", "encoder_small", "mobilenet_small", "lstm_cell")
    return {name: MODELS[name]() for name in names}
