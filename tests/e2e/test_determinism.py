"""The same model, options and version make the same three files, wherever and however often."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = ("resnet_small", "encoder_small", "lstm_cell")
SUFFIXES = (".cu", ".safetensors", ".json")
COMPILE = """
import sys
from pathlib import Path
import ramforge
from ramforge.zoo import MODELS

for schedule in ("waves", "per-op"):
    for name in sys.argv[2:]:
        output = Path(sys.argv[1]) / f"{name}-{schedule}.cu"
        ramforge.compile(MODELS[name](), output=output, schedule=schedule)
"""

Digests = dict[str, str]


def digests(folder: Path) -> Digests:
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    assert len(files) == len(SUFFIXES) * 2 * len(NAMES)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def compiled_elsewhere(folder: Path, **environment: str) -> Digests:
    """By another process, in a folder of its own."""
    folder.mkdir()
    command = (sys.executable, "-c", COMPILE, str(folder), *NAMES)
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return digests(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Digests]:
    base = tmp_path_factory.mktemp("determinism")
    nothing = base / "nothing"
    nothing.mkdir()
    cases = {
        "hash seed 1": {"PYTHONHASHSEED": "1"},
        "hash seed 77 and no compiler": {
            **{"PYTHONHASHSEED": "77", "PATH": str(nothing)},
            **{"CUDA_HOME": "", "RAMFORGE_CACHE": str(nothing)},
        },
    }
    with ThreadPoolExecutor(2) as threads:
        found = threads.map(
            lambda case: compiled_elsewhere(base / case[0].replace(" ", "-"), **case[1]),
            cases.items(),
        )
        results = dict(zip(cases, found, strict=True))
    assert list(nothing.iterdir()) == []  # emission put nothing into the cache
    return results


def test_the_files_are_the_same_to_the_byte(runs: dict[str, Digests]) -> None:
    assert runs["hash seed 77 and no compiler"] == runs["hash seed 1"]


def test_one_process_compiles_the_same_twice(tmp_path: Path, runs: dict[str, Digests]) -> None:
    import ramforge
    from ramforge.zoo import MODELS

    for schedule in ("waves", "per-op"):
        for number in range(2):
            output = tmp_path / f"lstm_cell-{schedule}.cu"
            ramforge.compile(MODELS["lstm_cell"](), output=output, schedule=schedule)
            for suffix in SUFFIXES:
                found = hashlib.sha256(output.with_suffix(suffix).read_bytes()).hexdigest()
                assert found == runs["hash seed 1"][output.with_suffix(suffix).name], number


def test_the_name_of_the_output_is_all_that_a_text_knows_of_its_place(tmp_path: Path) -> None:
    import ramforge
    from ramforge.zoo import MODELS

    text = ramforge.compile(MODELS["mlp"](), output=tmp_path / "a.cu", dims={"batch": 2}).text()
    assert str(tmp_path) not in text and str(ROOT) not in text
    renamed = ramforge.compile(MODELS["mlp"](), output=tmp_path / "bb.cu", dims={"batch": 2})
    changed = text.replace("a.cu", "bb.cu").replace("a.safetensors", "bb.safetensors")
    assert renamed.text() == changed.replace("-o a\n", "-o bb\n").replace("./a ", "./bb ")
