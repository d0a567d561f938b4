"""Finds how often a Loop runs.

Input: a Loop and what is known around it, output: a number of iterations, or why there is none. A
condition that a body computes from known values is followed from one iteration to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ramforge.compiler.frontend.slim import SlimModel, dtype_of
from ramforge.compiler.frontend.subgraphs import defined_names, read_names, subgraphs
from ramforge.compiler.ir import Array


@dataclass(frozen=True, slots=True)
class Trips:
    """``count`` iterations; if ``is_open``, that many at most, and the run knows when to stop."""

    count: int = 0
    is_open: bool = False
    reason: str = ""


def count_trips(node: onnx.NodeProto, slim: SlimModel, most: int) -> Trips:
    limit_name, start_name = (*map(str, node.input), "", "")[:2]
    if limit_name and limit_name not in slim.constants:
        return Trips(reason="its trip count is computed at run time")
    limit = int(slim.constants[limit_name].item()) if limit_name else None
    if limit is not None and limit <= 0:
        return Trips()
    body = next(item.g for item in node.attribute if item.name == "body")
    start = slim.constants.get(start_name) if start_name else np.array(True)
    if start is not None and not np.any(start):
        return Trips()
    if not start_name:
        # without the input, what the body says of going on is ignored
        return Trips(limit) if limit is not None else Trips(reason="it never ends")
    if start is not None:
        slice_ = _Slice(body, node, slim)
        trips = slice_.follow(limit, most)
        if trips is not None:
            return trips
    if limit is None:
        return Trips(reason="its condition is computed at run time, and it has no trip count")
    if len(body.output) - 1 > max(len(node.input) - 2, 0):
        return Trips(
            reason="its condition is computed at run time, so that the size of its scan outputs is "
            "not known"
        )
    return Trips(limit, is_open=True)


class _Slice:
    """The part of a body that decides whether there is another iteration."""

    def __init__(self, body: onnx.GraphProto, node: onnx.NodeProto, slim: SlimModel) -> None:
        self._slim = slim
        self.number, self.condition, *carried = (value.name for value in body.input)
        self.condition_out, *outputs = (value.name for value in body.output)
        starts = dict(zip(carried, node.input[2:], strict=False))
        after = dict(zip(carried, outputs, strict=False))
        self.carried: list[str] = []
        needed = {self.condition_out}
        self.nodes: list[onnx.NodeProto] = []
        while True:
            self.nodes, read = _backward(body.node, needed)
            found = [name for name in carried if name in read]
            if found == self.carried:
                break
            self.carried = found
            needed |= {after[name] for name in found}
        self.after = [after[name] for name in self.carried]
        self.starts = [starts.get(name, "") for name in self.carried]
        self.constants = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in body.initializer
            if tensor.name in read and dtype_of(tensor.data_type)
        }
        inner = defined_names(body)
        self.constants.update(
            {n: slim.constants[n] for n in read if n in slim.constants and n not in inner}
        )
        self.made = {name for part in self.nodes for name in part.output}
        self._evaluator: Any = None
        self.is_steady = self.number not in read and not self.carried

    def follow(self, limit: int | None, most: int) -> Trips | None:
        """The number of iterations, None if it takes values that are not known."""
        constants = self._slim.constants
        if any(name not in constants for name in self.starts):
            return None
        state = [constants[name] for name in self.starts]
        trip = 0
        while limit is None or trip < limit:
            outcome = self._iterate(trip, state)
            if outcome is None:
                return None
            goes_on, state = outcome
            trip += 1
            if not goes_on:
                return Trips(trip)
            if self.is_steady:
                return Trips(limit) if limit is not None else Trips(reason="it never ends")
            if trip > most:
                return Trips(reason=f"it runs more than {most} iterations, too many to unroll")
        return Trips(trip)

    def _iterate(self, trip: int, state: Sequence[Array]) -> tuple[bool, list[Array]] | None:
        known: dict[str, Array] = {
            **self.constants,
            self.number: np.array(trip, np.int64),
            self.condition: np.array(True),
            **dict(zip(self.carried, state, strict=True)),
        }
        try:
            with np.errstate(all="ignore"):
                known.update(self._run(known))
        except Exception:  # something is not known; or onnx.reference lacks an operator
            return None
        wanted = (self.condition_out, *self.after)
        if any(name not in known for name in wanted):
            return None
        return bool(np.any(known[self.condition_out])), [known[name] for name in self.after]

    def _run(self, known: Mapping[str, Array]) -> Mapping[str, Array]:
        outputs = [name for name in (self.condition_out, *self.after) if name in self.made]
        if not outputs:
            return {}
        if self._evaluator is None:
            from onnx.reference import ReferenceEvaluator  # most models have no such loop

            inputs = [onnx.ValueInfoProto(name=name) for name in known]
            values = [onnx.ValueInfoProto(name=name) for name in outputs]
            graph = helper.make_graph(self.nodes, "slice", inputs, values)
            opsets = self._slim.proto.opset_import
            self._evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets))
        results = self._evaluator.run(None, dict(known))
        return dict(zip(outputs, map(np.asarray, results), strict=True))


def _backward(
    nodes: Sequence[onnx.NodeProto], wanted: set[str]
) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that these tensors need, and all that they read."""
    read = set(wanted)
    kept = []
    for node in reversed(nodes):
        if any(name in read for name in node.output if name):
            kept.append(node)
            read.update(filter(None, node.input))
            for graph in subgraphs(node):
                read |= read_names(graph)
    kept.reverse()
    return kept, read
