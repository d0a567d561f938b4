"""Operators and the kernel families that carry them out. Importing this fills the registry."""

from ramforge.kernels import (  # noqa: F401
    contract,
    map,
    movement,
    normalisation,
    pointwise,
    products,
    reduce,
    reductions,
    row,
)
