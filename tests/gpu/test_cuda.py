"""What needs a CUDA device: skipped with a reason where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ramforge.runtime import gpu_check
from ramforge.runtime.drivers import cuda

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda.is_available(), reason="no CUDA device or no cupy"),
]


@pytest.mark.parametrize("part", list(gpu_check.PARTS))
def test_every_part_of_the_gpu_check_is_right(part: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(gpu_check.main, ["--part", part, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
