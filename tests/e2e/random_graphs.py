"""Small random ONNX graphs, the same for one seed: branches that split and join again, every kernel
family, sizes that are multiples of nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
MOST_ELEMENTS = 20_000


class Graph:
    """A graph in the making; every value knows its shape."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.shapes: dict[str, Shape] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def pick(self, *options: int) -> int:
        return int(self.random.choice(options))

    def weight(self, *shape: int) -> str:
        """Random values, of a size that keeps sums over all but the first axis near 1."""
        fan = max(1, int(np.prod(shape[1:])))
        values = self.random.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(fan))
        return self.constant(values)

    def constant(self, values: object) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, op: str, inputs: list[str], shape: Shape, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{op}_{name}", **attributes))
        self.shapes[name] = shape
        return name

    def value(self, rank: int | None = None) -> str | None:
        """Some value, the younger the likelier; of this rank if there is one."""
        names = [n for n, s in self.shapes.items() if rank is None or len(s) == rank]
        if not names:
            return None
        place = int(len(names) * np.sqrt(self.random.random()))
        return names[min(place, len(names) - 1)]


def _product(graph: Graph) -> str | None:
    x = graph.value(2)
    if x is None:
        return None
    rows, columns = graph.shapes[x]
    out = graph.pick(5, 33, 70)
    if graph.random.random() < 0.5:
        return graph.node("MatMul", [x, graph.weight(columns, out)], (rows, out))
    weight, bias = graph.weight(out, columns), graph.weight(out)
    return graph.node("Gemm", [x, weight, bias], (rows, out), transB=1)


def _own_product(graph: Graph) -> str | None:
    """Rows of one value by rows of another one: both operands are computed."""
    a, b = graph.value(2), graph.value(2)
    if a is None or b is None or graph.shapes[a][1] != graph.shapes[b][1]:
        return None
    (rows, depth), columns = graph.shapes[a], graph.shapes[b][0]
    t = graph.node("Transpose", [b], (depth, columns), perm=[1, 0])
    return graph.node("MatMul", [a, t], (rows, columns))


def _convolution(graph: Graph) -> str | None:
    x = graph.value(4)
    if x is None:
        return None
    n, c, h, w = graph.shapes[x]
    if min(h, w) < 2:
        return None
    out, kernel, stride = graph.pick(3, 12, 20), graph.pick(1, 3), graph.pick(1, 2)
    pad = kernel // 2
    shape = (n, out, (h + 2 * pad - kernel) // stride + 1, (w + 2 * pad - kernel) // stride + 1)
    inputs = [x, graph.weight(out, c, kernel, kernel), graph.weight(out)]
    return graph.node(
        "Conv", inputs, shape, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4
    )


def _pool(graph: Graph) -> str | None:
    x = graph.value(4)
    if x is None or min(graph.shapes[x][2:]) < 3:
        return None
    n, c, h, w = graph.shapes[x]
    op = ("MaxPool", "AveragePool")[graph.pick(0, 1)]
    shape = (n, c, (h - 2) // 2 + 1, (w - 2) // 2 + 1)
    return graph.node(op, [x], shape, kernel_shape=[2, 2], strides=[2, 2])


def _pointwise(graph: Graph) -> str | None:
    x = graph.value()
    assert x is not None
    op = ("Tanh", "Sigmoid", "Relu", "Neg")[graph.pick(0, 1, 2, 3)]
    return graph.node(op, [x], graph.shapes[x])


def _residual(graph: Graph) -> str | None:
    x = graph.value()
    assert x is not None
    same = [name for name, shape in graph.shapes.items() if shape == graph.shapes[x] and name != x]
    if not same:
        return None
    other = same[graph.pick(*range(len(same)))]
    return graph.node(("Add", "Mul")[graph.pick(0, 1)], [x, other], graph.shapes[x])


def _softmax(graph: Graph) -> str | None:
    x = graph.value()
    assert x is not None
    return graph.node("Softmax", [x], graph.shapes[x], axis=-1)


def _normalize(graph: Graph) -> str | None:
    x = graph.value(2)
    if x is None or graph.shapes[x][-1] < 4:
        return None
    size = graph.shapes[x][-1]
    scale, bias = graph.weight(size), graph.weight(size)
    return graph.node("LayerNormalization", [x, scale, bias], graph.shapes[x], axis=-1)


def _transpose(graph: Graph) -> str | None:
    x = graph.value()
    assert x is not None
    order = [int(axis) for axis in graph.random.permutation(len(graph.shapes[x]))]
    shape = tuple(graph.shapes[x][axis] for axis in order)
    return graph.node("Transpose", [x], shape, perm=order)


def _flatten(graph: Graph) -> str | None:
    x = graph.value(4)
    if x is None:
        return None
    n, c, h, w = graph.shapes[x]
    shape = (n * c, h * w)
    return graph.node("Reshape", [x, graph.constant(np.array(shape, np.int64))], shape)


def _concat(graph: Graph) -> str | None:
    x = graph.value()
    assert x is not None
    shape, axis = graph.shapes[x], graph.pick(*range(len(graph.shapes[x])))
    alike = [
        name
        for name, other in graph.shapes.items()
        if len(other) == len(shape)
        and all(other[i] == shape[i] for i in range(len(shape)) if i != axis)
    ]
    other = alike[graph.pick(*range(len(alike)))]
    joined = list(shape)
    joined[axis] += graph.shapes[other][axis]
    return graph.node("Concat", [x, other], tuple(joined), axis=axis)


def _slice(graph: Graph) -> str | None:
    x = graph.value()
    assert x is not None
    shape = list(graph.shapes[x])
    axis = graph.pick(*range(len(shape)))
    if shape[axis] < 4:
        return None
    begin, end = 1, shape[axis] - graph.pick(0, 1)
    shape[axis] = end - begin
    ends = [graph.constant(np.array([number], np.int64)) for number in (begin, end, axis)]
    return graph.node("Slice", [x, *ends], tuple(shape))


def _reduction(graph: Graph) -> str | None:
    x = graph.value()
    assert x is not None
    op = ("ReduceMean", "ReduceMax")[graph.pick(0, 1)]
    axis = len(graph.shapes[x]) - 1
    shape = (*graph.shapes[x][:-1], 1)
    return graph.node(op, [x], shape, axes=[axis], keepdims=1)


STEPS: tuple[Callable[[Graph], str | None], ...] = (
    *(_product, _product, _own_product, _convolution, _convolution, _pool, _pointwise),
    *(_residual, _residual, _softmax, _normalize, _transpose, _flatten, _concat, _slice),
    _reduction,
)


def random_graph(seed: int, nodes: int = 14) -> onnx.ModelProto:
    """Two inputs, one of rows and one of images; everything that nobody reads is an output."""
    graph = Graph(seed)
    inputs = {"rows": (graph.pick(19, 65, 130), 33), "image": (1, graph.pick(4, 9), 13, 11)}
    graph.shapes |= inputs
    while len(graph.nodes) < nodes:
        before = len(graph.nodes), len(graph.weights)
        made = STEPS[graph.pick(*range(len(STEPS)))](graph)
        if made is not None and np.prod(graph.shapes[made]) > MOST_ELEMENTS:
            for node in graph.nodes[before[0] :]:
                del graph.shapes[node.output[0]]
            del graph.nodes[before[0] :], graph.weights[before[1] :]
    read = {name for node in graph.nodes for name in node.input}
    outputs = [node.output[0] for node in graph.nodes if node.output[0] not in read]

    def ports(names: list[str]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, graph.shapes[name])
            for name in names
        ]

    made_graph = helper.make_graph(
        graph.nodes, f"random_{seed}", ports(list(inputs)), ports(outputs), graph.weights
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(made_graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model
