"""A run on several cores: the caller and its workers keep out of each other's way."""

from __future__ import annotations

import os

import pytest

import ramforge
from ramforge.runtime import arrays
from ramforge.zoo import MODELS

CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def threads() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores and Linux")
def test_workers_leave_the_callers_core_alone_and_the_caller_is_free_again() -> None:
    artifact = ramforge.compile(MODELS["mlp"](), target="host:2", dims={"batch": 1})
    inputs = arrays.made_up(artifact.inputs, seed=0)
    before = threads()
    with ramforge.Session(artifact, "host:2") as session:
        session.run(None, inputs)
        (worker,) = threads() - before
        assert os.sched_getaffinity(0) == CORES
        assert len(CORES - os.sched_getaffinity(worker)) == 1


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores and Linux")
def test_a_caller_that_may_use_one_core_only_is_left_there() -> None:
    artifact = ramforge.compile(MODELS["mlp"](), target="host:2", dims={"batch": 1})
    inputs = arrays.made_up(artifact.inputs, seed=0)
    try:
        with ramforge.Session(artifact, "host:2") as session:
            os.sched_setaffinity(0, {min(CORES)})
            session.run(None, inputs)
            assert os.sched_getaffinity(0) == {min(CORES)}
    finally:
        os.sched_setaffinity(0, CORES)
