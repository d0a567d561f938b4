"""TfIdfVectorizer: how often each n-gram of a pool occurs in each row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import terms
from ramforge.compiler.expressions.index import Index
from ramforge.compiler.expressions.steps import Steps, Value
from ramforge.compiler.expressions.terms import Expr, conjunction, const, select
from ramforge.compiler.ir import Array, DType, Graph, Node
from ramforge.compiler.registry import Operator, register


def _pools(node: Node) -> Iterator[tuple[int, Array, list[int]]]:
    """Each length of n-gram, the n-grams of it, one a row, and the column each is counted in."""
    pool = np.asarray(node.attr("pool_int64s", ()), np.int64)
    columns = list(node.attr("ngram_indexes"))
    starts = [*node.attr("ngram_counts"), len(pool)]
    number = 0
    for length, (start, stop) in enumerate(pairwise(starts), start=1):
        grams = pool[start:stop].reshape(-1, length)
        mine = columns[number : number + len(grams)]
        number += len(grams)
        if len(grams) and node.attr("min_gram_length") <= length <= node.attr("max_gram_length"):
            yield length, grams, mine


def _vectorizer(node: Node, graph: Graph) -> tuple[Node, ...]:
    steps = Steps(node, graph)
    columns = steps.shape()[-1]
    counted = []
    for length, grams, mine in _pools(node):
        counts = _counts(steps, length, grams)
        counted += [(counts, steps.constant(table)) for table in _tables(mine, columns)]
    weights = node.attr("weights")
    weight = steps.constant(np.asarray(weights, np.float32)) if weights else None

    def result(*at: Index) -> Expr:
        *row, column = at
        total: Expr = const(0, DType.INT32)
        for counts, table in counted:
            gram = table[column]
            total = total + select(gram < 0, const(0, DType.INT32), counts[(*row, gram)])
        number = total.cast(DType.FLOAT32)
        scale = const(1, DType.FLOAT32) if weight is None else weight[column]
        if node.attr("mode") == "IDF":
            return select(total > 0, scale, const(0, DType.FLOAT32))
        return number if node.attr("mode") == "TF" else number * scale

    steps.map(steps.shape(), result, to=0)
    return steps.nodes()


def _tables(mine: list[int], columns: int) -> Iterator[Array]:
    """The n-gram that goes into each column, -1 for none; more tables where several go into one."""
    left = list(enumerate(mine))
    while left:
        table = np.full(columns, -1, np.int32)
        rest = []
        for gram, column in left:
            if table[column] < 0:
                table[column] = gram
            else:
                rest.append((gram, column))
        left = rest
        yield table


def _counts(steps: Steps, length: int, grams: Array) -> Value:
    x = steps.given(0)
    pool = steps.constant(grams)
    size = x.shape[-1]
    # neighbours, then every second one, ...: the same thing if there is only one
    skips = steps.node.attr("max_skip_count") + 1 if length > 1 else 1

    def matches(*at: Index) -> Expr:
        *row, gram, skip, start = at
        places = [start + skip * number + number for number in range(length)]
        checks = [terms.inside(places[-1], 0, size)]
        for number, place in enumerate(places):
            found = x.at((*row, place), fill=0).cast(DType.INT64)
            checks.append(found.equals(pool[gram, number]))
        return select(conjunction(checks), const(1, DType.INT32), const(0, DType.INT32))

    shape = (*x.shape[:-1], len(grams))
    return steps.fold(comp.SUM, shape, (skips, size), matches)


def _refuse(node: Node, graph: Graph) -> tuple[str, str] | None:
    if node.attr("pool_strings"):
        return "strings are not supported", "number the words, and give the pool as pool_int64s"
    indexes = list(node.attr("ngram_indexes"))
    if node.attr("weights") and indexes != list(range(len(indexes))):
        return (
            "weights belong to n-grams in the standard and to columns in ONNX Runtime, and here "
            "these differ",
            "put the n-grams into the order of ngram_indexes",
        )
    return None


register(Operator("TfIdfVectorizer", _vectorizer, _refuse))
