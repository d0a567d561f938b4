"""Run cases in a child process with a limit of time and memory, and see what became of each."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_CONTEXT = multiprocessing.get_context("fork")


def in_child(
    cases: Sequence[T],
    run: Callable[[T], str],
    seconds: float = 60.0,
    more_bytes: int = 0,
) -> list[str]:
    """What ``run`` says of each case; of one that ends the process or takes longer, that it did.

    ``more_bytes`` is how much memory a case may take beyond what there is already; 0 is any amount.
    """
    found: list[str] = []
    while len(found) < len(cases):
        found += _some(cases[len(found) :], run, seconds, more_bytes)
    return found


def _some(
    cases: Sequence[T], run: Callable[[T], str], seconds: float, more_bytes: int
) -> list[str]:
    """The results up to the first that ends the process."""
    pipe, other = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_work, args=(cases, run, other, more_bytes))
    process.start()
    other.close()
    found: list[str] = []
    try:
        while len(found) < len(cases):
            if not pipe.poll(seconds):
                found.append(f"no result in {seconds:g} s")
                break
            found.append(pipe.recv())
    except EOFError:
        process.join()
        found.append(f"the process ended with {process.exitcode}")
    finally:
        _end(process.pid or 0)
        process.join()
        pipe.close()
    return found


def _end(group: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(group, signal.SIGKILL)
            return
        except ProcessLookupError:
            time.sleep(0.01)
            if not Path(f"/proc/{group}").exists():
                return


def _work(cases: Sequence[T], run: Callable[[T], str], pipe: Connection, more_bytes: int) -> None:
    faulthandler.disable()  # the parent says what happened
    os.setpgid(0, 0)  # so that a compiler it started ends with it
    if more_bytes:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for case in cases:
        pipe.send(run(case))
    pipe.close()
