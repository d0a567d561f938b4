"""Whether a node's attributes and operands fit its operator, as far as its entry can tell.

onnx's checker and shape inference let much through that no operator is made for: lists that are
too short, numbers that overflow, operands of too many axes.
"""

from __future__ import annotations

from collections.abc import Iterable

from ramforge.compiler.errors import MISFIT_FIX, misfit
from ramforge.compiler.frontend.dimensions import LARGEST
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.registry import Operator


def refusal(operator: Operator, node: Node, graph: Graph) -> tuple[str, str] | None:
    """(reason, fix) for a node that cannot be compiled."""
    for name, value in node.attrs.items():
        numbers = value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
        for number in numbers:
            if isinstance(number, int) and abs(number) > LARGEST:
                return f"attribute {name} is {number}, and the most is {LARGEST}", MISFIT_FIX
    try:
        return operator.refuse(node, graph)
    except Exception as error:  # whatever an entry met that it did not expect
        return misfit(error), MISFIT_FIX
