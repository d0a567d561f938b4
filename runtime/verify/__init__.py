"""Is a result right? Tolerances, references, and where an error comes from.

``tolerance`` has the numbers and the comparison, ``reference`` runs a model elsewhere, ``outputs``
verifies an artefact, ``layers`` and ``bisect`` look into its model.
"""

from ramforge.runtime.verify.outputs import Verification, verify
from ramforge.runtime.verify.tolerance import (
    TOLERANCES,
    Difference,
    Tolerances,
    difference,
    differences,
    of_precision,
    require,
)

__all__ = [
    "TOLERANCES",
    "Difference",
    "Tolerances",
    "Verification",
    "difference",
    "differences",
    "of_precision",
    "require",
    "verify",
]
