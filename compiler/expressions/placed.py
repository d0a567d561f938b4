"""A computation together with where its inputs and its output lie in memory, and without any names.

Two layers of the same shape are equal here, so what follows from one (the family, the tiles, the
text of the body, the regions) is worked out once, however many layers there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, computation_of, positions
from ramforge.compiler.expressions.index import Index, Var
from ramforge.compiler.ir import Graph, Node, Tensor


@dataclass(frozen=True, slots=True)
class Placed:
    """A computation, the shapes and layouts it works on, and which inputs are constants.

    ``output`` is the output's position along each of its own axes, so that it can follow a change
    of variables.
    """

    computation: Computation
    tensors: tuple[Tensor, ...]
    target: Tensor
    output: tuple[Index, ...]
    constants: tuple[bool, ...]

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tensor.strides for tensor in self.tensors)

    @property
    def output_offset(self) -> Index:
        return ix.flatten(self.output, self.target.strides)

    def memory_order(self, axes: Sequence[Var]) -> tuple[Var, ...]:
        """These axes from the outermost to the innermost in the output's memory, length one left
        out.
        """
        ordered = [self.computation.axes[axis] for axis in self.target.layout]
        return tuple(var for var in ordered if var in axes and var.size != 1)

    def substitute(self, places: dict[Var, Index]) -> Placed:
        """The same work with variables replaced by sums of others."""
        computation = self.computation.mapped(lambda expr: terms.rewrite(expr, places))
        moved = tuple(
            ix.rewrite(
                position,
                lambda atom: (
                    places.get(atom, ix.of(atom)) if isinstance(atom, Var) else ix.of(atom)
                ),
            )
            for position in self.output
        )
        return replace(self, computation=computation, output=moved)

    def offsets(self) -> list[Index]:
        """Every integer sum the emitted code will compute."""
        found = [self.output_offset]
        for expr in self.computation.expressions():
            for node in expr.walk():
                if isinstance(node, terms.Load):
                    found.append(ix.flatten(node.indices, self.strides[node.slot]))
                    found.extend(node.indices[axis] for axis in node.loose_axes())
                else:
                    found.extend(node.indices)
        return found


def place(node: Node, graph: Graph, target: Tensor | None = None) -> Placed:
    """A node's computation on the tensors it reads and writes; ``target`` is what it writes, if the
    graph does not have that yet.
    """
    computation = computation_of(node)
    return Placed(
        computation,
        tuple(replace(graph.tensor(name), name="") for name in node.inputs),
        replace(target or graph.tensor(node.outputs[0]), name=""),
        positions(computation.axes),
        tuple(name in graph.constants for name in node.inputs),
    )
