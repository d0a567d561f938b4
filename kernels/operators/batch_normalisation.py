"""BatchNormalization, with statistics that are given or, in training, those of the batch."""

from __future__ import annotations

from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.operators.normalisation import inverse_root, moments


def _batch_norm(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    x, *rest = (steps.given(slot) for slot in range(5))
    is_double = any(value.dtype is DType.FLOAT64 for value in (x, *rest))
    wide = DType.FLOAT64 if is_double else DType.FLOAT32
    epsilon = node.attr("epsilon", 1e-5)

    def element(*at: Index) -> Expr:
        return x[at].cast(wide)

    def of_channel(value: Value, at: tuple[Index, ...]) -> Expr:
        return value[at[1] if len(at) > 1 else 0].cast(wide)

    scale, bias, mean, variance = rest
    is_training = bool(node.attr("training_mode", 0))
    if is_training:
        axes = [axis for axis in range(x.rank) if axis != 1]
        batch_mean, batch_variance = moments(steps, x.shape, axes, element)

    def normalised(*at: Index) -> Expr:
        if is_training:
            middle, spread = batch_mean.spread(at), batch_variance.spread(at)
        else:
            middle, spread = of_channel(mean, at), of_channel(variance, at)
        factor = of_channel(scale, at) * inverse_root(spread, epsilon)
        return (element(*at) - middle) * factor + of_channel(bias, at)

    steps.map(x.shape, normalised, to=0)
    momentum = float(node.attr("momentum", 0.9))
    for number, before in ((1, mean), (2, variance)):
        if steps.wants(number):
            now = batch_mean if number == 1 else batch_variance

            def running(channel: Index, before: Value = before, now: Value = now) -> Expr:
                places = [channel if axis == 1 else 0 for axis in range(now.rank)]
                return before[channel].cast(wide) * momentum + now.at(places) * (1 - momentum)

            steps.map(before.shape, running, to=number)
    return steps.nodes()


def _refuse_statistics(node: Node, graph: Graph) -> tuple[str, str] | None:
    """Before opset 14 these outputs were there without a mode, and are not defined at inference."""
    if node.attr("training_mode", 0):
        return None
    readers = graph.consumers()
    for name in node.outputs[1:]:
        if name and (readers.get(name) or name in graph.outputs):
            return f"output {name!r} is used, which exists only in training", "set training_mode"
    return None


register(Operator("BatchNormalization", _batch_norm, _refuse_statistics))
