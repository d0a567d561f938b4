"""Replace every ONNX node by nodes that carry a computation. After this pass no operator is
special.

A tensor without elements needs no computation: it becomes a constant, so that no later pass and no
kernel meets a loop over nothing.
"""

from __future__ import annotations

import numpy as np

from ramforge.compiler import registry
from ramforge.compiler.errors import MISFIT_FIX, CompileError, Problem, UnsupportedModel, misfit
from ramforge.compiler.expressions.computation import computation_of
from ramforge.compiler.expressions.steps import CHECK, CONSTANT
from ramforge.compiler.ir import Array, Graph, Node, Tensor
from ramforge.compiler.registry import Operator


def express(graph: Graph) -> Graph:
    nodes: list[Node] = []
    made: list[Tensor] = []
    known: dict[str, Array] = {}
    checks = dict(graph.checks)
    for node in graph.nodes:
        outputs = [graph.tensor(name) for name in node.outputs if name]
        operator = registry.find(node.op)
        assert operator is not None, f"the front end let {node.op} through"
        if all(tensor.size == 0 for tensor in outputs) and not _checks(operator, node, graph):
            known.update({t.name: np.zeros(t.shape, t.dtype.numpy) for t in outputs})
            continue
        for step in _steps(operator, node, graph):
            (name,) = step.outputs
            if CONSTANT in step.attrs:
                known[name] = step.attrs[CONSTANT]
                continue
            computation = computation_of(step)
            tensor = Tensor(name, computation.shape, computation.dtype)
            if tensor.size == 0:
                known[name] = np.zeros(tensor.shape, tensor.dtype.numpy)
                continue
            if CHECK in step.attrs:
                checks[name] = step.attrs[CHECK]
            made.append(tensor)
            nodes.append(step)
    new = [tensor for tensor in made if tensor.name not in graph.tensors]
    return graph.rebuilt(nodes, new, known, checks)


def _checks(operator: Operator, node: Node, graph: Graph) -> bool:
    """Whether a run has to compare operands with the declared shape."""
    read = [node.inputs[slot] for slot in operator.reads if slot < len(node.inputs)]
    return any(name and name not in graph.constants for name in read)


def _steps(operator: Operator, node: Node, graph: Graph) -> tuple[Node, ...]:
    try:
        return operator.express(node, graph)
    except CompileError:
        raise
    except Exception as error:  # malformed models come this far where onnx does not look
        problem = Problem(node.origin[0], node.op, misfit(error), MISFIT_FIX)
        raise UnsupportedModel(graph.name, (problem,)) from error
