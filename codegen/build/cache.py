"""The content-keyed store: what a compiler made, filed under the hash of all that went into it.

An entry is a file and a small ``.sha256`` beside it. Both arrive by rename, so several processes
may fill the store at once; an entry whose two files disagree is only a miss and is made again.
Nothing but entries is ever deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ramforge.compiler.errors import ArtifactError

FOLDER_VARIABLE = "RAMFORGE_CACHE"
_SEAL_SUFFIX = ".sha256"
_UNFINISHED_PREFIX = ".unfinished-"
_ABANDONED_AFTER_S = 24 * 3600
_ENTRY_NAME = re.compile(r"[0-9a-f]{64}(\.[\w.]+)?")


@dataclass(frozen=True, slots=True)
class Usage:
    """What the store holds; seals are not counted as entries."""

    folder: Path
    entries: int
    size_bytes: int


def store() -> Path:
    """The root folder, which need not exist yet."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    try:
        platformdirs = importlib.import_module("platformdirs")
    except ImportError:
        home = os.environ.get("XDG_CACHE_HOME", "")
        # The XDG specification says to ignore a relative path.
        base = Path(home) if os.path.isabs(home) else Path.home() / ".cache"
        return base / "ramforge"
    return Path(platformdirs.user_cache_path("ramforge", appauthor=False))


def digest(parts: Iterable[bytes]) -> str:
    """The SHA-256 of the parts, each preceded by its length so that no two lists look the same."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def cached(kind: str, key: Iterable[bytes], suffix: str, make: Callable[[Path], None]) -> Path:
    """The file for this key; ``make`` is called with a path to write if there is no sound entry."""
    folder = store() / kind
    path = folder / (digest(key) + suffix)
    if _is_sound(path):
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = tempfile.TemporaryDirectory(prefix=_UNFINISHED_PREFIX, dir=folder)
    except OSError as error:
        raise _unwritable(error) from error
    with unfinished as name:
        fresh = Path(name) / path.name
        make(fresh)
        try:
            _publish(fresh, path)
        except OSError as error:
            raise _unwritable(error) from error
    return path


def usage() -> Usage:
    """How many entries there are and how much room they take."""
    sizes = {path: _size(path) for path in _files()}
    entries = sum(1 for path in sizes if not path.name.endswith(_SEAL_SUFFIX))
    return Usage(store(), entries, sum(sizes.values()))


def clear() -> Usage:
    """Delete every entry, and say what there was."""
    before = usage()
    folders = set()
    for path in tuple(_files()):
        folders.add(path.parent)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(error) from error
    for folder in folders:
        _clear_abandoned(folder)
        # Not empty when another process has just put something there, or a user has.
        with contextlib.suppress(OSError):
            folder.rmdir()
    return before


def _files() -> Iterator[Path]:
    """The files that ``cached`` wrote, and nothing else that a user may keep in the same folder."""
    for path in store().glob("*/*"):
        if _ENTRY_NAME.fullmatch(path.name) and path.is_file():
            yield path


def _clear_abandoned(folder: Path) -> None:
    """Remove what killed processes left; a younger folder may belong to a build that still runs."""
    oldest = time.time() - _ABANDONED_AFTER_S
    for path in folder.glob(f"{_UNFINISHED_PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _seal_of(path: Path) -> Path:
    return path.with_name(path.name + _SEAL_SUFFIX)


def _seal(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()} {len(content)}\n"


def _is_sound(path: Path) -> bool:
    try:
        return _seal_of(path).read_text() == _seal(path.read_bytes())
    except (OSError, UnicodeDecodeError):
        return False


def _publish(fresh: Path, path: Path) -> None:
    """Move a finished file into place. Who reads between the two renames sees a miss, no more."""
    seal = _seal_of(fresh)
    seal.write_text(_seal(fresh.read_bytes()))
    fresh.replace(path)
    seal.replace(_seal_of(path))


def _unwritable(error: OSError) -> ArtifactError:
    return ArtifactError(
        f"the build cache {store()} cannot be written: {error}\n"
        f"    fix: set {FOLDER_VARIABLE} to a folder that you can write"
    )
