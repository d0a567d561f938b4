"""Runs tests, each in a child process of its own with a time limit.

Children are forked from a process that has everything imported, so that a test costs what it costs
and no more. What a child did not report, it crashed or hung in.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

import ramforge.onnx_backend as backend
from ramforge.compiler.errors import CompileError, RamforgeError, ShapeError
from tests.conformance.suite import SuiteTest, operators

PASSED, REFUSED, WRONG, CRASHED, TIMEOUT = "passed", "refused", "wrong", "crashed", "timeout"
OUTCOMES = (PASSED, REFUSED, WRONG, CRASHED, TIMEOUT)
SECONDS = 120.0


@dataclass(frozen=True)
class Row:
    """What came of one test. ``idle`` says that no rTask ran, ``bound`` which inputs were made
    constants because a shape depends on them, ``source`` where the emitted file is.
    """

    name: str
    kind: str
    operators: tuple[str, ...]
    outcome: str
    reason: str = ""
    seconds: float = 0.0
    idle: bool = False
    bound: tuple[str, ...] = ()
    source: str = ""
    types: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_test(test: SuiteTest) -> Row:
    """Run one test in this process."""
    started = time.perf_counter()
    model = test.model()
    found: dict[str, Any] = {}
    outcome, reason = PASSED, ""
    try:
        prepared = backend.prepare(model, "CPU")
        assert prepared is not None
        for inputs, expected in test.data_sets(model):
            outputs = prepared.run(inputs)
            artifact = prepared.artifact
            found = {
                "idle": artifact.manifest["schedule"]["rtasks"] == 0,
                "bound": prepared.bound,
                "source": str(artifact.source),
                "types": tuple(sorted({port.dtype for port in artifact.inputs + artifact.outputs})),
            }
            test.compare(expected, list(outputs))
    except (CompileError, ShapeError) as error:
        outcome, reason = REFUSED, str(error)
    except AssertionError as error:
        outcome, reason = WRONG, _shortened(str(error) or traceback.format_exc())
    except RamforgeError as error:
        outcome, reason = CRASHED, f"{type(error).__name__}: {error}"
    except Exception:
        outcome, reason = CRASHED, _shortened(traceback.format_exc())
    seconds = round(time.perf_counter() - started, 3)
    return Row(test.name, test.kind, operators(model), outcome, reason, seconds, **found)


def _shortened(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return "\n".join(lines[-12:])


def run_all(
    tests: Sequence[SuiteTest], workers: int = 2, seconds: float = SECONDS
) -> Iterator[Row]:
    """The rows of all tests, in the order in which they end."""
    pending = iter(tests)
    running: dict[Connection, _Child] = {}
    gc.collect()
    gc.freeze()  # children would otherwise copy what they never look at
    while True:
        for test in _take(pending, workers - len(running)):
            child = _Child(test, seconds)
            running[child.pipe] = child
        if not running:
            return
        first = min(child.deadline for child in running.values())
        ready = wait(list(running), timeout=max(0.0, first - time.monotonic()))
        now = time.monotonic()
        for pipe, child in list(running.items()):
            if pipe in ready or child.deadline <= now:
                del running[pipe]
                yield child.row(pipe in ready)


def _take(items: Iterable[SuiteTest], count: int) -> Iterator[SuiteTest]:
    for _, item in zip(range(count), items, strict=False):
        yield item


class _Child:
    """A test at work."""

    def __init__(self, test: SuiteTest, seconds: float) -> None:
        self.test = test
        self.deadline = time.monotonic() + seconds
        self._seconds = seconds
        self.pipe, other = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_work, args=(run_test, test, other))
        self._process.start()
        other.close()

    def row(self, is_ready: bool) -> Row:
        test = self.test
        try:
            if is_ready:
                row: Row = self.pipe.recv()
                return row
            outcome, reason = TIMEOUT, f"no result in {self._seconds:g} s"
        except EOFError:
            self._process.join()
            outcome, reason = CRASHED, f"the process ended with {self._process.exitcode}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid or 0, signal.SIGKILL)
            self._process.join()
            self.pipe.close()
        return Row(test.name, test.kind, operators(test.model()), outcome, reason)


_CONTEXT = multiprocessing.get_context("fork")


def _work(run: Callable[[SuiteTest], Row], test: SuiteTest, pipe: Connection) -> None:
    os.setpgid(0, 0)  # so that a compiler it started ends with it
    np.seterr(all="ignore")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    pipe.send(run(test))
    pipe.close()
