"""Parts of a model that run on their own: some of its nodes, fed with the values that a reference
has at their border, so that no error of an earlier node comes in.

Constants stay constants, also those that only folding shows (the shape operand of a Reshape), and
everything keeps its ONNX name. Parts can stand side by side in one model, which is built once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ramforge.compiler.frontend import import_model
from ramforge.compiler.frontend.load import load
from ramforge.compiler.frontend.slim import SlimModel
from ramforge.compiler.frontend.subgraphs import defined_names, rename, subgraphs
from ramforge.compiler.ir import Array
from ramforge.runtime.verify.recipe import Model, Recipe


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some nodes; what they read from outside, and what of theirs is read outside."""

    nodes: tuple[onnx.NodeProto, ...]
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def border(self) -> tuple[str, ...]:
        return (*self.inputs, *self.outputs)


class Whole:
    """A model as nodes in order, those that its program computes, and every constant they read."""

    def __init__(self, model: Model, recipe: Recipe) -> None:
        graph = import_model(model, shapes=recipe.shapes, dims=recipe.dims, values=recipe.values)
        self._slim: SlimModel = load(model)
        self.constants: dict[str, Array] = {
            **graph.constants, **self._slim.constants, **recipe.values
        }  # fmt: skip
        self._sizes = {tensor.name: tensor.nbytes for tensor in graph.tensors.values()}
        self._outputs = {value.name for value in self._slim.proto.graph.output}
        self.nodes = tuple(self._living())
        self._readers: dict[str, set[str]] = {}
        for node in self.nodes:
            for name in _reads(node):
                self._readers.setdefault(name, set()).add(node.name)

    def _living(self) -> list[onnx.NodeProto]:
        """The nodes that an output needs; what is known needs nobody."""
        needed = self._outputs - self.constants.keys()
        kept = []
        for node in reversed(self._slim.proto.graph.node):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(_reads(node) - self.constants.keys())
        return kept[::-1]

    @property
    def made(self) -> list[str]:
        """Everything that a node makes."""
        return [name for node in self.nodes for name in node.output if name]

    def is_computed(self, name: str) -> bool:
        """Whether the program computes this tensor: it is no constant and no copy of another."""
        return name in self._sizes and name not in self.constants

    def nbytes(self, names: Iterable[str]) -> int:
        """The memory that some tensors take."""
        return sum(
            self.constants[name].nbytes if name in self.constants else self._sizes.get(name, 0)
            for name in names
        )

    def part(self, nodes: Sequence[onnx.NodeProto]) -> Part:
        inside = {node.name for node in nodes}
        made = [name for node in nodes for name in node.output if name]
        read = dict.fromkeys(name for node in nodes for name in sorted(_reads(node)))
        outside = [name for name in read if name not in set(made)]
        return Part(
            tuple(nodes),
            tuple(name for name in outside if name not in self.constants),
            tuple(name for name in outside if name in self.constants),
            tuple(
                name
                for name in made
                if name in self._outputs or self._readers.get(name, set()) - inside
            ),
        )

    def model(self, parts: Sequence[Part], values: Mapping[str, Array]) -> onnx.ModelProto:
        """A model of parts side by side; the outputs in their order."""
        source = self._slim.proto
        proto = onnx.ModelProto(ir_version=source.ir_version)
        proto.opset_import.extend(source.opset_import)
        proto.functions.extend(source.functions)
        graph = proto.graph
        graph.name = "part"
        for number, part in enumerate(parts):
            _add(graph, part, f"part{number}/" if len(parts) > 1 else "")
        for name in _union(part.inputs for part in parts):
            kind = helper.np_dtype_to_tensor_dtype(values[name].dtype)
            graph.input.append(helper.make_tensor_value_info(name, kind, values[name].shape))
        for name in _union(part.constants for part in parts):
            array = np.ascontiguousarray(self.constants[name])
            graph.initializer.append(numpy_helper.from_array(array, name))
        return proto


def _add(graph: onnx.GraphProto, part: Part, prefix: str) -> None:
    names = {name: prefix + name for node in part.nodes for name in node.output if name}
    for node in part.nodes:
        copy = graph.node.add()
        copy.CopyFrom(node)
        copy.name = prefix + node.name
        rename(copy, names)
    graph.output.extend(helper.make_empty_tensor_value_info(names[n]) for n in part.outputs)


def _reads(node: onnx.NodeProto) -> set[str]:
    """What a node reads, its subgraphs from outside of them too."""
    names = {name for name in node.input if name}
    for graph in subgraphs(node):
        read = {value.name for value in graph.output}.union(*map(_reads, graph.node))
        names |= read - defined_names(graph) - {""}
    return names


def _union(groups: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def batches(
    whole: Whole, parts: Iterable[Part], most_bytes: int, most_parts: int
) -> Iterator[list[Part]]:
    """Neighbours together, as far as their tensors fit; a part that does not fit is alone."""
    batch: list[Part] = []
    held = 0
    for part in parts:
        size = whole.nbytes((*part.border, *part.constants))
        if batch and (held + size > most_bytes or len(batch) == most_parts):
            yield batch
            batch, held = [], 0
        batch.append(part)
        held += size
    if batch:
        yield batch
