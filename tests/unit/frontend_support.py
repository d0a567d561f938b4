"""What the front end's tests share: stand-ins for kernels, and a second way to run a Graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from ramforge.compiler import registry
from ramforge.compiler.frontend import import_model
from ramforge.compiler.frontend.control_flow import SAME_SHAPE
from ramforge.compiler.ir import Array, Graph

ALL_OPERATORS = frozenset(schema.name for schema in onnx.defs.get_all_schemas())
PLAIN = frozenset(
    (
        *(
            "Abs",
            "Add",
            "Cast",
            "Concat",
            "Conv",
            "Div",
            "Erf",
            "Exp",
            "Flatten",
            "Identity",
            "Log",
        ),
        *(
            "MatMul",
            "Max",
            "Min",
            "Mul",
            "Neg",
            "Pow",
            "ReduceMean",
            "ReduceSum",
            "Relu",
            "Reshape",
        ),
        *("Sqrt", "Sub", "Sum", "Transpose", "Reciprocal", "Where", "Less", "Greater", "Equal"),
    )
)


def have(monkeypatch: pytest.MonkeyPatch, operators: frozenset[str], **refusals: object) -> None:
    """Let the registry hold exactly these operators."""

    def find(name: str) -> registry.Operator | None:
        if name not in operators:
            return None
        refuse = refusals.get(name, lambda node, graph: None)
        return registry.Operator(name, lambda node, graph: (), refuse)  # type: ignore[arg-type]

    monkeypatch.setattr(registry, "find", find)


def parse(text: str, opset: int = 21) -> onnx.ModelProto:
    """A model from ONNX's text form, without its header."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "my.domain" : 1]>'
    return parser.parse_model(header + text)


def one_node(
    operator: str,
    opset: int,
    shape: tuple[int, ...] = (2, 3, 4),
    inputs: tuple[str, ...] = ("x",),
    outputs: tuple[str, ...] = ("y",),
    constants: Mapping[str, Array] | None = None,
    ir_version: int = 8,
    **attrs: object,
) -> onnx.ModelProto:
    """A model with a single node called ``the_node`` and one input ``x``."""
    node = helper.make_node(operator, inputs, outputs, name="the_node", **attrs)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs[:1]],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def to_model(graph: Graph, opset: int = 21) -> onnx.ModelProto:
    """A Graph as ONNX again, so that others can run it."""

    def info(name: str) -> onnx.ValueInfoProto:
        tensor = graph.tensor(name)
        element_type = helper.np_dtype_to_tensor_dtype(tensor.dtype.numpy)
        return helper.make_tensor_value_info(name, element_type, tensor.shape)

    nodes = []
    for node in graph.nodes:
        attrs = {
            key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
            for key, value in node.attrs.items()
            if key != SAME_SHAPE
        }
        nodes.append(helper.make_node(node.op, node.inputs, node.outputs, node.name, **attrs))
    proto = helper.make_graph(
        nodes,
        graph.name,
        [info(name) for name in graph.inputs],
        [info(name) for name in graph.outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in graph.constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def random_inputs(graph: Graph, seed: int = 0) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    feeds = {}
    for name in graph.inputs:
        tensor = graph.tensor(name)
        values = np.asarray(2 * generator.standard_normal(tensor.shape))
        feeds[name] = values.astype(tensor.dtype.numpy)
    return feeds


def run_ort(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return list(session.run(None, dict(feeds)))


def run_reference(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    return list(ReferenceEvaluator(model).run(None, dict(feeds)))


def expect_same(
    model: onnx.ModelProto,
    expected_by: Callable[[onnx.ModelProto, Mapping[str, Array]], list[Array]] = run_ort,
    dims: Mapping[str, int] | None = None,
) -> Graph:
    """Import a model and check that the Graph computes what the model does; returns the Graph."""
    graph = import_model(model, dims=dims or {})
    feeds = random_inputs(graph)
    expected = expected_by(model, feeds)
    opset = max(21, model.opset_import[0].version)
    for found, right in zip(run_reference(to_model(graph, opset), feeds), expected, strict=True):
        assert found.shape == right.shape and found.dtype == right.dtype
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)
    return graph
