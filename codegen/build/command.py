"""Running a compiler on one text, and what a user reads when the compiler refuses it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ramforge.codegen.build import cache
from ramforge.compiler.errors import ArtifactError, ToolchainError

SOURCE_NAME = "out.cu"
_LINES_SHOWN = 20


def compile_text(command: Sequence[str], source: str) -> tuple[bytes, str]:
    """Run ``command`` in a folder that holds just the text, as ``out.cu``: the product and the log.

    The compiler is told no path of this machine, so that its messages are the same everywhere.
    """
    with tempfile.TemporaryDirectory(prefix="ramforge-build-") as folder:
        Path(folder, SOURCE_NAME).write_text(source, encoding="utf-8")
        product = Path(folder, "product")
        try:
            done = subprocess.run(
                (*command, SOURCE_NAME, "-o", product.name),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise ToolchainError(f"{command[0]} does not start: {error}") from error
        if done.returncode != 0 or not product.exists():
            raise refusal(" ".join(command), done.stdout, source)
        return product.read_bytes(), done.stdout


def refusal(compiler: str, log: str, source: str) -> ToolchainError:
    """The error for a failed compile: the head of the log, and where all of it and the text lie."""
    lines = log.splitlines()
    key = (compiler.encode(), source.encode())
    try:
        text = cache.cached("failed", key, ".cu", lambda path: _write(path, source))
        full_log = cache.cached("failed", (*key, log.encode()), ".txt", lambda p: _write(p, log))
        where = f"the full log is {full_log}, for the text {text}"
    except ArtifactError as error:
        where = f"the full log could not be kept: {error}"
    more = [f"... {len(lines) - _LINES_SHOWN} more lines"] if len(lines) > _LINES_SHOWN else []
    shown = "\n".join(f"    {line}" for line in (*lines[:_LINES_SHOWN], *more))
    return ToolchainError(f"the compiler refused the text: {compiler}\n{shown}\n    {where}")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def read_source(path: Path) -> str:
    """The text of an emitted file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error


def deliver(program: Path, output: Path) -> Path:
    """Put a built program where the user wants it, by rename: an older one may be running."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".ramforge-", dir=output.parent) as folder:
            fresh = Path(folder, output.name)
            shutil.copyfile(program, fresh)
            umask = _umask()
            fresh.chmod(0o777 & ~umask)
            fresh.replace(output)
    except OSError as error:
        raise ArtifactError(f"{output} cannot be written: {error}") from error
    return output


def _umask() -> int:
    # POSIX only tells the mask while it sets one.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
