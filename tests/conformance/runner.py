"""Runs tests of the suite in this process, or each in a child of its own, and says what came of
them.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

import ramforge.onnx_backend as backend
from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import host
from ramforge.codegen.build.toolchain import find_host_compiler
from ramforge.compiler.errors import CompileError, RamforgeError, ShapeError
from ramforge.runtime import api
from tests.conformance.children import Failure, run_each
from tests.conformance.suite import SuiteTest, foreign_kinds, operators

PASSED, REFUSED, WRONG, CRASHED, TIMEOUT = "passed", "refused", "wrong", "crashed", "timeout"
OUTCOMES = (PASSED, REFUSED, WRONG, CRASHED, TIMEOUT)
SECONDS = 120.0
# A result that nothing computed, or that no input of a run can change.
IDLE, CONSTANT = "no rTask ran", "no output depends on an input of the run"

_FOLDER = re.compile(r"(?<![\w:/])/(?:[\w.+-]+/)+")
_OPERANDS = re.compile(r"rf_operands\[\] = \{\n(.*?)^\};", re.M | re.S)
_SPACE = re.compile(r"^\s*\{(\d+), ", re.M)
_FIRST_INPUT = 2  # behind workspace and weights


@dataclass(frozen=True)
class Row:
    """What came of one test. ``folded`` says how little was left to a run, ``bound`` which inputs
    were made constants because a shape depends on them, ``foreign`` which of its inputs and outputs
    are no tensors of numbers. ``nvrtc`` and ``emulator`` are empty where they were not asked.
    """

    name: str
    kind: str
    operators: tuple[str, ...]
    outcome: str
    reason: str = ""
    folded: str = ""
    bound: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    nvrtc: str = ""
    emulator: str = ""
    seconds: float = 0.0


def run_test(test: SuiteTest) -> Row:
    """Run one test in this process, through the official interface, on the CPU."""
    started = time.perf_counter()
    model = test.model()
    found: dict[str, Any] = {}

    def run() -> None:
        prepared = backend.prepare(model, "CPU")
        assert prepared is not None
        for inputs, expected in test.data_sets(model):
            outputs = prepared.run(inputs)
            found.update(facts(prepared.artifact), bound=prepared.bound)
            test.compare(expected, list(outputs))

    outcome, reason = outcome_of(run)
    seconds = round(time.perf_counter() - started, 3)
    row = _row(test, model, outcome, reason)
    return replace(row, seconds=seconds, **found)


def _row(test: SuiteTest, model: onnx.ModelProto, outcome: str, reason: str) -> Row:
    return Row(
        test.name, test.kind, operators(model), outcome, reason, foreign=foreign_kinds(model)
    )


def outcome_of(run: Any) -> tuple[str, str]:
    """What came of a call, and why."""
    try:
        run()
    except (CompileError, ShapeError) as error:
        return REFUSED, _without_folders(str(error))
    except AssertionError as error:
        return WRONG, _shortened(str(error) or traceback.format_exc())
    except RamforgeError as error:
        return CRASHED, _shortened(f"{type(error).__name__}: {error}")
    except Exception:
        return CRASHED, _shortened(traceback.format_exc())
    return PASSED, ""


def facts(artifact: Artifact) -> dict[str, Any]:
    """What a program that ran says about itself."""
    ports = artifact.inputs + artifact.outputs
    folded = ""
    if artifact.manifest["schedule"]["rtasks"] == 0:
        folded = IDLE
    elif not _reads_inputs(artifact):
        folded = CONSTANT
    return {"folded": folded, "types": tuple(sorted({port.dtype for port in ports}))}


def _reads_inputs(artifact: Artifact) -> bool:
    table = _OPERANDS.search(artifact.text())
    assert table is not None
    spaces = {int(space) for space in _SPACE.findall(table[1])}
    return any(_FIRST_INPUT + number in spaces for number in range(len(artifact.inputs)))


def _shortened(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return _without_folders("\n".join(lines[-12:]))


def _without_folders(text: str) -> str:
    """The same on every machine."""
    return _FOLDER.sub("", text)


def run_all(
    tests: Sequence[SuiteTest], workers: int = 2, seconds: float = SECONDS
) -> Iterator[Row]:
    """The rows of all tests, in the order in which they end."""
    _warm_up()
    for test, result in run_each(tests, run_test, workers, seconds):
        if isinstance(result, Failure):
            outcome = TIMEOUT if result.hung else CRASHED
            result = _row(test, test.model(), outcome, result.reason)
        yield result


def _warm_up() -> None:
    """Fill the tables and caches that every child would otherwise fill for itself."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> warm_up (float[3] x) => (float[3] y)'
        " { y = Relu(x) }"
    )
    api.compile(model, target="host")
    host.cpu()
    find_host_compiler()
