"""Whole emitted files, thread by thread: right in every order, and no broken one goes unseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from emulated_runs import (
    ORDERS,
    Fault,
    are_close,
    are_equal,
    attempts,
    host_outputs,
    inputs_of,
)

import ramforge
from examples.models.mlp import mlp
from ramforge.codegen.artifact import Artifact
from ramforge.compiler.device import find_target
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.drivers.emulator import Order

NAMES = ("resnet_small", "encoder_small", "mobilenet_small", "mlp", "lstm_cell")
EVERY_MODEL = pytest.mark.parametrize("model", NAMES)
CompileExample = Callable[..., Artifact]


@EVERY_MODEL
def test_every_order_gives_what_the_host_gives(model: str, compile_example: CompileExample) -> None:
    artifact = compile_example(model)
    inputs = inputs_of(artifact)
    expected = host_outputs(artifact, inputs)
    driver = EmulatedDriver(artifact)
    results = []
    # fewer blocks than lanes, down to one that runs them all
    for settings in (*ORDERS, *(Settings(blocks=blocks) for blocks in (1, 3, 5))):
        driver.settings = settings
        results.append(driver.run(inputs))
        assert are_close(results[-1], expected), settings
        assert are_equal(results[-1], results[0]), settings
    assert driver.control[0] == len(results)  # one session: the counters were never zeroed


@pytest.mark.parametrize("model", ["resnet_small", "lstm_cell"])
def test_one_launch_an_operator_gives_the_same(model: str, compile_example: CompileExample) -> None:
    waves, per_op = compile_example(model), compile_example(model, "per-op")
    inputs = inputs_of(waves)
    driver = EmulatedDriver(per_op)
    for settings in (ORDERS[0], replace(ORDERS[2], blocks=3)):
        driver.settings = settings
        assert are_close(driver.run(inputs), host_outputs(waves, inputs))
    assert driver.control[0] == 2


@EVERY_MODEL
def test_no_two_accesses_of_a_program_race(model: str, compile_example: CompileExample) -> None:
    artifact = compile_example(model)
    driver = EmulatedDriver(artifact, race=True)
    driver.settings = Settings(order=Order.RANDOM, seed=7)
    driver.run(inputs_of(artifact))
    assert driver.report.races == 0 and driver.report.accesses > 10_000


def test_fewer_blocks_than_lanes_race_no_more(compile_example: CompileExample) -> None:
    artifact = compile_example("resnet_small")
    driver = EmulatedDriver(artifact, race=True)
    driver.settings = Settings(order=Order.DESCENDING, blocks=3)
    driver.run(inputs_of(artifact))
    assert driver.report.races == 0


@pytest.mark.parametrize("epoch", [0xFFFFFFFE, 0xFFFFFFFF, 0x7FFFFFFF])
def test_counters_go_on_across_their_wrap(epoch: int, compile_example: CompileExample) -> None:
    artifact = compile_example("mlp")
    inputs = inputs_of(artifact)
    driver = EmulatedDriver(artifact)
    expected = driver.run(inputs)
    full = driver.control[4:].astype(np.uint64)  # what one run adds to each counter
    assert driver.control[0] == 1 and (full > 0).all()
    driver.control[0] = epoch
    driver.control[4:] = (full * epoch) & 0xFFFFFFFF
    for settings in (ORDERS[0], ORDERS[2], replace(ORDERS[3], blocks=3)):
        driver.settings = settings
        assert are_equal(driver.run(inputs), expected)
    assert driver.control[0] == (epoch + 3) & 0xFFFFFFFF
    assert (driver.control[4:] == (full * (epoch + 3)) & 0xFFFFFFFF).all()


def test_an_aborted_run_ends_and_after_zeroing_the_next_is_right(
    compile_example: CompileExample,
) -> None:
    artifact = compile_example("mlp")
    inputs = inputs_of(artifact)
    driver = EmulatedDriver(artifact)
    expected = driver.run(inputs)
    driver.control[1] = 1
    driver.control[4:] -= 1  # nothing would ever be full
    for settings in ORDERS:
        driver.settings = settings
        driver.attempt(inputs)
        assert driver.report.ok, driver.report.message  # it came to its end
    driver.control[:] = 0
    assert are_equal(driver.run(inputs), expected)


# Faults in our own emitted text

SYNC = "rf_sync();"
IN_SIGNAL = "  rf_sync();\n  if (threadIdx.x == 0) rf_add_release"
IN_WAIT = "full * (epoch + 1), &control->abort);\n  rf_sync();"
WAIT = "rf_wait(control, entry.what, (unsigned)entry.first, epoch);"
SIGNAL = "rf_signal(control, entry.what, (unsigned)mine);"
AFTER_FILL = "    rf_sync();\n    RF_UNROLL\n    for (int k = 0; k < RF_DEPTH; ++k) {"
AFTER_USE = "    rf_sync();\n  }\n  RF_UNROLL\n  for (int i = 0; i < TM; ++i) {\n    const int m"
BETWEEN_TASKS = "          rf_sync();  // the next task uses the same arena\n"
# Two texts that are right for this model, with one sync less. Without these each of the syncs that
# two of the faults take away has another one near it that does its work too. A body may leave the
# arena to the loop over tasks, and that loop the last task to the signal and the wait.
LAST_USE = Fault(AFTER_USE, f"    if (k0 + RF_DEPTH < P::K) {AFTER_USE.lstrip()}")
ONLY_BETWEEN = Fault(
    BETWEEN_TASKS, f"          if (task + 1 < first + entry.count) {BETWEEN_TASKS.lstrip()}"
)


def without_sync(old: str) -> Fault:
    return Fault(old, old.replace(SYNC, ""))


FAULTS: dict[str, tuple[Fault, ...]] = {
    "no sync after a tile is filled": (without_sync(AFTER_FILL),),
    "no sync after a tile is used": (without_sync(AFTER_USE),),
    "no sync between tasks": (LAST_USE, without_sync(BETWEEN_TASKS)),
    "no sync in rf_signal": (ONLY_BETWEEN, without_sync(IN_SIGNAL)),
    "no sync in rf_wait": (without_sync(IN_WAIT),),
    "nobody waits": (Fault(WAIT, ";"),),
    "a wait for one signal too few": (
        Fault(WAIT, WAIT.replace("(unsigned)entry.first", "(unsigned)entry.first - 1")),
    ),
    "a wait for the run before": (Fault(WAIT, WAIT.replace("epoch", "epoch - 1")),),
    "nobody signals": (Fault(SIGNAL, ";"),),
}
NO_ORDER_SHOWS = ("no sync in rf_signal",)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Three products in a row and a softmax: two tasks for each of two lanes."""
    return ramforge.compile(
        mlp(hidden=256),
        target=replace(find_target("h200"), sms=1),
        output=tmp_path_factory.mktemp("several") / "mlp.cu",
        dims={"batch": 1},
    )


def broken(artifact: Artifact, faults: tuple[Fault, ...], *, race: bool) -> EmulatedDriver:
    text = artifact.text()
    for fault in faults:
        text = fault.applied(text)
    return EmulatedDriver(artifact, race=race, text=text)


def test_every_fault_is_found_by_the_race_build_and_most_by_some_order(
    artifact: Artifact,
) -> None:
    inputs = inputs_of(artifact)
    expected = host_outputs(artifact, inputs)
    seen: dict[str, bool] = {}
    print(f"\n{'fault':34}{'orders that show it':24}what the race build says")
    for name, faults in FAULTS.items():
        orders = ORDERS[:1] if name == "nobody signals" else ORDERS  # it takes a second to give up
        outcome = attempts(broken(artifact, faults, race=False), inputs, expected, orders)
        racing = broken(artifact, faults, race=True)
        racing.settings = Settings(order=Order.RANDOM, seed=1, spin_seconds=1)
        racing.attempt(inputs)
        report = racing.report
        verdict = report.message or f"{report.races} races"
        print(f"{name:34}{f'{outcome.count(False)} of {len(outcome)}':24}{verdict[:90]}")
        assert not report.ok, f"{name}: the race build finds nothing"
        seen[name] = not all(outcome)
    assert tuple(name for name, shown in seen.items() if not shown) == NO_ORDER_SHOWS


def test_the_text_that_faults_are_put_into_is_right(artifact: Artifact) -> None:
    inputs = inputs_of(artifact)
    expected = host_outputs(artifact, inputs)
    text = (LAST_USE, ONLY_BETWEEN)
    assert all(attempts(broken(artifact, text, race=False), inputs, expected, ORDERS))
    racing = broken(artifact, text, race=True)
    racing.attempt(inputs)
    assert racing.report.ok, racing.report.race_text


def test_a_missing_signal_is_reported_as_a_livelock(artifact: Artifact) -> None:
    driver = broken(artifact, FAULTS["nobody signals"], race=False)
    driver.settings = Settings(spin_seconds=1)
    driver.attempt(inputs_of(artifact))
    assert driver.report.status == 2 and "control word 4" in driver.report.message
