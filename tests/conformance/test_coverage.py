"""Every registered operator passes a test of the suite, or has a test that is named here."""

from __future__ import annotations

import json
from pathlib import Path

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.compiler import registry

RECORD = Path(__file__).parents[2] / "docs/conformance.json"

# What the suite does not have, or compares with NumPy's own random numbers.
ELSEWHERE = {
    registry.CHECK_OPERAND: "tests/unit/test_declared_shapes.py",
    "Bernoulli": "tests/unit/test_operators_random.py",
    "Multinomial": "tests/unit/test_operators_random.py",
    "RandomNormal": "tests/unit/test_operators_random.py",
    "RandomNormalLike": "tests/unit/test_operators_random.py",
    "RandomUniform": "tests/unit/test_operators_random.py",
    "RandomUniformLike": "tests/unit/test_operators_random.py",
}


def test_every_registered_operator_passes_a_test() -> None:
    rows = json.loads(RECORD.read_text())["tests"]
    passed = {
        operator for row in rows if row["outcome"] == "passed" for operator in row["operators"]
    }
    missing = set(registry.names()) - passed - set(ELSEWHERE)
    assert missing == set()
