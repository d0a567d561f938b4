"""Einsum: sums of products of any number of operands, two at a time as matrix products."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Place, Steps, Value
from ramforge.compiler.expressions.terms import Expr
from ramforge.compiler.ir import DType, Graph, Node
from ramforge.compiler.registry import Operator, register

Labels = tuple[str, ...]
ELLIPSIS = "..."


class Malformed(ValueError):
    """An equation that does not say what to do."""


@dataclass(frozen=True, slots=True)
class Equation:
    """The label of each axis of the operands and of the output."""

    operands: tuple[Labels, ...]
    output: Labels


def parse(text: str, ranks: Sequence[int]) -> Equation:
    """The axes of an ellipsis become labels of their own, counted from the right."""
    left, arrow, right = text.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        raise Malformed(f"it has {len(parts)} terms for {len(ranks)} operands")
    operands = tuple(_labels(part, rank) for part, rank in zip(parts, ranks, strict=True))
    found = list(itertools.chain.from_iterable(operands))
    spread = sorted({label for label in found if label.startswith(ELLIPSIS)}, reverse=True)
    if arrow:
        output = _letters(right, spread)
        if spread and ELLIPSIS not in right:
            raise Malformed("the ellipsis is missing on the right")
        if len(set(output)) != len(output) or not set(output) <= set(found):
            raise Malformed(f"the output {right!r} repeats a letter, or has one of its own")
    else:
        letters = sorted(set(found) - set(spread))
        output = (*spread, *(letter for letter in letters if found.count(letter) == 1))
    return Equation(operands, output)


def _labels(part: str, rank: int) -> Labels:
    missing = rank - len(part.replace(ELLIPSIS, ""))
    if missing < 0 or (missing > 0 and ELLIPSIS not in part):
        raise Malformed(f"the term {part!r} stands for an operand of rank {rank}")
    return _letters(part, [f"{ELLIPSIS}{number:03}" for number in reversed(range(missing))])


def _letters(part: str, spread: Sequence[str]) -> Labels:
    before, dots, after = part.partition(ELLIPSIS)
    letters = (*before, *(spread if dots else ()), *after)
    if any(not label.startswith(ELLIPSIS) and not label.isalpha() for label in letters):
        raise Malformed(f"{part!r} is more than letters and one ellipsis")
    return letters


@dataclass(frozen=True, slots=True)
class Term:
    """A tensor and its labels. An axis of length one is broadcast: its label does not count."""

    value: Value
    labels: Labels

    @property
    def counted(self) -> Labels:
        sizes = zip(self.labels, self.value.shape, strict=True)
        return tuple(dict.fromkeys(label for label, size in sizes if size != 1))

    def at(self, places: Mapping[str, Index], dtype: DType) -> Expr:
        position: list[Place] = [
            0 if size == 1 else places[label]
            for label, size in zip(self.labels, self.value.shape, strict=True)
        ]
        return self.value.at(position).cast(dtype)


class _Sum:
    """An equation, worked off step by step."""

    def __init__(self, steps: Steps, equation: Equation) -> None:
        self.steps = steps
        self.output = equation.output
        given = [steps.given(slot) for slot in range(len(equation.operands))]
        self.terms = [Term(*pair) for pair in zip(given, equation.operands, strict=True)]
        self.sizes: dict[str, int] = {}
        for term in self.terms:
            for label, size in zip(term.labels, term.value.shape, strict=True):
                if self.sizes.get(label, 1) == 1:
                    self.sizes[label] = size
        is_one_step = len(self.terms) == 1 or (
            len(self.terms) == 2 and not any(self._private(term) for term in self.terms)
        )
        stored = given[0].dtype
        self.dtype = stored if is_one_step else stored.wide  # between steps nothing is rounded

    def run(self) -> None:
        if len(self.terms) > 1:
            self.terms = [self._without_private(term) for term in self.terms]
        while len(self.terms) > 1:
            pairs = itertools.combinations(range(len(self.terms)), 2)
            first, second = min(pairs, key=lambda pair: (self._size_of_joined(*pair), pair))
            a, b = self.terms[first], self.terms[second]
            rest = [t for n, t in enumerate(self.terms) if n not in (first, second)]
            self.terms = [*rest, self._joined(a, b, rest)]
        if self.terms[0].value.slot < len(self.steps.node.inputs):
            self._single(self.terms[0], self.output, is_last=True)

    def _private(self, term: Term) -> Labels:
        """What only this term has, so that it can be summed up before anything else."""
        others = {label for other in self.terms if other is not term for label in other.counted}
        return tuple(
            label for label in term.counted if label not in others and label not in self.output
        )

    def _without_private(self, term: Term) -> Term:
        private = self._private(term)
        if not private:
            return term
        return self._single(term, tuple(label for label in term.counted if label not in private))

    def _single(self, term: Term, labels: Labels, is_last: bool = False) -> Term:
        """One term with only these labels; the others are summed over."""
        folded = tuple(label for label in term.counted if label not in labels)
        names, to = (*labels, *folded), 0 if is_last else None

        def element(*at: Index) -> Expr:
            return term.at(dict(zip(names, at, strict=True)), self.dtype)

        shape = [self.sizes[label] for label in labels]
        if not folded:
            return Term(self.steps.map(shape, element, to=to), labels)
        over = [self.sizes[label] for label in folded]
        return Term(self.steps.fold(comp.SUM, shape, over, element, to=to), labels)

    def _kept(self, a: Term, b: Term, rest: Sequence[Term]) -> Labels:
        wanted = {*self.output, *(label for term in rest for label in term.counted)}
        both = dict.fromkeys((*a.counted, *b.counted))
        return tuple(label for label in both if label in wanted)

    def _size_of_joined(self, first: int, second: int) -> int:
        rest = [term for n, term in enumerate(self.terms) if n not in (first, second)]
        kept = self._kept(self.terms[first], self.terms[second], rest)
        return math.prod(self.sizes[label] for label in kept)

    def _joined(self, a: Term, b: Term, rest: Sequence[Term]) -> Term:
        """Two terms multiplied, and summed over what nothing else needs."""
        if a.value.known is not None and b.value.known is None:
            a, b = b, a  # a constant is read fastest as the right factor
        kept = self._kept(a, b, rest)
        folded = tuple(label for label in a.counted if label not in kept)
        labels, to = (kept, None) if rest else (self.output, 0)
        names = (*labels, *folded)
        shape = [self.sizes[label] for label in labels]
        over = [self.sizes[label] for label in folded]

        def left(*at: Index) -> Expr:
            return a.at(dict(zip(names, at, strict=True)), self.dtype)

        def right(*at: Index) -> Expr:
            return b.at(dict(zip(names, at, strict=True)), self.dtype)

        def both(*at: Index) -> Expr:
            return left(*at) * right(*at)

        if not folded:
            return Term(self.steps.map(shape, both, to=to), labels)
        rows = [n for n, label in enumerate(labels) if label not in b.counted]
        columns = [n for n, label in enumerate(labels) if label not in a.counted and n not in rows]
        are_loads = a.value.dtype is self.dtype and b.value.dtype is self.dtype
        if not rows or not columns or not are_loads:
            return Term(self.steps.fold(comp.SUM, shape, over, both, to=to), labels)
        value = self.steps.contract(shape, over, rows, columns, left, right, to=to)
        return Term(value, labels)


def _equation(node: Node, graph: Graph) -> Equation:
    return parse(node.attr("equation"), [len(graph.tensor(name).shape) for name in node.inputs])


def _einsum(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    _Sum(steps, _equation(node, graph)).run()
    return steps.nodes()


def _refuse(node: Node, graph: Graph) -> tuple[str, str] | None:
    fix = "see numpy.einsum for what an equation may be"
    try:
        equation = _equation(node, graph)
    except Malformed as error:
        return f"the equation {node.attr('equation')!r} cannot be used: {error}", fix
    sizes: dict[str, set[int]] = {}
    for name, labels in zip(node.inputs, equation.operands, strict=True):
        for label, size in zip(labels, graph.tensor(name).shape, strict=True):
            sizes.setdefault(label, {1}).add(size)
    if any(len(found) > 2 for found in sizes.values()):
        return f"the equation {node.attr('equation')!r} gives a letter two lengths", fix
    inferred = graph.tensor(node.outputs[0]).shape
    made = tuple(max(sizes[label], key=_stretched) for label in equation.output)
    if made != inferred:
        reason = f"its operands make {list(made)}, and onnx infers {list(inferred)}"
        return reason, "expand the operands before it, so that equal letters are equally long"
    return None


def _stretched(size: int) -> bool:
    """Of the lengths of one letter the one that is not 1 counts."""
    return size != 1


register(Operator("Einsum", _einsum, _refuse))
