"""Compute at compile time whatever depends on constants alone (a transposed weight, a table of
positions).
"""

from __future__ import annotations

import numpy as np

from ramforge.compiler.errors import CompileError
from ramforge.compiler.expressions import interpret
from ramforge.compiler.expressions.computation import computation_of
from ramforge.compiler.ir import Array, Graph, Node

# An Expand of one number may be far larger than what it came from; such a thing stays in the
# program.
ALWAYS_SMALL_BYTES = 1 << 20


def fold_constants(graph: Graph) -> Graph:
    values: dict[str, Array] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        inputs = [values.get(name, graph.constants.get(name)) for name in node.inputs]
        known = [value for value in inputs if value is not None]
        if len(known) < len(inputs) or not _is_worth_it(graph, node, known):
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


def _is_worth_it(graph: Graph, node: Node, inputs: list[Array]) -> bool:
    (output,) = node.outputs
    computation = computation_of(node)
    if output in graph.checks:
        return True
    if output in graph.outputs or computation.reduction_size * graph.tensor(output).size > 1 << 24:
        return False
    limit = max(ALWAYS_SMALL_BYTES, 2 * sum(value.nbytes for value in inputs))
    return graph.tensor(output).nbytes <= limit
