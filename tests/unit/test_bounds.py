"""The floor and the critical path, against figures worked out by hand and against all plans."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx.parser
import pytest

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.device import find_target, vdevices
from ramforge.compiler.frontend import import_model
from ramforge.compiler.lower import lower
from ramforge.compiler.pipeline import optimise, search
from ramforge.compiler.schedule import POLICIES
from ramforge.compiler.schedule.bounds import Bounds, bounds
from ramforge.compiler.schedule.search import Search
from ramforge.zoo import BENCHMARKED, ZOO

TARGET = find_target("h200")
COST = AnalyticCost()


def searched(model: onnx.ModelProto) -> Search:
    graph = optimise(import_model(model))
    return search(lower(graph, TARGET), COST)


def of_text(text: str, **weights: tuple[int, ...]) -> Search:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    for name, shape in weights.items():
        value = np.ones(shape, dtype=np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return searched(model)


@cache
def small(name: str) -> tuple[Search, Bounds]:
    found = searched(ZOO[name].small())
    return found, bounds(found)


def quickest_ns(found: Search, number: int) -> float:
    """One rTask of an rOperator alone, in any variant, on any launch."""
    return min(
        COST.task_ns(option, device, 1)
        for option in found.choices[number]
        for device in vdevices(TARGET)
    )


def test_a_product_is_its_multiplications_and_additions_not_its_tiles() -> None:
    limits = bounds(of_text("g (float[5, 7] x) => (float[5, 3] y) { y = MatMul(x, w) }", w=(7, 3)))
    assert limits.flops == 2 * 5 * 7 * 3
    assert limits.moved_bytes == 4 * (5 * 7 + 7 * 3 + 5 * 3)


def test_the_floor_is_one_launch_and_what_takes_longer_of_arithmetic_and_memory() -> None:
    thin = bounds(
        of_text("g (float[1, 512] x) => (float[1, 512] y) { y = MatMul(x, w) }", w=(512, 512))
    )
    assert thin.floor_ns == TARGET.launch_ns + 4 * (512 * 512 + 2 * 512) / TARGET.memory_gb_per_s
    thick = bounds(
        of_text("g (float[9999, 512] x) => (float[9999, 512] y) { y = MatMul(x, w) }", w=(512, 512))
    )
    peak = TARGET.sms * TARGET.fp32_flops_per_cycle_per_sm * TARGET.clock_mhz / 1e3
    assert thick.floor_ns == pytest.approx(TARGET.launch_ns + 2 * 9999 * 512 * 512 / peak)


def test_products_of_halves_are_the_same_work_at_a_higher_rate() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "g (float[9999, 512] x) => (float[9999, 512] y) { y = MatMul(x, w) }"
    )
    weight = np.ones((512, 512), dtype=np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    target = TARGET.with_precision("fp16")
    graph = optimise(import_model(model), "fp16")
    limits, whole = bounds(search(lower(graph, target), COST)), bounds(searched(model))
    assert limits.flops == whole.flops
    assert limits.flops_ns == pytest.approx(whole.flops_ns / target.speedup("float16"))


def test_of_a_table_only_the_rows_that_can_be_read_are_moved() -> None:
    limits = bounds(
        of_text("g (int64[4] i) => (float[4, 8] y) { y = Gather<axis=0>(t, i) }", t=(1000, 8))
    )
    assert limits.moved_bytes < 1000  # the table alone has 32000


def test_the_critical_path_takes_the_longer_branch_with_an_event_before_each_fold() -> None:
    found = of_text(
        """g (float[512, 512] x) => (float[512, 512] y) {
          short = Softmax(x)
          a = MatMul(x, w1)
          b = MatMul(a, w2)
          y = MatMul(b, short)
        }""",
        w1=(512, 512),
        w2=(512, 512),
    )
    limits = bounds(found)
    by_output = {writes[0]: number for number, writes in enumerate(found.writes)}
    assert limits.chain == tuple(by_output[name] for name in "aby")
    tasks = sum(quickest_ns(found, number) for number in limits.chain)
    expected = TARGET.launch_ns + tasks + 2 * TARGET.event_ns
    assert limits.critical_path_ns == pytest.approx(expected)


@pytest.mark.parametrize(("reader", "events"), [("Relu(a)", 0), ("Softmax<axis=0>(a)", 1)])
def test_who_reads_element_by_element_is_spared_the_event(reader: str, events: int) -> None:
    """``z`` is pointwise or another softmax, behind a softmax that is an output as well."""
    found = of_text(
        f"g (float[512, 512] x) => (float[512, 512] a, float[512, 512] z) "
        f"{{ a = Softmax(x) z = {reader} }}"
    )
    assert len(found.choices) == 2
    expected = TARGET.launch_ns + quickest_ns(found, 0) + quickest_ns(found, 1)
    assert bounds(found).critical_path_ns == pytest.approx(expected + events * TARGET.event_ns)


@pytest.mark.parametrize("name", BENCHMARKED)
def test_no_plan_is_predicted_to_beat_the_floor(name: str) -> None:
    found, limits = small(name)
    for policy in POLICIES.values():
        assert found.best((policy,)).timeline.makespan_ns >= limits.floor_ns


@pytest.mark.parametrize("name", BENCHMARKED)
def test_no_plan_with_barriers_is_predicted_to_beat_the_critical_path(name: str) -> None:
    found, limits = small(name)
    for policy in ("waves", "per-op"):
        assert found.best((POLICIES[policy],)).timeline.makespan_ns >= limits.critical_path_ns


def test_a_model_without_work_has_no_chain() -> None:
    limits = bounds(of_text("g (float[0, 4] x) => (float[0, 4] y) { y = Relu(x) }"))
    assert (limits.chain, limits.flops, limits.critical_path_ns) == ((), 0, TARGET.launch_ns)
