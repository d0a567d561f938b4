"""How far a result may be from its reference. The one place with tolerances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ramforge.compiler.errors import VerificationError
from ramforge.compiler.ir import Array

# Largest difference as a share of the largest reference value; integers and booleans must be equal.
# Types of 16 bits may be four units of their last place apart.
TOLERANCES = {"float32": 1e-4, "float64": 1e-10, "float16": 4e-3, "bfloat16": 4e-2}


@dataclass(frozen=True, slots=True)
class Tolerances:
    """What is allowed: an absolute difference, plus one relative to the largest reference value.

    Each by the name of a tensor, under "" for all others; what is not said is 0 for the absolute
    one, and for the relative one what ``TOLERANCES`` has for the type.
    """

    absolute: Mapping[str, float] = field(default_factory=dict)
    relative: Mapping[str, float] = field(default_factory=dict)

    def of(self, name: str, dtype: np.dtype[np.generic]) -> tuple[float, float]:
        """The absolute and the relative one."""
        default = TOLERANCES.get(str(dtype), 0.0)
        return _said(self.absolute, name, 0.0), _said(self.relative, name, default)

    def over(self, other: Tolerances) -> Tolerances:
        """These, and where they say nothing of a tensor those of ``other``."""
        return Tolerances(
            {**_without(other.absolute, self), **self.absolute},
            {**_without(other.relative, self), **self.relative},
        )


def _without(table: Mapping[str, float], said: Tolerances) -> dict[str, float]:
    """What is left of a table where something is said: of all tensors, or of some of them."""
    names = {*said.absolute, *said.relative}
    return {} if "" in names else {name: x for name, x in table.items() if name not in names}


def _said(table: Mapping[str, float], name: str, default: float) -> float:
    return table.get(name, table.get("", default))


DEFAULT = Tolerances()
# Of float32 results whose factors had fewer bits. What each product loses adds up over a network.
OF_PRECISION = {"tf32": 4e-3, "fp16": 4e-3, "bf16": 4e-2}


def of_precision(precision: str) -> Tolerances:
    """For a program that was compiled with ``--precision``."""
    allowed = OF_PRECISION.get(precision)
    return DEFAULT if allowed is None else Tolerances(relative={"": allowed})


@dataclass(frozen=True, slots=True)
class Difference:
    """How far an array is from its reference: ``share`` and ``tolerance`` are parts of the largest
    reference value.
    """

    name: str
    largest: float
    share: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.share <= self.tolerance  # false for NaN


def difference(
    name: str, got: Array, reference: Array, tolerances: Tolerances = DEFAULT
) -> Difference:
    """Compare by the largest difference; NaN and infinity must be at the same places."""
    absolute, relative = tolerances.of(name, reference.dtype)
    if got.shape != reference.shape or got.dtype != reference.dtype:
        return Difference(name, float("inf"), float("inf"), relative)
    if not reference.size:
        return Difference(name, 0.0, 0.0, relative)
    wide, exact = got.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(exact)
    if not np.array_equal(wide[~finite], exact[~finite], equal_nan=True):
        return Difference(name, float("inf"), float("inf"), relative)
    largest = float(np.abs(wide[finite] - exact[finite]).max(initial=0.0))
    scale = float(np.abs(exact[finite]).max(initial=0.0)) or 1.0
    return Difference(name, largest, largest / scale, relative + absolute / scale)


def differences(
    names: Sequence[str],
    got: Sequence[Array],
    reference: Sequence[Array],
    tolerances: Tolerances = DEFAULT,
) -> tuple[Difference, ...]:
    """For each name; results may have numbers of checks behind the outputs."""
    return tuple(
        difference(name, mine, theirs, tolerances)
        for name, mine, theirs in zip(names, got, reference, strict=False)
    )


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
