"""Operators that fold part of their input: the Reduce family of ONNX and pooling of any rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import index as ix
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.computation import Computation, computed
from ramforge.compiler.expressions.index import Index, Var
from ramforge.compiler.expressions.terms import Expr, apply, cast_to, const
from ramforge.compiler.ir import DType, Graph, Node, Tensor
from ramforge.compiler.registry import Operator, register
from ramforge.kernels.movement import constant_input, constants_needed

Step = Callable[[Expr], Expr]


def _same(value: Expr) -> Expr:
    return value


def _square(value: Expr) -> Expr:
    return apply("mul", value, value)


def _in_floats(function: str) -> Step:
    """A function that only floating-point numbers have, of integers too."""

    def step(value: Expr) -> Expr:
        if value.dtype.is_float:
            return apply(function, value)
        return cast_to(apply(function, cast_to(value, DType.FLOAT64)), value.dtype)

    return step


def reduction(
    name: str, kind: str, before: Step = _same, after: Step = _same, mean: bool = False
) -> None:
    """Register a Reduce operator: ``after(kind over axes of before(x))``."""

    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        source = graph.tensor(node.inputs[0])
        axes = folded_axes(node, graph)
        if not axes:
            return _copy(node, graph, before, after)
        computation = fold(source, graph.tensor(node.outputs[0]), axes, kind, before)
        result = computation.result
        if mean:
            result = apply("divide", result, const(computation.reduction_size, result.dtype))
        return (computed(node, _finished(computation, after(result))),)

    register(Operator(name, express, constants_needed(1)))


def _finished(computation: Computation, finish: Expr) -> Computation:
    from dataclasses import replace

    return replace(computation, finish=finish)


def _copy(node: Node, graph: Graph, before: Step, after: Step) -> tuple[Node, ...]:
    output = graph.tensor(node.outputs[0])
    axes = comp.output_axes(output.shape)
    value = terms.load(0, comp.positions(axes), output.shape, output.dtype)
    return (computed(node, Computation(axes, after(before(value)))),)


def folded_axes(node: Node, graph: Graph) -> tuple[int, ...]:
    """The axes that a Reduce node folds, from its attribute or its constant input."""
    rank = len(graph.tensor(node.inputs[0]).shape)
    axes = node.attr("axes")
    given = constant_input(node, graph, 1)
    if given is not None:
        axes = tuple(given.tolist())
    if not axes:
        return () if node.attr("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(int(axis) % rank for axis in axes))


def fold(
    source: Tensor, output: Tensor, axes: Sequence[int], kind: str, before: Step = _same
) -> Computation:
    """Fold whole axes of input 0, whether the output keeps them or not."""
    places = comp.output_axes(output.shape)
    keeps = len(output.shape) == len(source.shape)
    folded = tuple(Var(f"r{axis}", source.shape[axis]) for axis in axes)
    remaining = iter(places)
    index: list[Index] = []
    for axis in range(len(source.shape)):
        if axis in axes:
            index.append(ix.of(folded[list(axes).index(axis)]))
            if keeps:
                next(remaining)
        else:
            index.append(ix.of(next(remaining)))
    value = before(terms.load(0, tuple(index), source.shape, source.dtype))
    return Computation(places, value, kind, folded)


reduction("ReduceSum", comp.SUM)
reduction("ReduceMean", comp.SUM, mean=True)
reduction("ReduceMax", comp.MAXIMUM)
reduction("ReduceMin", comp.MINIMUM)
reduction("ReduceProd", comp.PRODUCT)
reduction("ReduceL1", comp.SUM, before=lambda x: apply("abs", x))
reduction("ReduceL2", comp.SUM, before=_square, after=_in_floats("sqrt"))
reduction("ReduceSumSquare", comp.SUM, before=_square)
reduction("ReduceLogSum", comp.SUM, after=_in_floats("log"))


def _global_pool(name: str, kind: str, mean: bool) -> None:
    def express(node: Node, graph: Graph) -> tuple[Node, ...]:
        source = graph.tensor(node.inputs[0])
        axes = tuple(range(2, len(source.shape)))
        computation = fold(source, graph.tensor(node.outputs[0]), axes, kind)
        if mean:
            count = const(computation.reduction_size, source.dtype)
            computation = _finished(computation, apply("divide", computation.result, count))
        return (computed(node, computation),)

    register(Operator(name, express))


_global_pool("GlobalAveragePool", comp.SUM, mean=True)
_global_pool("GlobalMaxPool", comp.MAXIMUM, mean=False)


class Window:
    """The sliding window of a pooling or a convolution: strides, dilations and padding for each
    spatial axis.
    """

    def __init__(self, node: Node, kernel: Sequence[int], source: Tensor, output: Tensor) -> None:
        rank = len(kernel)
        self.kernel = tuple(kernel)
        self.sizes = source.shape[2:]
        self.strides = tuple(node.attr("strides") or (1,) * rank)
        self.dilations = tuple(node.attr("dilations") or (1,) * rank)
        pads = tuple(node.attr("pads") or (0,) * (2 * rank))
        self.before, self.after = pads[:rank], pads[rank:]
        mode = node.attr("auto_pad", "NOTSET")
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            self._same_padding(output.shape[2:], mode == "SAME_UPPER")
        elif mode == "VALID":
            self.before = self.after = (0,) * rank
        self.offsets = tuple(Var(f"k{axis}", size) for axis, size in enumerate(kernel))

    def _same_padding(self, outputs: Sequence[int], extra_at_end: bool) -> None:
        before, after = [], []
        for axis, size in enumerate(outputs):
            reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            total = max(0, (size - 1) * self.strides[axis] + reach - self.sizes[axis])
            less, more = total // 2, total - total // 2
            before.append(less if extra_at_end else more)
            after.append(more if extra_at_end else less)
        self.before, self.after = tuple(before), tuple(after)

    def positions(self, at: Sequence[Index]) -> tuple[Index, ...]:
        """Where in the input each output position looks, over the window's own variables."""
        return tuple(
            place * self.strides[axis]
            + ix.of(self.offsets[axis]) * self.dilations[axis]
            - self.before[axis]
            for axis, place in enumerate(at)
        )


def _max_pool(node: Node, graph: Graph) -> tuple[Node, ...]:
    source, output = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    window = Window(node, node.attr("kernel_shape"), source, output)
    axes = comp.output_axes(output.shape)
    at = comp.positions(axes)
    index = (*at[:2], *window.positions(at[2:]))
    lowest = comp.identity(comp.MAXIMUM, source.dtype)
    value = terms.load(0, index, source.shape, source.dtype, fill=lowest)
    computation = Computation(axes, value, comp.MAXIMUM, window.offsets)
    return (computed(_single(node), computation),)


def _average_pool(node: Node, graph: Graph) -> tuple[Node, ...]:
    source, output = graph.tensor(node.inputs[0]), graph.tensor(node.outputs[0])
    window = Window(node, node.attr("kernel_shape"), source, output)
    axes = comp.output_axes(output.shape)
    at = comp.positions(axes)
    index = (*at[:2], *window.positions(at[2:]))
    value = terms.load(0, index, source.shape, source.dtype, fill=0)
    padded = bool(node.attr("count_include_pad", 0))
    count = _window_count(window, at[2:], padded)
    result = apply("divide", terms.hole(source.dtype), cast_to(count, source.dtype))
    computation = Computation(axes, value, comp.SUM, window.offsets, result)
    return (computed(node, computation),)


def _window_count(window: Window, at: Sequence[Index], padded: bool) -> Expr:
    """How many elements of the (padded) input each window covers."""
    total: Expr = const(1, DType.INT64)
    for axis, place in enumerate(at):
        low = -window.before[axis] if padded else 0
        high = window.sizes[axis] + (window.after[axis] if padded else 0)
        start = place * window.strides[axis] - window.before[axis]
        last = start + window.kernel[axis]
        inner = ix.bounds(start)[0] >= low and ix.bounds(last)[1] <= high
        if inner:
            size: Expr = const(window.kernel[axis], DType.INT64)
        else:
            begin = apply("max", terms.index_value(start), const(low, DType.INT64))
            end = apply("min", terms.index_value(last), const(high, DType.INT64))
            size = apply("sub", end, begin)
        total = apply("mul", total, size)
    return total


def _single(node: Node) -> Node:
    from dataclasses import replace

    return replace(node, outputs=node.outputs[:1])


def _refuse_indices(node: Node, graph: Graph) -> tuple[str, str] | None:
    if len(node.outputs) > 1 and node.outputs[1]:
        return "the second output (indices) is not done yet", "drop the Indices output"
    return None


def _refuse_average(node: Node, graph: Graph) -> tuple[str, str] | None:
    if any(step != 1 for step in node.attr("dilations") or ()):
        return "dilations are not done yet", "use an average pool without dilations"
    return None


register(Operator("MaxPool", _max_pool, _refuse_indices))
register(Operator("AveragePool", _average_pool, _refuse_average))
