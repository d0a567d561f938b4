"""Every registered operator passes a test of the suite, or is in a unit test of its own."""

from __future__ import annotations

import json
from pathlib import Path

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.compiler import registry

ROOT = Path(__file__).parents[2]


def test_every_registered_operator_passes_a_test() -> None:
    rows = json.loads((ROOT / "docs/conformance.json").read_text())["tests"]
    passed = {name for row in rows if row["outcome"] == "passed" for name in row["operators"]}
    texts = "\n".join(path.read_text() for path in ROOT.glob("tests/unit/test_operators_*.py"))
    tested = {name for name in registry.names() if f'"{name}"' in texts}
    assert set(registry.names()) - passed - tested == {registry.COMPARE, registry.CHOOSE}
