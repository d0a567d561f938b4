"""The store of built things: atomic, self-healing, and careful with what is not its own."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from ramforge.codegen.build import cache
from ramforge.compiler.errors import ArtifactError

KEY = (b"source", b"flags")


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "store"
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(folder))
    return folder


class Maker:
    """Writes its text and counts how often it was asked to."""

    def __init__(self, text: str = "made") -> None:
        self.text = text
        self.calls = 0

    def __call__(self, path: Path) -> None:
        self.calls += 1
        path.write_text(self.text)


def test_a_second_request_is_a_hit() -> None:
    make = Maker()
    first = cache.cached("thing", KEY, ".txt", make)
    assert cache.cached("thing", KEY, ".txt", make) == first
    assert (make.calls, first.read_text()) == (1, "made")


def test_the_boundary_between_parts_is_part_of_the_key() -> None:
    assert cache.digest((b"ab", b"c")) != cache.digest((b"a", b"bc"))


def seal_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no seal", "binary seal", "no file"])
def test_a_damaged_entry_is_only_a_miss(damage: str) -> None:
    make = Maker()
    path = cache.cached("thing", KEY, ".txt", make)
    if damage == "truncated":
        path.write_text("mad")
    elif damage == "flipped":
        path.write_text("mada")
    elif damage == "no seal":
        seal_of(path).unlink()
    elif damage == "binary seal":
        seal_of(path).write_bytes(b"\xff\xfe")
    else:
        path.unlink()
    assert cache.cached("thing", KEY, ".txt", make).read_text() == "made"
    assert make.calls == 2


def test_a_failing_maker_leaves_nothing_behind(own_store: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("compiler died")

    with pytest.raises(RuntimeError, match="compiler died"):
        cache.cached("thing", KEY, ".txt", fail)
    assert list((own_store / "thing").iterdir()) == []


def _build_slowly(folder: str, barrier: object, answers: multiprocessing.Queue[str]) -> None:
    import os

    os.environ[cache.FOLDER_VARIABLE] = folder
    barrier.wait()  # type: ignore[attr-defined]

    def make(path: Path) -> None:
        with path.open("w") as file:
            for _ in range(50):
                file.write("0123456789" * 100)
                file.flush()
                time.sleep(0.002)

    answers.put(cache.cached("thing", KEY, ".txt", make).read_text())


def test_two_processes_may_make_the_same_entry_at_once(own_store: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.Queue()
    workers = [
        context.Process(target=_build_slowly, args=(str(own_store), barrier, answers))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    whole = "0123456789" * 5000
    assert [answers.get(timeout=60) for _ in workers] == [whole, whole]
    for worker in workers:
        worker.join(timeout=60)
    assert cache.usage().entries == 1


def test_clear_deletes_entries_and_no_other_file(own_store: Path) -> None:
    cache.cached("thing", KEY, ".txt", Maker("12345"))
    mine = own_store / "thing" / "notes.md"
    mine.write_text("mine")
    before = cache.clear()
    assert before.entries == 1 and before.size_bytes > 5
    assert cache.usage().entries == 0
    assert mine.read_text() == "mine"


def test_an_unwritable_store_says_how_to_move_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "file" / "store"))
    with pytest.raises(ArtifactError, match="set RAMFORGE_CACHE"):
        cache.cached("thing", KEY, ".txt", Maker())


def test_without_a_choice_the_store_follows_the_users_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(cache.FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.store() == tmp_path / "ramforge"
