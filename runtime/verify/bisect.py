"""Finds the first node that goes wrong, or the smallest group of nodes that does together.

Nodes run on the values that the reference has at their inputs, so an error does not add to another
one, and what is found is wrong by itself:

1. Every node alone, many side by side in one program.
2. If each is right: the nodes of each rOperator of the artefact, which fusion put together.
3. If these are right too: a run of nodes, by halving from the front and then from the back.

A group is then made smaller for as long as something of it stays wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ramforge.codegen.artifact import Artifact
from ramforge.compiler.errors import CompileError
from ramforge.compiler.ir import Array
from ramforge.runtime.progress import Report
from ramforge.runtime.verify.parts import Part, Whole, batches
from ramforge.runtime.verify.recipe import Recipe
from ramforge.runtime.verify.reference import Reference
from ramforge.runtime.verify.tolerance import Difference, Tolerances, differences

MOST_BYTES = 256 << 20
MOST_PARTS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """A part that ran, or the reason why it could not."""

    part: Part
    differences: tuple[Difference, ...]
    refused: str = ""

    @property
    def is_wrong(self) -> bool:
        return not all(item.ok for item in self.differences)


@dataclass(frozen=True, slots=True, eq=False)
class Culprit:
    """The smallest part that is wrong; ``model`` is that part with its weights inside."""

    nodes: tuple[onnx.NodeProto, ...]
    differences: tuple[Difference, ...]
    model: onnx.ModelProto
    inputs: dict[str, Array]


class Bisection:
    """Looks for the culprit; ``refused`` are the nodes that cannot run alone, with the reason."""

    def __init__(
        self,
        whole: Whole,
        reference: Reference,
        recipe: Recipe,
        tolerances: Tolerances,
        report: Report,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._whole = whole
        self._reference = reference
        self._recipe = recipe
        self._tolerances = tolerances
        self._report = report
        self._most_bytes = most_bytes
        self.refused: dict[str, str] = {}

    def find(self, artifact: Artifact) -> Culprit | None:
        """None if all parts, and the model compiled again, are right."""
        whole = self._whole
        self._report(f"{len(whole.nodes)} nodes, each alone")
        wrong = self._first_wrong(whole.part([node]) for node in whole.nodes)
        if wrong is None:
            fused = _fused(artifact, whole)
            self._report(f"every node is right by itself; {len(fused)} groups of fused nodes")
            wrong = self._first_wrong(map(whole.part, fused)) or self._halved()
            wrong = wrong and self._smallest(wrong)
        if wrong is None:
            return None
        values = self._reference.values(wrong.part.inputs)
        model = whole.model([wrong.part], values)
        return Culprit(wrong.part.nodes, wrong.differences, model, values)

    def _first_wrong(self, parts: Iterable[Part]) -> Tried | None:
        for batch in batches(self._whole, parts, self._most_bytes, MOST_PARTS):
            for tried in self._try(batch):
                if tried.is_wrong:
                    return tried
                if tried.refused and len(tried.part.nodes) == 1:
                    self.refused[tried.part.nodes[0].name] = tried.refused
        return None

    def _try(self, parts: Sequence[Part]) -> Iterator[Tried]:
        """Run parts side by side; what the compiler refuses is looked for by halving."""
        names = list(dict.fromkeys(name for part in parts for name in part.border))
        values = self._reference.values(names)
        dense = [part for part in parts if all(_is_dense(values[name]) for name in part.border)]
        yield from (Tried(p, (), "it has a sequence") for p in parts if p not in dense)
        yield from self._run(dense, values)

    def _run(self, parts: Sequence[Part], values: dict[str, Array]) -> Iterator[Tried]:
        if not parts:
            return
        feeds = {name: values[name] for part in parts for name in part.inputs}
        try:
            found = self._recipe.run(self._whole.model(parts, values), feeds, whole=False)
        except CompileError as error:
            if len(parts) == 1:
                yield Tried(parts[0], (), str(error))
                return
            for half in (parts[: len(parts) // 2], parts[len(parts) // 2 :]):
                yield from self._run(half, values)
            return
        results = iter(found)
        for part in parts:
            got = [next(results) for _ in part.outputs]
            expected = [np.asarray(values[name]) for name in part.outputs]
            yield Tried(part, differences(part.outputs, got, expected, self._tolerances))

    def _is_wrong(self, start: int, end: int) -> Tried | None:
        return self._first_wrong([self._whole.part(self._whole.nodes[start:end])])

    def _halved(self) -> Tried | None:
        """A run of nodes that is wrong, while it is right without its first or its last one."""
        nodes = self._whole.nodes
        self._report("every group is right by itself; runs of nodes, by halving")
        if self._is_wrong(0, len(nodes)) is None:
            return None
        start, _ = _border(0, len(nodes), lambda middle: bool(self._is_wrong(middle, len(nodes))))
        end, _ = _border(len(nodes), start, lambda middle: bool(self._is_wrong(start, middle)))
        return self._is_wrong(start, end)

    def _smallest(self, wrong: Tried) -> Tried:
        """Without nodes, one after the other, that it stays wrong without."""
        while len(wrong.part.nodes) > 2:
            nodes = wrong.part.nodes
            self._report(f"{len(nodes)} nodes are wrong together")
            smaller = self._first_wrong(
                self._whole.part([*nodes[:gone], *nodes[gone + 1 :]]) for gone in range(len(nodes))
            )
            if smaller is None:
                break
            wrong = smaller
        return wrong


def _border(wrong: int, right: int, is_wrong: Callable[[int], bool]) -> tuple[int, int]:
    """Neighbours between two places, of which still the first is wrong and the second right."""
    while abs(right - wrong) > 1:
        middle = (wrong + right) // 2
        wrong, right = (middle, right) if is_wrong(middle) else (wrong, middle)
    return wrong, right


def _fused(artifact: Artifact, whole: Whole) -> list[list[onnx.NodeProto]]:
    """The nodes of every rOperator that has several, in the order of the model."""
    places = {node.name: number for number, node in enumerate(whole.nodes)}
    groups: dict[tuple[int, ...], None] = {}
    for row in artifact.manifest.get("roperators", ()):
        group = tuple(sorted({places[name] for name in row["nodes"] if name in places}))
        if len(group) > 1:
            groups[group] = None
    return [[whole.nodes[place] for place in group] for group in sorted(groups)]


def _is_dense(value: object) -> bool:
    return isinstance(value, np.ndarray | np.generic)
