"""Operators that need statistics of whole rows, and BatchNormalization, which at inference needs
none.
"""

from __future__ import annotations

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, computed
from ramforge.compiler.expressions.terms import Expr, apply, const
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.registry import Operator, register


def _softmax(kind: str) -> None:
    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        output = graph.tensor(node.outputs[0])
        axes = comp.output_axes(output.shape)
        along = axes[node.attr("axis", -1) % len(axes)]
        value = terms.load(0, comp.positions(axes), output.shape, output.dtype)
        return (computed(node, Computation(axes, value, kind, (along,))),)

    name = "Softmax" if kind == comp.SOFTMAX else "LogSoftmax"
    register(Operator(name, express, _refuse_integers))


def _refuse_integers(node: Node, graph: Graph) -> tuple[str, str] | None:
    if not graph.tensor(node.inputs[0]).dtype.is_float:
        return "the input is not of a floating-point type", "cast it to float32"
    return None


def _layer_norm(node: Node, graph: Graph) -> tuple[Node, ...]:
    source = graph.tensor(node.inputs[0])
    axes = comp.output_axes(source.shape)
    first = node.attr("axis", -1) % len(axes)
    at = comp.positions(axes)
    value = terms.load(0, at, source.shape, source.dtype)
    finish: Expr = terms.hole(source.dtype)
    for slot, function in ((1, "mul"), (2, "add")):
        if len(node.inputs) > slot and node.inputs[slot]:
            other = comp.broadcast_load(slot, graph.tensor(node.inputs[slot]), at)
            finish = apply(function, finish, other)
    epsilon = node.attr("epsilon", 1e-5)
    computation = Computation(axes, value, comp.NORMALIZE, axes[first:], finish, epsilon=epsilon)
    return (computed(_first_output(node), computation),)


def _instance_norm(node: Node, graph: Graph) -> tuple[Node, ...]:
    source = graph.tensor(node.inputs[0])
    axes = comp.output_axes(source.shape)
    at = comp.positions(axes)
    value = terms.load(0, at, source.shape, source.dtype)
    scale, bias = (_per_channel(node, graph, slot, at[1]) for slot in (1, 2))
    finish = apply("add", apply("mul", terms.hole(source.dtype), scale), bias)
    epsilon = node.attr("epsilon", 1e-5)
    computation = Computation(axes, value, comp.NORMALIZE, axes[2:], finish, epsilon=epsilon)
    return (computed(node, computation),)


def _batch_norm(node: Node, graph: Graph) -> tuple[Node, ...]:
    source = graph.tensor(node.inputs[0])
    axes = comp.output_axes(source.shape)
    at = comp.positions(axes)
    x = terms.load(0, at, source.shape, source.dtype)
    channel = at[1] if len(at) > 1 else ix.constant(0)
    scale, bias, mean, variance = (
        _per_channel(node, graph, slot, channel) for slot in (1, 2, 3, 4)
    )
    epsilon = const(node.attr("epsilon", 1e-5), variance.dtype)
    factor = apply("divide", scale, apply("sqrt", apply("add", variance, epsilon)))
    value = apply("add", apply("mul", apply("sub", x, mean), factor), bias)
    return (computed(_first_output(node), Computation(axes, value)),)


def _per_channel(node: Node, graph: Graph, slot: int, channel: ix.Index) -> Expr:
    """A parameter at this channel, in the type of the data: it may have another."""
    tensor = graph.tensor(node.inputs[slot])
    value = terms.load(slot, (channel,), tensor.shape, tensor.dtype)
    return terms.cast_to(value, graph.tensor(node.inputs[0]).dtype)


def _first_output(node: Node) -> Node:
    from dataclasses import replace

    return replace(node, outputs=node.outputs[:1])


def _refuse_statistics(node: Node, graph: Graph) -> tuple[str, str] | None:
    readers = graph.consumers()
    for name in node.outputs[1:]:
        if name and (readers.get(name) or name in graph.outputs):
            return f"output {name!r} (a statistic) is used", "export the model for inference"
    if node.attr("training_mode", 0):
        return "training_mode is on", "export the model for inference"
    return None


_softmax(comp.SOFTMAX)
_softmax(comp.LOG_SOFTMAX)
register(Operator("LayerNormalization", _layer_norm, _refuse_statistics))
register(Operator("InstanceNormalization", _instance_norm))
register(Operator("BatchNormalization", _batch_norm, _refuse_statistics))
