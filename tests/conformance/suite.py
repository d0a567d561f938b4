"""The tests of ``onnx.backend.test`` as plain values: a model, inputs, expected outputs."""

from __future__ import annotations

import importlib
import os
import pkgutil
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case import node as cases
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

# The "real" models of the suite have constant weights and are fetched: they prove nothing.
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True)
class SuiteTest:
    """One test. The data of tests that lie in files is read when it is asked for."""

    kind: str
    name: str
    source: Any

    def model(self) -> onnx.ModelProto:
        if self.source.model is not None:
            model: onnx.ModelProto = self.source.model
            return model
        return onnx.load(os.path.join(self.source.model_dir, "model.onnx"))

    def data_sets(self, model: onnx.ModelProto) -> Iterator[tuple[list[Any], list[Any]]]:
        if self.source.data_sets is not None:
            for inputs, outputs in self.source.data_sets:
                yield [_plain(item) for item in inputs], [_plain(item) for item in outputs]
            return
        for folder in sorted(Path(self.source.model_dir).glob("test_data_set*")):
            yield (
                _from_files(folder, "input", model.graph.input),
                _from_files(folder, "output", model.graph.output),
            )

    def compare(self, expected: list[Any], found: list[Any]) -> None:
        """AssertionError where they differ, by the suite's own comparison and tolerances."""
        Runner.assert_similar_outputs(
            expected, found, rtol=self.source.rtol, atol=self.source.atol, model_dir=self.name
        )


def tests(without: Collection[str] = ()) -> list[SuiteTest]:
    """All of them, in an order that does not depend on the machine.

    ``without`` names files of onnx.backend.test.case.node that are left out: each makes what it
    expects when it is imported, and that may take long.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for module in pkgutil.walk_packages(cases.__path__, f"{cases.__name__}."):
            if module.name.rpartition(".")[2] not in without:
                importlib.import_module(module.name)
        sources = {"node": list(cases._NodeTestCases)}
        sources |= {kind: load_model_tests(kind=kind) for kind in KINDS if kind != "node"}
    return [
        SuiteTest(kind, source.name, source)
        for kind in KINDS
        for source in sorted(sources[kind], key=lambda source: source.name)
    ]


def operators(model: onnx.ModelProto) -> tuple[str, ...]:
    """The operators of a model, those of its subgraphs too; foreign domains with their name."""
    return tuple(sorted(set(_operators(model.graph))))


def _operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _operators(attribute.g)


def foreign_kinds(model: onnx.ModelProto) -> tuple[str, ...]:
    """What the inputs and outputs are that are no tensors of numbers."""
    found = set()
    for value in (*model.graph.input, *model.graph.output):
        kind = (value.type.WhichOneof("value") or "").removesuffix("_type")
        if kind == "tensor":
            is_text = value.type.tensor_type.elem_type == onnx.TensorProto.STRING
            found.update(["string"] if is_text else [])
        else:
            found.add(kind)
    return tuple(sorted(found))


def _plain(item: Any) -> Any:
    return numpy_helper.to_array(item) if isinstance(item, onnx.TensorProto) else item


def _from_files(folder: Path, stem: str, values: Any) -> list[Any]:
    found: list[Any] = []
    for number in range(len(list(folder.glob(f"{stem}_*.pb")))):
        path = str(folder / f"{stem}_{number}.pb")
        Runner._load_proto(None, path, found, values[number].type)  # type: ignore[arg-type]
    return found
