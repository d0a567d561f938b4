"""Fewer levels: products do not wait for what only their finish reads, and what is cheap is worked
out where it is wanted. The values stay as they are, to the bit.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import find_target
from ramforge.compiler.expressions import interpret
from ramforge.compiler.expressions.computation import computation_of
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import Graph, Node
from ramforge.compiler.lower import lower
from ramforge.compiler.passes.shorten import MOST_WORK, shorten
from ramforge.compiler.pipeline import compile_graph, optimise, search
from ramforge.compiler.schedule import find_policies
from ramforge.compiler.schedule.arrangement import levels
from ramforge.compiler.schedule.selection import Rule
from ramforge.zoo import ZOO
from tests.helpers import Array, Case, many, model_of, numbers, one


def graph_of(case: Case) -> Graph:
    return optimise(import_model(model_of([case])))


def waves(graph: Graph) -> list[list[int]]:
    nodes = graph.nodes
    found = levels([node.inputs for node in nodes], [node.outputs for node in nodes])
    return [list(wave) for wave in found]


def depth(graph: Graph) -> int:
    return len(waves(graph))


def run(graph: Graph, feeds: dict[str, Array]) -> list[Array]:
    values = {**graph.constants, **feeds}
    for node in graph.nodes:
        inputs = [values[name] for name in node.inputs]
        values[node.outputs[0]] = interpret.run(computation_of(node), inputs)
    return [values[name] for name in graph.outputs]


def assert_same(case: Case, graph: Graph, shorter: Graph) -> None:
    feeds = {f"c0_{name}": value for name, value in case.inputs.items()}
    for before, after in zip(run(graph, feeds), run(shorter, feeds), strict=True):
        assert np.array_equal(before, after)


def lstm(steps: int, hidden: int = 8) -> Case:
    x, w = numbers(steps, 1, 4), numbers(1, 4 * hidden, 4)
    case = one("LSTM", x, w, numbers(1, 4 * hidden, hidden, seed=1), outputs=2, hidden_size=hidden)
    return replace(case, outputs=("y0",))


@pytest.mark.parametrize("steps", (3, 9))
def test_a_step_of_an_lstm_is_a_product_and_a_map(steps: int) -> None:
    case = lstm(steps)
    graph = graph_of(case)
    shorter = shorten(graph)
    assert depth(graph) - depth(graph_of(lstm(steps - 1))) == 3
    assert depth(shorter) - depth(shorten(graph_of(lstm(steps - 1)))) == 2
    assert_same(case, graph, shorter)


def gates(size: int = 8) -> Case:
    """Three products of the same input: each is the finish of the next, or all side by side."""
    text = """a = MatMul(x, u)
        b = MatMul(x, v)
        c = MatMul(x, w)
        d = Add(c, bias)
        s = Sigmoid(a)
        t = Tanh(b)
        p = Mul(s, t)
        y = Add(p, d)"""
    factors = {name: numbers(8, 8, seed=seed) for seed, name in enumerate("uvw")}
    return many("gates", text, {"x": numbers(size, 8)}, ("y",), bias=numbers(8), **factors)


def test_products_do_not_wait_for_each_other() -> None:
    graph = graph_of(gates())
    shorter = shorten(graph)
    assert [len(wave) for wave in waves(graph)] == [2, 1]
    assert [len(wave) for wave in waves(shorter)] == [3, 1]
    products = [shorter.nodes[number] for number in waves(shorter)[0]]
    assert all(computation_of(node).roles is not None for node in products)
    assert_same(gates(), graph, shorter)


def test_what_a_finish_reads_early_stays_in_it() -> None:
    (first,) = (node for node in shorten(graph_of(gates())).nodes if "c0_bias" in node.inputs)
    assert computation_of(first).roles is not None


def test_a_large_product_may_wait() -> None:
    graph = graph_of(gates(size=1 << 16))
    assert shorten(graph) is graph


def residual(rows: int, work: str = "Tanh") -> Case:
    text = f"""t = {work}(a)
        s = Add(t, b)
        n = LayerNormalization(s, g)
        y = MatMul(n, w)
        z = Add(y, s)"""
    feeds = {"a": numbers(rows, 16), "b": numbers(rows, 16, seed=1)}
    return many("residual", text, feeds, ("z",), g=numbers(16), w=numbers(16, 16))


def test_a_norm_works_out_the_sum_that_the_residual_reads_too() -> None:
    graph = graph_of(residual(3))
    shorter = shorten(graph)
    assert (depth(graph), depth(shorter)) == (3, 2)
    assert len(shorter.nodes) == len(graph.nodes)  # the sum stays for the residual
    assert_same(residual(3), graph, shorter)


def test_nothing_large_is_worked_out_twice() -> None:
    graph = graph_of(residual(MOST_WORK))
    assert shorten(graph) is graph


def test_what_has_taken_in_a_map_is_taken_in_by_none() -> None:
    """Each of these could be inlined into the next: then the last would do the work of all."""
    text = "\n".join(
        f"t{n} = Tanh(r{n})\ny{n} = Softmax<axis = 0>(t{n})\nr{n + 1} = Add(t{n}, r{n})"
        for n in range(8)
    )
    outputs = [f"y{n}" for n in range(8)]
    case = many("a chain", text, {"r0": numbers(4, 5)}, (*outputs, "r8"))
    graph = graph_of(case)
    shorter = shorten(graph)
    assert depth(shorter) < depth(graph)
    assert max(map(operations, shorter.nodes)) <= 2 * max(map(operations, graph.nodes))
    assert_same(case, graph, shorter)


def operations(node: Node) -> int:
    computation = computation_of(node)
    return sum(len(tuple(expr.walk())) for expr in computation.expressions())


def predicted(graph: Graph, target: str) -> float:
    device, cost = find_target(target), AnalyticCost()
    found = search(lower(graph, device), cost)
    return found.best(find_policies("auto"), Rule.SELECTED).timeline.makespan_ns


@pytest.mark.parametrize("target", ("h200", "host:2"))
@pytest.mark.parametrize("name", ("lstm_tc_operator", "gpt2_decode", "convnext_tiny"))
def test_fewer_levels_are_taken_only_where_they_are_faster(name: str, target: str) -> None:
    model: onnx.ModelProto = ZOO[name].small()
    program = compile_graph(import_model(model), find_target(target))
    graph = optimise(import_model(model))
    assert shorten(graph) is not graph
    assert program.predicted_ns <= min(predicted(graph, target), predicted(shorten(graph), target))
