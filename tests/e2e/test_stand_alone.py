"""The emitted file is a program by itself: the line in its head builds it, and it needs nothing of
ours to run.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest

import ramforge
from ramforge.codegen.artifact import Artifact
from ramforge.runtime import arrays, verify
from ramforge.zoo import MODELS


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("alone")
    return ramforge.compile(MODELS["resnet_small"](), output=folder / "net.cu")


def build_line(artifact: Artifact, compiler: str) -> list[str]:
    """The command that the head of the file gives for this compiler."""
    (line,) = re.findall(rf"^// build for the \w+ +({compiler} .*)$", artifact.text(), re.M)
    return str(line).split()


def test_the_host_line_in_the_head_gives_a_program_that_agrees_with_the_session(
    artifact: Artifact,
) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++ on this machine")
    folder = artifact.source.parent
    subprocess.run(build_line(artifact, r"g\+\+"), cwd=folder, check=True)
    inputs = arrays.made_up(artifact.inputs, seed=3)
    ((name, value),) = inputs.items()
    value.tofile(folder / "x.raw")
    (output,) = artifact.outputs
    subprocess.run(
        ["./net", "--in", f"{name}=x.raw", "--out", f"{output.name}=y.raw", "--threads", "2"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    with ramforge.Session(artifact, "host") as session:
        (expected,) = session.run(None, inputs)
    got = np.fromfile(folder / "y.raw", dtype=output.dtype).reshape(output.shape)
    assert verify.difference(output.name, got, expected).ok


def test_the_program_explains_itself_and_names_its_errors(artifact: Artifact) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++ on this machine")
    folder = artifact.source.parent
    if not (folder / "net").exists():
        subprocess.run(build_line(artifact, r"g\+\+"), cwd=folder, check=True)
    wrong = subprocess.run(["./net", "--nonsense"], cwd=folder, capture_output=True, text=True)
    assert wrong.returncode == 2 and "usage" in wrong.stderr
    assert artifact.inputs[0].name in wrong.stderr
    missing = subprocess.run(
        ["./net", "--weights", "nowhere"], cwd=folder, capture_output=True, text=True
    )
    assert missing.returncode == 4 and "nowhere" in missing.stderr


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_any_number_of_threads_gives_the_same_bits(artifact: Artifact, threads: int) -> None:
    inputs = arrays.made_up(artifact.inputs, seed=4)
    with ramforge.Session(artifact, "host:1") as session:
        (expected,) = session.run(None, inputs)
    with ramforge.Session(artifact, f"host:{threads}") as session:
        for _ in range(20):
            (got,) = session.run(None, inputs)
            assert got.tobytes() == expected.tobytes()
