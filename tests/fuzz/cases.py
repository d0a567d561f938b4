"""Where decisions come from, and the models that are made of them."""

from __future__ import annotations

import random
from collections.abc import Callable

import onnx
from hypothesis import strategies

from tests.fuzz.damage import damaged
from tests.fuzz.maker import Maker, Program, program
from tests.fuzz.running import grow

OPSETS = (17, 21, 22, 24, 26)


class Seeded:
    """The same decisions for the same seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


class Drawn:
    """Decisions of hypothesis, which looks for the smallest that fail."""

    def __init__(self, draw: Callable[[strategies.SearchStrategy[int]], int]) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(strategies.integers(low, high))


@strategies.composite
def makers(draw: strategies.DrawFn) -> Maker:
    choices = Drawn(draw)
    opset = OPSETS[choices.integer(0, len(OPSETS) - 1)]
    return grow(choices, opset, choices.integer(1, 12))


def several(seed: str, opset: int, graphs: int, steps: int) -> list[Maker]:
    """Graphs to be joined into one program."""
    grown = [
        grow(Seeded(f"{seed} {number}"), opset, steps, f"g{number}_") for number in range(graphs)
    ]
    return [maker for maker in grown if maker.nodes]


def damaged_models(
    seed: str, opset: int, models: int, each: int
) -> list[tuple[onnx.ModelProto, str]]:
    """Small valid models, and what was done to each."""
    found = []
    for number in range(models):
        maker = grow(Seeded(f"{seed} {number}"), opset, 3)
        made: Program = program([maker])
        found += [damaged(maker, made.model) for _ in range(each)]
    return found
