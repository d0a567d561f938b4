"""A generator for each operator: what attributes and operands it may have."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.maker import Maker
from tests.fuzz.operators import folds, layers, lookups, movement, pointwise, rare

Generator = Callable[[Maker], object]

GENERATORS: dict[str, Generator] = {
    **pointwise.GENERATORS,
    **movement.GENERATORS,
    **folds.GENERATORS,
    **layers.GENERATORS,
    **lookups.GENERATORS,
    **rare.GENERATORS,
}

# Operators that have none, and why.
WITHOUT = {
    **dict.fromkeys(("Bernoulli", "Multinomial"), "what they give is random"),
    **dict.fromkeys(("RandomNormal", "RandomNormalLike"), "what they give is random"),
    **dict.fromkeys(("RandomUniform", "RandomUniformLike"), "what they give is random"),
    **dict.fromkeys(("ramforge.Compare", "ramforge.Choose"), "is not one of ONNX"),
    **dict.fromkeys(("NonMaxSuppression", "Unique"), "the shape depends on the values"),
    "TfIdfVectorizer": "its attributes are tables of n-grams",
    "Scatter": "is ScatterElements under its old name",
}
