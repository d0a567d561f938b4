"""Is a result right? The one place with tolerances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ramforge.compiler.errors import VerificationError
from ramforge.compiler.ir import Array

# Largest difference as a share of the largest reference value; integers and booleans must be equal.
TOLERANCES = {"float32": 1e-4, "float64": 1e-10}


@dataclass(frozen=True, slots=True)
class Difference:
    """How far an array is from its reference."""

    name: str
    largest: float
    share: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.share <= self.tolerance  # false for NaN


def difference(name: str, got: Array, reference: Array) -> Difference:
    """Compare by the largest difference; NaN and infinity must be at the same places."""
    tolerance = TOLERANCES.get(str(reference.dtype), 0.0)
    if got.shape != reference.shape or got.dtype != reference.dtype:
        return Difference(name, float("inf"), float("inf"), tolerance)
    if not reference.size:
        return Difference(name, 0.0, 0.0, tolerance)
    wide, exact = got.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(exact)
    if not np.array_equal(wide[~finite], exact[~finite], equal_nan=True):
        return Difference(name, float("inf"), float("inf"), tolerance)
    largest = float(np.abs(wide[finite] - exact[finite]).max(initial=0.0))
    scale = float(np.abs(exact[finite]).max(initial=0.0))
    return Difference(name, largest, largest / scale if scale else largest, tolerance)


def differences(
    names: Sequence[str], got: Sequence[Array], reference: Sequence[Array]
) -> tuple[Difference, ...]:
    return tuple(map(difference, names, got, reference))


def require(found: Sequence[Difference]) -> None:
    """Raise VerificationError that lists every output that is too far off."""
    wrong = [item for item in found if not item.ok]
    if wrong:
        lines = [
            f"  output {item.name!r}: off by {item.share:.1e} of the largest value, "
            f"allowed {item.tolerance:.0e}"
            for item in wrong
        ]
        raise VerificationError("\n".join(["the results differ from the reference", *lines]))
