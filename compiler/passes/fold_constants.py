"""Compute at compile time whatever depends on constants alone (a transposed weight, a table of
positions).

A large constant that a model stores in 8 or 16 bits and widens stays as it is stored: whoever reads
it widens what it reads. ``fold_the_rest`` widens it after all where some reader could not.
"""

from __future__ import annotations

import numpy as np

from ramforge.compiler.errors import CompileError
from ramforge.compiler.expressions import interpret, terms
from ramforge.compiler.expressions.computation import Computation, computation_of
from ramforge.compiler.ir import Array, DType, Graph, Node, Tensor

# An Expand of one number may be far larger than what it came from; such a thing stays in the
# program.
ALWAYS_SMALL_BYTES = 1 << 20
# A weight that is smaller may as well be stored wider than the model has it.
SMALL_WEIGHT_BYTES = 1 << 16
_NARROW = (DType.FLOAT16, DType.BFLOAT16, DType.INT8, DType.UINT8)
_WIDE = (DType.FLOAT32, DType.FLOAT64)


def fold_constants(graph: Graph) -> Graph:
    return _folded(graph, may_widen=False)


def fold_the_rest(graph: Graph) -> Graph:
    """For a graph whose maps are where they will stay."""
    folded = _folded(graph, may_widen=True)
    if folded is graph:
        return graph
    made = [name for name in folded.constants if name not in graph.constants]
    return folded.rebuilt(folded.nodes, [_in_order(folded.tensor(name)) for name in made])


def _in_order(tensor: Tensor) -> Tensor:
    """A constant's axes lie in index order."""
    return Tensor(tensor.name, tensor.shape, tensor.dtype)


def is_widening(computation: Computation) -> bool:
    """Whether this only makes floats of numbers of 8 or 16 bits."""
    value = computation.value
    if not computation.is_map or not isinstance(value, terms.Apply) or value.name != "cast":
        return False
    (source,) = value.args
    return isinstance(source, terms.Load) and source.dtype in _NARROW and value.dtype in _WIDE


def _folded(graph: Graph, may_widen: bool) -> Graph:
    values: dict[str, Array] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        inputs = [values.get(name, graph.constants.get(name)) for name in node.inputs]
        known = [value for value in inputs if value is not None]
        if len(known) < len(inputs) or not _is_worth_it(graph, node, known, may_widen):
            kept.append(node)
            continue
        values[node.outputs[0]] = interpret.run(computation_of(node), known)
    if not values:
        return graph
    wrong = [graph.checks[name] for name in graph.checks if np.any(values.get(name, 0))]
    if wrong:
        raise CompileError("\n".join(f"{graph.name}: {message}" for message in wrong))
    checks = {name: text for name, text in graph.checks.items() if name not in values}
    return graph.rebuilt(kept, constants=values, checks=checks)


def _is_worth_it(graph: Graph, node: Node, inputs: list[Array], may_widen: bool) -> bool:
    (output,) = node.outputs
    computation = computation_of(node)
    if output in graph.checks:
        return True
    if output in graph.outputs or computation.reduction_size * graph.tensor(output).size > 1 << 24:
        return False
    if is_widening(computation) and not may_widen:
        return graph.tensor(output).nbytes <= SMALL_WEIGHT_BYTES
    limit = max(ALWAYS_SMALL_BYTES, 2 * sum(value.nbytes for value in inputs))
    return graph.tensor(output).nbytes <= limit
