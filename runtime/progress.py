"""What a user sees while something runs: one line on a terminal that changes, a line a stage
elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator

import click

from ramforge.compiler.errors import ArtifactError, RamforgeError

Report = Callable[[str], None]

log = logging.getLogger("ramforge")


@contextlib.contextmanager
def reporting(
    verbose: bool = False, quiet: bool = False, log_file: str | None = None, no_color: bool = False
) -> Iterator[Report]:
    """Show the stages that the compiler logs, and those given to the function this yields."""
    plain = no_color or "NO_COLOR" in os.environ or "CI" in os.environ or not _on_a_terminal()
    handlers: list[logging.Handler] = []
    if not quiet:
        handlers.append(_Lines() if plain or verbose else _OneLine())
    if log_file:
        handlers.append(_file(log_file))
    before = log.level
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield log.info
    except (RamforgeError, click.ClickException):
        raise
    except Exception:
        log.debug("the traceback", exc_info=True)
        raise
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
        log.setLevel(before)


def _on_a_terminal() -> bool:
    # None when the process was started with stderr closed
    return sys.stderr is not None and sys.stderr.isatty()


def _file(path: str) -> logging.Handler:
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise ArtifactError(
            f"{path}: the log cannot be written ({error.strerror})\n    fix: choose another path"
        ) from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    return handler


class _Lines(logging.Handler):
    """A line for each stage, with the seconds since the start."""

    def __init__(self) -> None:
        super().__init__()
        self._start = time.perf_counter()

    def emit(self, record: logging.LogRecord) -> None:
        taken = time.perf_counter() - self._start
        # work goes on when nobody listens any more
        with contextlib.suppress(OSError):
            click.echo(f"[{taken:6.2f} s] {self.format(record)}", err=True)


class _OneLine(logging.Handler):
    """One line with a spinner; the last message stays."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console

        self._console = Console(stderr=True)
        self._status = self._console.status("starting")
        self._status.start()
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        self._last = record.getMessage()
        self._status.update(Text(self._last))

    def close(self) -> None:
        self._status.stop()
        if self._last:
            self._console.print(self._last, highlight=False, markup=False)
            self._last = ""
        super().close()
