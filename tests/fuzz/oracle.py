"""What one node gives for known operands: ONNX Runtime, or onnx.reference where it has no kernel or
leaves the standard.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tests.helpers import Array

Feeds = dict[str, Array]
Run = Callable[[Feeds], list[Array]]


@dataclass(frozen=True)
class Difference:
    """Where ONNX Runtime leaves the standard, and onnx.reference is asked instead."""

    operators: str  # a regular expression
    why: str
    when: Callable[[onnx.NodeProto, Sequence[Array]], bool]


DIFFERENCES = (
    Difference(
        "Reduce.*|Arg.*",
        "takes negative axes of empty tensors for none",
        lambda node, operands: operands[0].size == 0,
    ),
    Difference(
        "Gemm",
        "does not multiply C by beta where the sum has no terms",
        lambda node, operands: operands[0].size == 0,
    ),
)

# Types that ONNX Runtime has for few operators and Python cannot hand to it.
_REFERENCE_ONLY = {
    np.dtype(kind)
    for kind in (ml_dtypes.bfloat16, ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float8_e4m3fn)
}


class NoOracle(Exception):
    """Nobody can say what the node gives."""


def node_model(node: onnx.NodeProto, operands: Feeds, opset: int) -> onnx.ModelProto:
    """A model of this node alone; all its operands are inputs."""
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in operands.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "node", inputs, outputs)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def runner(node: onnx.NodeProto, operands: Feeds, opset: int) -> Run:
    """How to run the node on operands of these types and shapes; NoOracle if nobody can."""
    model = node_model(node, operands, opset)
    reasons = []
    for make in _makers(node, operands):
        try:
            run = make(model)
            run(operands)
            return run
        except Exception as error:  # whatever it is, it is no result
            reasons.append(f"{type(error).__name__}: {error}")
    raise NoOracle("; ".join(reasons)[:600])


def _makers(node: onnx.NodeProto, operands: Feeds) -> Sequence[Callable[[onnx.ModelProto], Run]]:
    arrays = list(operands.values())
    if any(re.fullmatch(d.operators, node.op_type) and d.when(node, arrays) for d in DIFFERENCES):
        return (_reference,)
    if any(value.dtype in _REFERENCE_ONLY for value in operands.values()):
        return (_reference,)
    return (_runtime, _reference)


@cache
def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _runtime(model: onnx.ModelProto) -> Run:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), _options(), providers=["CPUExecutionProvider"]
    )

    def run(feeds: Feeds) -> list[Array]:
        return [np.asarray(value) for value in session.run(None, feeds)]

    return run


def _reference(model: onnx.ModelProto) -> Run:
    evaluator = ReferenceEvaluator(model)

    def run(feeds: Feeds) -> list[Array]:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return [np.asarray(value) for value in evaluator.run(None, feeds)]

    return run
