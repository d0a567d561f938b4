"""Every tensor that a program computes beside that of a reference, in the order of the model.

The model is compiled again with these tensors as outputs, in groups of limited size. A program that
keeps its tensors is another one than the artefact: what is fused there is not fused here, and what
an early tensor is wrong by goes on into later ones. ``bisect`` has neither doubt.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ramforge.runtime.verify.parts import Part, Whole, batches
from ramforge.runtime.verify.recipe import Recipe
from ramforge.runtime.verify.reference import Reference, Source
from ramforge.runtime.verify.tolerance import Difference, Tolerances, difference

MOST_BYTES = 256 << 20
MOST_TENSORS = 512


@dataclass(frozen=True, slots=True)
class Layer:
    """A tensor of the model, and the node that makes it."""

    node: str
    operator: str
    shape: tuple[int, ...]
    difference: Difference


def layers(
    source: Source,
    whole: Whole,
    reference: Reference,
    recipe: Recipe,
    tolerances: Tolerances,
    most_bytes: int = MOST_BYTES,
) -> Iterator[Layer]:
    """All tensors, as they are compared; no more than ``most_bytes`` of them are held at once."""
    singles = (_computed(whole, whole.part([node])) for node in whole.nodes)
    kept = (part for part in singles if part.outputs)
    for batch in batches(whole, kept, most_bytes, MOST_TENSORS):
        makers = {name: part.nodes[0] for part in batch for name in part.outputs}
        expected = reference.values(list(makers))  # and these are now the source's outputs
        with tempfile.TemporaryDirectory() as folder:
            found = recipe.run(source.file(Path(folder)), reference.fed, whole=True)
        for (name, node), got in zip(makers.items(), found, strict=True):
            right = np.asarray(expected[name])
            item = difference(name, got, right, tolerances)
            yield Layer(node.name, node.op_type, right.shape, item)


def _computed(whole: Whole, part: Part) -> Part:
    """Of what a node makes only what the program computes; of what it reads nothing."""
    return Part(part.nodes, (), (), tuple(filter(whole.is_computed, part.outputs)))
