"""Runs a model and its mutants in ONNX Runtime and compares their outputs.

The weights lie in a file beside the models, so that a mutant is small however large its model is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ramforge.codegen.artifact import Port
from ramforge.runtime import arrays, verify
from ramforge.runtime.verify.steps import steps
from tests.mutation.mutants import Model, mutants, spread

Array = NDArray[Any]

COUNT, SEED = 48, 7
OPEN_SIZE = 3  # of a dimension without a size
# Mistakes that change nothing for any input: a pattern of their titles, and why.
EQUIVALENT: Sequence[tuple[str, str]] = (
    (
        r"no bias: Add .*/attention/key/",
        "the same number added to every score of a row does not change its softmax",
    ),
    (
        r": ReduceMean /non_local/key/mean$",
        "the same number added to every score of a row does not change its softmax",
    ),
    (
        r" /(lstm|layer|encoder)\d+/0/(\w+/h|\w+/add|forget(/\w+)?|state)$",
        "the first step starts from a state of zeros, and nothing comes of it",
    ),
)
_LARGEST_INLINE = 1024


@dataclass(frozen=True)
class Found:
    """What became of a mutant: by how much it changed the outputs, as a share of the tolerance."""

    title: str
    kind: str
    change: float
    equivalent: str = ""

    @property
    def is_caught(self) -> bool:
        return self.change > 1


@dataclass(frozen=True)
class Study:
    """The mutants of one model; those that are equivalent to it do not count."""

    model: str
    nodes: int
    found: tuple[Found, ...]

    @property
    def counted(self) -> list[Found]:
        return [found for found in self.found if not found.equivalent]

    @property
    def missed(self) -> list[Found]:
        return [found for found in self.counted if not found.is_caught]

    @property
    def share(self) -> float:
        return 1 - len(self.missed) / max(len(self.counted), 1)

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "nodes": self.nodes,
            "mutants": len(self.counted),
            "caught": len(self.counted) - len(self.missed),
            "kinds": dict(sorted(Counter(found.kind for found in self.counted).items())),
            "missed": [found.title for found in self.missed],
            "equivalent": [
                {"title": found.title, "why": found.equivalent}
                for found in self.found
                if found.equivalent
            ],
        }


def study(name: str, proto: onnx.ModelProto, count: int = COUNT, seed: int = SEED) -> Study:
    with TemporaryDirectory(prefix="ramforge-mutation-") as folder:
        model = _beside_its_weights(proto, Path(folder))
        ports = [_port(value) for value in model.proto.graph.input]
        inputs = arrays.made_up(ports, seed)
        expected = _run(model.proto, inputs, Path(folder))
        assert expected is not None
        found = list(_results(model, inputs, expected, Path(folder), count, seed))
    return Study(name, len(model.proto.graph.node), tuple(found))


def _results(
    model: Model,
    inputs: Mapping[str, Array],
    expected: Sequence[Array],
    folder: Path,
    count: int,
    seed: int,
) -> Iterator[Found]:
    """Those that make an invalid model are replaced by others."""
    pool = mutants(model, seed)
    tried: set[int] = set()
    wanted = count
    while wanted > 0:
        rest = [mutant for mutant in pool if id(mutant) not in tried]
        chosen = spread(rest, wanted, seed)
        if not chosen:
            return
        for mutant in chosen:
            tried.add(id(mutant))
            outputs = _run(mutant.applied(model.proto), inputs, folder)
            if outputs is None:
                continue
            found = Found(mutant.title, mutant.kind, _change(model.proto, outputs, expected))
            if not found.is_caught:
                found = replace(found, equivalent=_reason(mutant.title))
            wanted -= not found.equivalent
            yield found


def _reason(title: str) -> str:
    return next((why for pattern, why in EQUIVALENT if re.search(pattern, title)), "")


def _change(proto: onnx.ModelProto, outputs: Sequence[Array], expected: Sequence[Array]) -> float:
    """The largest difference of an output in tolerances; what is not a number is a difference."""
    changes = [0.0]
    names = [value.name for value in proto.graph.output]
    for found in verify.differences(names, outputs, expected, steps(proto)):
        share = found.share if np.isfinite(found.share) else 1e30
        changes.append(share / found.tolerance if found.tolerance else share * 1e30)
    return max(changes)


def _beside_its_weights(proto: onnx.ModelProto, folder: Path) -> Model:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    path = folder / "model.onnx"
    onnx.save_model(
        proto,
        str(path),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=_LARGEST_INLINE,
    )
    return Model(onnx.load_model(str(path), load_external_data=False), constants)


def _run(proto: onnx.ModelProto, inputs: Mapping[str, Array], folder: Path) -> list[Array] | None:
    """The outputs, None if the model is not valid."""
    path = folder / "mutant.onnx"
    path.write_bytes(proto.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        return [np.asarray(output) for output in session.run(None, dict(inputs))]
    except Exception:  # ONNX Runtime's own errors have no common base
        return None


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.tensor_type
    sizes = [dim.dim_value or OPEN_SIZE for dim in kind.shape.dim]
    return Port(value.name, helper.tensor_dtype_to_np_dtype(kind.elem_type).name, tuple(sizes))
