"""Programs of every kernel family and of random graphs, thread by thread: every schedule gives the
bits of one launch an operator, on devices from one vEU on, in every order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from emulated_runs import ORDERS, are_equal, emitted, staged
from random_graphs import random_graph

from ramforge.codegen.artifact import Artifact
from ramforge.compiler.ir import Array
from ramforge.runtime import gpu_cases, verify
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings

SMS = (1, 2, 7, 132)
FAMILIES = ("map, fold and row", "product", "barriers")
MODELS = (*FAMILIES, *(f"random {seed}" for seed in range(6)))
# Every schedule on every size of device, several times over, and every model under both.
CASES = [
    (model, policy, SMS[(number + 2 * turn) % len(SMS)])
    for number, model in enumerate(MODELS)
    for turn, policy in enumerate(("waves", "events"))
]
RACES = (("map, fold and row", "events", 7), ("random 3", "events", 2), ("random 5", "waves", 7))


@cache
def model_of(name: str) -> onnx.ModelProto:
    kind, _, seed = name.partition(" ")
    if kind == "random":
        return random_graph(int(seed))
    if kind == "barriers":
        (model,) = gpu_cases.barrier_models().values()
        return model
    return gpu_cases.together(
        gpu_cases.product_models() if kind == "product" else gpu_cases.primitive_models()
    )


@cache
def reference(name: str) -> tuple[dict[str, Array], list[Array]]:
    """Inputs, and what ONNX Runtime makes of them."""
    import onnxruntime

    model = model_of(name)
    random = np.random.default_rng(7)
    shapes = {
        port.name: [axis.dim_value for axis in port.type.tensor_type.shape.dim]
        for port in model.graph.input
    }
    inputs = {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return inputs, session.run(None, inputs)


def compiled(name: str, policy: str, sms: int, folder: Path) -> Artifact:
    """With the first variant of everything, in two launches by different kernels."""
    program = staged(model_of(name), policy, sms=sms, blocks=(1,) if sms > 7 else (2, 1))
    return emitted(program, folder)


def run(driver: EmulatedDriver, name: str, artifact: Artifact, settings: Settings) -> list[Array]:
    inputs, _ = reference(name)
    driver.settings = settings
    return driver.run([inputs[port.name] for port in artifact.inputs])


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Array]]:
    """The outputs with a launch for each rOperator, which agree with ONNX Runtime."""

    @cache
    def outputs(name: str) -> list[Array]:
        artifact = compiled(name, "per-op", 2, tmp_path_factory.mktemp("per-op"))
        found = run(EmulatedDriver(artifact, quick=True), name, artifact, ORDERS[0])
        names = [port.name for port in artifact.outputs]
        verify.require(verify.differences(names, found, reference(name)[1]))
        return found

    return outputs


@pytest.mark.parametrize(("name", "policy", "sms"), CASES)
def test_every_schedule_and_order_gives_the_bits_of_one_launch_an_operator(
    name: str,
    policy: str,
    sms: int,
    tmp_path: Path,
    one_by_one: Callable[[str], list[Array]],
) -> None:
    artifact = compiled(name, policy, sms, tmp_path)
    driver = EmulatedDriver(artifact, quick=True)
    expected = one_by_one(name)
    few = max(1, sms // 3)
    # a device of one vEU has two lanes in its first launch, and here a single block for both
    tried = [*ORDERS[:3], replace(ORDERS[1], blocks=few), replace(ORDERS[2], blocks=1)]
    for settings in tried[1:4] if sms > 7 else tried:
        assert are_equal(run(driver, name, artifact, settings), expected), settings


@pytest.mark.parametrize(("name", "policy", "sms"), RACES)
def test_no_two_accesses_race(name: str, policy: str, sms: int, tmp_path: Path) -> None:
    artifact = compiled(name, policy, sms, tmp_path)
    driver = EmulatedDriver(artifact, race=True, quick=True)
    for settings in (ORDERS[2], replace(ORDERS[1], blocks=sms)):
        run(driver, name, artifact, settings)
        assert driver.report.races == 0 and driver.report.accesses > 1000


def test_the_random_graphs_are_what_they_are_for() -> None:
    """All kinds of operators, and branches: values with several readers."""
    models = [model_of(name) for name in MODELS if name.startswith("random")]
    kinds = {node.op_type for model in models for node in model.graph.node}
    assert kinds >= {"MatMul", "Gemm", "Conv", "Softmax", "Transpose", "Concat", "Slice", "Add"}
    assert kinds & {"MaxPool", "AveragePool"} and kinds & {"ReduceMean", "ReduceMax"}
    for model in models:
        read = [name for node in model.graph.node for name in node.input]
        assert max(read.count(name) for name in read) > 1
