"""Work in child processes, each with a time limit.

Children are forked from a process that has everything imported, so that a piece of work costs what
it costs and no more. What a child did not report, it crashed or hung in.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")

_CONTEXT = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Failure:
    """A child that gave no result."""

    reason: str
    hung: bool


def run_each(
    items: Sequence[Item], work: Callable[[Item], Result], workers: int, seconds: float
) -> Iterator[tuple[Item, Result | Failure]]:
    """The results of all items, in the order in which they end."""
    pending = iter(items)
    running: dict[Connection, _Child[Item, Result]] = {}
    gc.collect()
    gc.freeze()  # children would otherwise copy what they never look at
    while True:
        for _, item in zip(range(workers - len(running)), pending, strict=False):
            child = _Child(item, work, seconds)
            running[child.pipe] = child
        if not running:
            return
        first = min(child.deadline for child in running.values())
        ready = wait(list(running), timeout=max(0.0, first - time.monotonic()))
        now = time.monotonic()
        for pipe, child in list(running.items()):
            if pipe in ready or child.deadline <= now:
                del running[pipe]
                yield child.item, child.result(pipe in ready)


class _Child(Generic[Item, Result]):
    """One item at work."""

    def __init__(self, item: Item, work: Callable[[Item], Result], seconds: float) -> None:
        self.item = item
        self.deadline = time.monotonic() + seconds
        self._seconds = seconds
        self.pipe, other = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_work, args=(work, item, other))
        self._process.start()
        other.close()

    def result(self, is_ready: bool) -> Result | Failure:
        try:
            if is_ready:
                result: Result = self.pipe.recv()
                return result
            return Failure(f"no result in {self._seconds:g} s", True)
        except EOFError:
            self._process.join()
            return Failure(f"the process ended with {self._process.exitcode}", False)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid or 0, signal.SIGKILL)
            self._process.join()
            self.pipe.close()


def _work(work: Callable[[Item], Result], item: Item, pipe: Connection) -> None:
    os.setpgid(0, 0)  # so that a compiler it started ends with it
    np.seterr(all="ignore")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    pipe.send(work(item))
    pipe.close()
