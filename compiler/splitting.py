"""Which sums are worth cutting: decided wave by wave, on the predicted time of the wave with its
sums in parts and of the short sums behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ramforge.compiler import registry
from ramforge.compiler.cost import CostModel
from ramforge.compiler.device import vdevices
from ramforge.compiler.expressions.placed import place
from ramforge.compiler.ir import Node
from ramforge.compiler.lower import Lowered, Offer
from ramforge.compiler.passes.split_reductions import cut
from ramforge.compiler.rprogram import Candidate
from ramforge.compiler.schedule.arrangement import levels
from ramforge.compiler.schedule.selection import Selector

PARTS = (2, 4, 8, 16)
# A cut that saves less than this part of a wave is not worth its memory.
LEAST_GAIN = 0.05

Candidates = tuple[Candidate, ...]


def choose_splits(lowered: Lowered, cost: CostModel, offer: Offer) -> dict[str, int]:
    """Into how many parts the sum of each node should be cut, for those that should."""
    return {} if lowered.target.is_host else _Chooser(lowered, cost, offer).choose()


class _Chooser:
    def __init__(self, lowered: Lowered, cost: CostModel, offer: Offer) -> None:
        self._lowered = lowered
        self._target = lowered.target
        self._offer = offer
        self._devices = vdevices(lowered.target)
        self._selector = Selector(self._devices, cost)
        self._cut: dict[tuple[int, int], tuple[Candidates, Candidates] | None] = {}
        self._known: dict[tuple[int, ...], dict[int, int]] = {}

    def choose(self) -> dict[str, int]:
        nodes, candidates = self._lowered.nodes, self._lowered.candidates
        found = {}
        for wave in levels([n.inputs for n in nodes], [n.outputs for n in nodes]):
            kinds = tuple(self._selector.kind(candidates[number]) for number in wave)
            if kinds not in self._known:
                members = dict(zip(kinds, (nodes[number] for number in wave), strict=True))
                choices = [candidates[number] for number in wave]
                self._known[kinds] = self._wave(kinds, choices, members)
            for number, kind in zip(wave, kinds, strict=True):
                parts = self._known[kinds].get(kind)
                if parts and cut(nodes[number], self._lowered.graph, parts):
                    found[nodes[number].name] = parts
        return found

    def _wave(
        self, kinds: Sequence[int], choices: Sequence[Candidates], members: Mapping[int, Node]
    ) -> dict[int, int]:
        """The parts for each kind of rOperator of a wave, one kind after the other."""
        best = self._time(choices)
        found: dict[int, int] = {}
        for kind in members:
            for parts in PARTS:
                trial = {**found, kind: parts}
                time = self._cut_time(kinds, choices, members, trial)
                if time < (1 - LEAST_GAIN) * best:
                    best, found = time, trial
        return found

    def _cut_time(
        self,
        kinds: Sequence[int],
        choices: Sequence[Candidates],
        members: Mapping[int, Node],
        trial: Mapping[int, int],
    ) -> float:
        """The time of a wave with the sums of some kinds in parts, and of the sums behind it."""
        first, second = [], []
        for kind, choice in zip(kinds, choices, strict=True):
            if kind not in trial:
                first.append(choice)
                continue
            split = self._candidates(kind, members[kind], trial[kind])
            if split is None:
                return float("inf")
            first.append(split[0])
            second.append(split[1])
        return self._time(first) + self._time(second)

    def _time(self, choices: Sequence[Candidates]) -> float:
        waves = (self._selector.wave(choices, number) for number in range(len(self._devices)))
        return min((wave.time_ns for wave in waves if wave), default=float("inf"))

    def _candidates(
        self, kind: int, node: Node, parts: int
    ) -> tuple[Candidates, Candidates] | None:
        """What the families offer for the parts, and for the sum over them."""
        key = (kind, parts)
        if key not in self._cut:
            graph = self._lowered.graph
            split = cut(node, graph, parts)
            if split is None:
                self._cut[key] = None
            else:
                tensors = {**graph.tensors, split.tensor.name: split.tensor}
                graph = replace(graph, tensors=tensors)
                first, second = (
                    self._offer(registry.candidates_of(place(part, graph), self._target))
                    for part in (split.parts, split.whole)
                )
                self._cut[key] = first, second
        return self._cut[key]
