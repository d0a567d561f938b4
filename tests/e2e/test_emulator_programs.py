"""Whole emitted files, thread by thread: right in every order, and no broken one goes unseen."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from emulated_runs import (
    HEADER,
    ORDERS,
    Edit,
    Fault,
    RowFault,
    are_close,
    are_equal,
    attempts,
    branches,
    emitted,
    host_outputs,
    inputs_of,
    staged,
)

from ramforge.codegen.artifact import Artifact
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.drivers.emulator import Order
from ramforge.zoo.mlp import mlp

pytestmark = pytest.mark.usefixtures("quick_host")
NAMES = ("resnet_small", "encoder_small", "mobilenet_small", "mlp", "lstm_cell")
EVERY_MODEL = pytest.mark.parametrize("model", NAMES)
CompileExample = Callable[..., Artifact]


@EVERY_MODEL
def test_every_order_gives_what_the_host_gives(model: str, compile_example: CompileExample) -> None:
    artifact = compile_example(model)
    inputs = inputs_of(artifact)
    expected = host_outputs(artifact, inputs)
    # one of them as an optimiser sees it, the others built in a third of the time
    driver = EmulatedDriver(artifact, quick=model != "encoder_small")
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
    driver = EmulatedDriver(per_op, quick=True)
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
    driver = EmulatedDriver(artifact, quick=True)
    expected = driver.run(inputs)
    full = driver.control[HEADER:].astype(np.uint64)  # what one run adds to each counter
    assert driver.control[0] == 1 and (full > 0).all()
    driver.control[0] = epoch
    driver.control[HEADER:] = (full * epoch) & 0xFFFFFFFF
    for settings in (ORDERS[0], ORDERS[2], replace(ORDERS[3], blocks=3)):
        driver.settings = settings
        assert are_equal(driver.run(inputs), expected)
    assert driver.control[0] == (epoch + 3) & 0xFFFFFFFF
    assert (driver.control[HEADER:] == (full * (epoch + 3)) & 0xFFFFFFFF).all()


def test_an_aborted_run_ends_and_after_zeroing_the_next_is_right(
    compile_example: CompileExample,
) -> None:
    artifact = compile_example("mlp")
    inputs = inputs_of(artifact)
    driver = EmulatedDriver(artifact, quick=True)
    expected = driver.run(inputs)
    driver.control[1] = 1
    driver.control[HEADER:] -= 1  # nothing would ever be full
    for settings in ORDERS:
        driver.settings = settings
        driver.attempt(inputs)
        assert driver.report.ok, driver.report.message  # it came to its end
    driver.control[:] = 0
    assert are_equal(driver.run(inputs), expected)


# Faults in our own emitted text

SYNC = "rf_sync();"
IN_SIGNAL = "  rf_sync();\n  if (threadIdx.x == 0) rf_add_release"
GATHER = "    if (rf_sync_any(at.waits >= RF_IN_VAIN)) return false;\n"
POLLED = "&control->counters[i], full * (epoch + 1), &control->abort)) return i;"
SIGNAL = "    rf_signal(control, event.counter + k, (unsigned)(to - from));\n"
GROUPS = "from = first / event.group, to = (first + count - 1) / event.group;"
IN_PIPELINE = (
    "    rf_sync();  // all have what they wait for, and are through with the stage before\n"
)
COPIES = "rf_copies_wait<TILE::STAGES - 2>();"
BETWEEN_TASKS = "    rf_sync();  // the next task uses the same arena\n"
# A text that is right for this model, with one sync less: without it the sync that a fault takes
# away has another one near it that does its work too. The loop over tasks may leave the last task
# to the signal and the wait.
ONLY_BETWEEN = Fault(BETWEEN_TASKS, f"    if (task + 1 < first + count) {BETWEEN_TASKS.lstrip()}")


def without_sync(old: str) -> Fault:
    return Fault(old, old.replace(SYNC, ""))


WAVE_FAULTS: dict[str, tuple[Edit, ...]] = {
    "no sync between the stages of a tile": (without_sync(IN_PIPELINE),),
    "a wait for one group of copies too few": (Fault(COPIES, COPIES.replace("- 2", "- 1")),),
    "no sync between tasks": (without_sync(BETWEEN_TASKS),),
    "no sync in rf_signal": (ONLY_BETWEEN, without_sync(IN_SIGNAL)),
    "no sync after a wait": (Fault(GATHER, ""),),
    "nobody waits": (Fault("i = counter + self; i < counter + counters;", "i = 0; i < 0;"),),
    "a wait for one signal too few": (
        Fault(POLLED, POLLED.replace("full * (epoch + 1)", "full * (epoch + 1) - 1")),
    ),
    "a wait for the run before": (Fault(POLLED, POLLED.replace("(epoch + 1)", "epoch")),),
    "nobody signals": (Fault(SIGNAL, ""),),
}
EVENT_FAULTS: dict[str, tuple[Edit, ...]] = {
    "no sync after gathered waits": (Fault(GATHER, ""),),
    "a dropped wait": (RowFault("WAIT", 0, column=1, value=0),),
    "the last wait dropped": (RowFault("WAIT", -1, column=1, value=0),),
    "a wait for the first group only": (Fault(GROUPS, "from = 0, to = 0;"),),
    "a wait for the group before": (
        Fault(
            GROUPS,
            GROUPS.replace("first / event.group, to", "first / event.group - 1, to").replace(
                "group;", "group - 1;"
            ),
        ),
    ),
    "one counter of several": (Fault(POLLED, POLLED.replace("[i]", "[counter]")),),
    "a small last group is never full": (Fault("first + count == event.size", "false"),),
    "a signal for fewer units": (RowFault("SIGNAL", -1, column=5, value=0),),
}
NO_ORDER_SHOWS = ("no sync in rf_signal",)
NEVER_ENDS = ("nobody signals", "a small last group is never full", "a signal for fewer units")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Three products in a row and a softmax: two tasks for each of two lanes."""
    program = staged(mlp(hidden=256), "waves", sms=1, dims={"batch": 8})
    return emitted(program, tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Two branches that a product joins, each rTask waiting for its own regions."""
    return emitted(staged(branches(), "events"), tmp_path_factory.mktemp("joined"))


def test_the_model_for_faults_of_events_has_what_they_break(joined: Artifact) -> None:
    text = joined.text()
    kinds = re.findall(r"^    {RF_(WAIT|RUN|SIGNAL|PREFETCH), (\d+), (\d+)", text, re.M)
    own = [kind for kind, lane, lanes in kinds if int(lane) <= 1 < int(lane) + int(lanes)]
    assert "WAIT WAIT RUN" in " ".join(own), "no lane waits for two rOperators in a row"
    events = [
        tuple(map(int, row)) for row in re.findall(r"^    {(\d+), (\d+), (\d+)},$", text, re.M)
    ]
    assert any(1 < group < size and size % group for _, size, group in events)


def broken(artifact: Artifact, faults: tuple[Edit, ...], *, race: bool) -> EmulatedDriver:
    text = artifact.text()
    for fault in faults:
        text = fault(text)
    return EmulatedDriver(artifact, race=race, text=text, quick=True)


def shown_by_results(
    artifact: Artifact, faults: Mapping[str, tuple[Edit, ...]], tried: Sequence[Settings]
) -> dict[str, bool]:
    """For each fault whether some order gives a wrong result. Every order must report it."""
    inputs = inputs_of(artifact)
    expected = host_outputs(artifact, inputs)
    seen: dict[str, bool] = {}
    print(f"\n{'fault':38}{'orders that show it':24}what the race build says")
    for name, edits in faults.items():
        orders = tried[:1] if name in NEVER_ENDS else tried  # it takes a second to give up
        driver = broken(artifact, edits, race=True)
        right = []
        for settings in orders:
            driver.settings = replace(settings, spin_seconds=1)
            driver.control[:] = 0
            outputs = driver.attempt(inputs)
            report = driver.report
            assert not report.ok, f"{name}: {settings} finds nothing"
            right.append(report.status == 0 and are_close(outputs, expected))
        verdict = report.message or f"{report.races} races"
        print(f"{name:38}{f'{right.count(False)} of {len(right)}':24}{verdict[:90]}")
        seen[name] = not all(right)
    return seen


def test_every_fault_is_found_by_the_race_build_and_most_by_some_order(
    artifact: Artifact,
) -> None:
    seen = shown_by_results(artifact, WAVE_FAULTS, ORDERS[:3])
    assert tuple(name for name, shown in seen.items() if not shown) == NO_ORDER_SHOWS


def test_every_fault_with_events_is_found_by_the_race_build_and_by_some_order(
    joined: Artifact,
) -> None:
    assert all(shown_by_results(joined, EVENT_FAULTS, ORDERS[:3]).values())


def test_the_texts_that_faults_are_put_into_are_right(artifact: Artifact, joined: Artifact) -> None:
    for model, text in ((artifact, (ONLY_BETWEEN,)), (joined, ())):
        inputs = inputs_of(model)
        expected = host_outputs(model, inputs)
        assert all(attempts(broken(model, text, race=False), inputs, expected, ORDERS))
        racing = broken(model, text, race=True)
        racing.attempt(inputs)
        assert racing.report.ok, racing.report.race_text


def test_a_missing_signal_is_reported_as_a_livelock(artifact: Artifact) -> None:
    driver = broken(artifact, WAVE_FAULTS["nobody signals"], race=False)
    driver.settings = Settings(spin_seconds=1)
    driver.attempt(inputs_of(artifact))
    assert driver.report.status == 2 and f"control word {HEADER}" in driver.report.message
