"""How many units in the last place the host's own exp, tanh, erf and sigmoid are off, everywhere.

The GPU has its own functions; what they give is a matter of ``make gpu-check``.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import Array, check, model_of, one, run_both

# Where exp, sigmoid and erf leave what float32 can hold lies well inside of this.
WIDE = np.linspace(-120, 120, 200_001).astype(np.float32)
NEAR = np.linspace(-5, 5, 200_001).astype(np.float32)
TINY = np.float32(2) ** np.arange(-149, 0, dtype=np.float32)
X = np.concatenate([WIDE, NEAR, TINY, -TINY])

LIMITS_ULP = {"Exp": 2.0, "Tanh": 4.0, "Erf": 6.0, "Sigmoid": 4.0}


def exact(op: str, x: Array) -> Array:
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        if op == "Exp":
            return np.asarray(np.exp(wide))
        if op == "Tanh":
            return np.asarray(np.tanh(wide))
        if op == "Erf":
            return np.asarray(np.vectorize(math.erf)(wide))
        return np.asarray(np.exp(-np.logaddexp(0, -wide)))


def test_a_few_ulp_over_all_of_float32(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [one(op, X) for op in LIMITS_ULP]
    feeds = {f"c{number}_x0": X for number in range(len(cases))}
    found = run_both(model_of(cases), feeds, tmp_path, places=("host",), level="-O3")["host"]
    worst = {}
    for (op, limit), result in zip(LIMITS_ULP.items(), found, strict=True):
        wanted = exact(op, X)
        with np.errstate(over="ignore", invalid="ignore"):
            nearest = wanted.astype(np.float32)
            unit = np.spacing(np.abs(nearest)).astype(np.float64)
            off = np.abs(result.astype(np.float64) - wanted) / unit
        overflows = np.isinf(nearest)
        assert np.array_equal(np.isinf(result), overflows), op
        off[overflows] = 0
        worst[op] = (float(off.max()), float(X[off.argmax()]), limit)
    with capsys.disabled():
        print(
            "\n" + ", ".join(f"{op} {ulp:.2f} ulp at {x:.6g}" for op, (ulp, x, _) in worst.items())
        )
    assert all(ulp <= limit for ulp, _, limit in worst.values()), worst


def test_saturation_infinity_and_nan(tmp_path: Path) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 3e38, -3e38, 1e5, -1e5, 0.0, -0.0], np.float32)
    rows = {
        "Exp": [np.inf, 0, np.nan, np.inf, 0, np.inf, 0, 1, 1],
        "Tanh": [1, -1, np.nan, 1, -1, 1, -1, 0, 0],
        "Erf": [1, -1, np.nan, 1, -1, 1, -1, 0, 0],
        "Sigmoid": [1, 0, np.nan, 1, 0, 1, 0, 0.5, 0.5],
    }
    check([one(op, x).giving(np.array(row, np.float32)) for op, row in rows.items()], tmp_path)
