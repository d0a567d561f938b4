"""The same tests as CUDA: every text through NVRTC, a chosen few in the emulator."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import nvrtc
from ramforge.compiler.errors import ToolchainError
from ramforge.runtime import api
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.drivers.emulator import Order
from tests.conformance.children import Failure, run_each
from tests.conformance.runner import CRASHED, PASSED, TIMEOUT, WRONG, Row, outcome_of
from tests.conformance.suite import SuiteTest

ARCHITECTURES = ("sm_80", "sm_90a")
TARGET = "h200"
SECONDS = 300.0
BLOCKS = 3  # fewer than lanes: a block then runs several

_COMMENT = re.compile(r"^\s*//.*\n", re.M)
_NAMES = re.compile(r"^#define RF_(?:MODEL|WEIGHTS_FILE|WEIGHTS_DIGEST) .*\n", re.M)
_HOST_ONLY = "#if !defined(__CUDACC_RTC__)\n"


@dataclass(frozen=True)
class Job:
    """A test that passed on the host, and whether the emulator shall run it too."""

    test: SuiteTest
    row: Row
    emulated: bool


def run_all(jobs: Sequence[Job], workers: int = 2) -> Iterator[Row]:
    """The rows with what NVRTC and the emulator said, in the order in which they end."""
    for job, result in run_each(jobs, run_job, workers, SECONDS):
        if isinstance(result, Failure):
            reason = TIMEOUT if result.hung else f"{CRASHED}: {result.reason}"
            result = replace(job.row, nvrtc=reason, emulator=reason if job.emulated else "")
        yield result


def run_job(job: Job) -> Row:
    model = job.test.model()
    names = [value.name for value in model.graph.input]
    held = {tensor.name for tensor in model.graph.initializer}
    fed = [name for name in names if name not in held]
    row = job.row
    with TemporaryDirectory(prefix="ramforge-conformance-") as folder:
        for inputs, expected in job.test.data_sets(model):
            arrays = dict(zip(fed, map(np.asarray, inputs), strict=False))
            values = {name: arrays.pop(name) for name in row.bound}
            shapes = {name: array.shape for name, array in arrays.items()}
            artifact = api.compile(
                model, target=TARGET, shapes=shapes, values=values, output=f"{folder}/out.cu"
            )
            row = replace(row, nvrtc=_compiled(artifact))
            if job.emulated:
                row = replace(row, emulator=_emulated(job.test, artifact, arrays, expected))
            if row.nvrtc != PASSED or row.emulator not in ("", PASSED):
                break
    return row


def _compiled(artifact: Artifact) -> str:
    text = code_of(artifact.text())
    for architecture in ARCHITECTURES:
        try:
            nvrtc.compile_cubin(text, architecture)
        except ToolchainError as error:
            return f"{architecture}: {str(error).splitlines()[1].strip()}"
    return PASSED


def code_of(text: str) -> str:
    """What NVRTC looks at, without the names of the model: equal programs are compiled once."""
    device = text[: text.rindex(_HOST_ONLY)]
    return _NAMES.sub("", _COMMENT.sub("", device))


def _emulated(
    test: SuiteTest, artifact: Artifact, arrays: dict[str, Any], expected: list[Any]
) -> str:
    def run() -> None:
        driver = EmulatedDriver(artifact, quick=True)
        driver.settings = Settings(blocks=BLOCKS, order=Order.RANDOM, spin_seconds=60)
        inputs = [np.ascontiguousarray(arrays[port.name]) for port in artifact.inputs]
        results = driver.run(inputs)
        outputs, checks = results[: len(artifact.outputs)], results[len(artifact.outputs) :]
        assert not any(np.any(check) for check in checks), artifact.checks
        test.compare(expected, outputs)

    outcome, reason = outcome_of(run)
    return outcome if outcome in (PASSED, WRONG) else f"{outcome}: {reason}"


def covering(rows: Iterable[Row], sizes: dict[str, int]) -> frozenset[str]:
    """Names of tests that run every operator and every element type that passed, preferably small.

    Greedy: always the test that adds the most for its size.
    """
    candidates = {row.name: facets(row) for row in rows if row.outcome == PASSED and not row.folded}
    chosen: set[str] = set()
    missing = set().union(*candidates.values())
    while missing:
        best = max(
            candidates,
            key=lambda name: (len(candidates[name] & missing) / (1 + sizes[name] / 4096), name),
        )
        chosen.add(best)
        missing -= candidates[best]
    return frozenset(chosen)


def facets(row: Row) -> set[str]:
    """The operators and element types of a test."""
    return {*row.operators, *(f"type {label}" for label in row.types)}
