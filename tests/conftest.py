"""Options and artefacts that tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import ramforge
from ramforge.codegen.artifact import Artifact
from ramforge.compiler.device import find_target
from ramforge.zoo import MODELS
from tests.host_builds import quick_host_builds

CompileExample = Callable[..., Artifact]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the golden files instead of comparing"
    )


@pytest.fixture(scope="session")
def compile_example(tmp_path_factory: pytest.TempPathFactory) -> CompileExample:
    """An example model compiled for an H200 with few SMs, each combination once a session."""

    @cache
    def compiled(model: str, schedule: str = "waves", sms: int = 4) -> Artifact:
        folder: Path = tmp_path_factory.mktemp(f"{model}-{schedule}-{sms}")
        return ramforge.compile(
            MODELS[model](),
            target=replace(find_target("h200"), sms=sms),
            output=folder / f"{model}.cu",
            dims={"batch": 1} if model == "mlp" else {},
            schedule=schedule,
        )

    return compiled


@pytest.fixture(scope="module")
def quick_host() -> Iterator[None]:
    """For tests whose subject is not what the host body computes: built without optimisation."""
    with quick_host_builds():
        yield
