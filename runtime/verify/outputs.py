"""Whether an artefact computes what its model says: its own build, run once and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ramforge.codegen import artifact as artifacts
from ramforge.codegen.artifact import Artifact
from ramforge.compiler.errors import OptionError
from ramforge.compiler.ir import Array
from ramforge.runtime import arrays
from ramforge.runtime.session import Session
from ramforge.runtime.verify.recipe import Model, check_values
from ramforge.runtime.verify.reference import KINDS, Reference, Source
from ramforge.runtime.verify.steps import steps, usual_reference
from ramforge.runtime.verify.tolerance import (
    DEFAULT,
    Difference,
    Tolerances,
    differences,
    of_precision,
    require,
)

_NOTHING: Mapping[str, Array] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """The outputs of an artefact beside those of a reference, for ``inputs``."""

    artifact: Artifact
    inputs: Mapping[str, Array]
    differences: tuple[Difference, ...]
    device: str

    @property
    def ok(self) -> bool:
        return all(item.ok for item in self.differences)

    def raise_for_status(self) -> None:
        """VerificationError if an output differs by more than is allowed."""
        require(self.differences)


def verify(
    artifact: Artifact | str,
    model: Model,
    *,
    inputs: Mapping[str, Array] = _NOTHING,
    seed: int = 0,
    values: Mapping[str, Array] = _NOTHING,
    reference: str | None = None,
    tolerances: Tolerances = DEFAULT,
    device: str = "auto",
) -> Verification:
    """Run an artefact and a reference of its model on the same inputs.

    Inputs that are not given are made up from ``seed``; ``values`` are those that became constants
    when the model was compiled. ``reference`` is "ort" or "onnx", and for None what is usual for
    the model. A quantised output may be off by a step, if ``tolerances`` say nothing of it.
    """
    artifact = artifact if isinstance(artifact, Artifact) else artifacts.load(artifact)
    check_values(artifact, values)
    given = arrays.completed(artifact.inputs, inputs, seed)
    source = Source(model)
    allowed = tolerances.over(steps(source.proto)).over(of_precision(artifact.precision))
    expected = made_reference(source, {**given, **values}, reference).outputs()
    names = [port.name for port in artifact.outputs]
    if len(names) != len(expected):
        raise OptionError(
            f"{artifact.source} has {len(names)} outputs, the model {len(expected)}\n"
            "    fix: give the model that it was compiled from"
        )
    with Session(artifact, device) as session:
        found = differences(names, session.run(None, given), expected, allowed)
        return Verification(artifact, given, found, session.device)


def made_reference(source: Source, inputs: Mapping[str, Array], kind: str | None) -> Reference:
    kind = kind or usual_reference(source.proto)
    if kind not in KINDS:
        raise OptionError(f"unknown reference {kind!r}\n    fix: use {' or '.join(KINDS)}")
    return Reference(source, inputs, kind)
