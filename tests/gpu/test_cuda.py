"""What needs a CUDA device: skipped with a reason where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import ramforge
from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import linked
from ramforge.runtime import arrays, gpu_check
from ramforge.runtime.drivers import cuda

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda.is_available(), reason="no CUDA device or no cupy"),
]


@pytest.mark.parametrize("part", list(gpu_check.PARTS))
def test_every_part_of_the_gpu_check_is_right(part: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(gpu_check.main, ["--part", part, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output


@pytest.mark.skipif(bool(linked.obstacle()), reason=linked.obstacle())
def test_linked_units_and_one_file_compute_alike(
    compile_example: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = compile_example("resnet_small", "events", sms=132)
    given = arrays.made_up(artifact.inputs, seed=1)
    with ramforge.Session(artifact, "cuda") as session:
        expected = session.run(None, given)
    monkeypatch.setattr(linked, "obstacle", lambda: "one file is wanted")
    with ramforge.Session(artifact, "cuda") as session:
        found = session.run(None, given)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
