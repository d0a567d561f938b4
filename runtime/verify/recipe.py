"""How an artefact was compiled, so that other models, or parts of its own, can be compiled so."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from ramforge.codegen.artifact import Artifact
from ramforge.compiler.errors import ArtifactError, OptionError
from ramforge.compiler.ir import Array
from ramforge.runtime import api
from ramforge.runtime.session import Session

Model = str | os.PathLike[str] | onnx.ModelProto


@dataclass(frozen=True, slots=True)
class Recipe:
    """The options of a compilation, and the device to run on. ``shapes``, ``dims`` and ``values``
    are about the inputs of the whole model.
    """

    target: str
    schedule: str
    precision: str
    device: str
    tuning: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, Array] = field(default_factory=dict)

    def run(self, model: Model, inputs: Mapping[str, Array], *, whole: bool) -> list[Array]:
        """Compile, build and run a model; ``whole`` if it has the inputs of the whole model."""
        fed = {name: array for name, array in inputs.items() if name not in self.values}
        options: dict[str, Any] = {"shapes": self.shapes, "dims": self.dims, "values": self.values}
        with tempfile.TemporaryDirectory() as folder:
            artifact = api.compile(
                model,
                target=self.target,
                schedule=self.schedule,
                precision=self.precision,
                tuning=self.tuning,
                output=Path(folder, "part.cu"),
                **options if whole else {},
            )
            with Session(artifact, self.device) as session:
                return session.run(None, fed if whole else inputs)


def recipe(
    artifact: Artifact, device: str, values: Mapping[str, Array], tuning: str | None
) -> Recipe:
    """What the manifest of an artefact says, and what it has only the digest of."""
    options = artifact.manifest.get("options", {})
    if "target" not in options or "schedule" not in options:
        raise ArtifactError(
            f"{artifact.source}: the manifest does not say how it was compiled\n"
            "    fix: compile the model again"
        )
    check_values(artifact, values)
    if ("tuning" in options) != (tuning is not None):
        raise OptionError(
            f"{artifact.source} was compiled by measurements\n    fix: give their file: --tuning"
            if tuning is None
            else f"{artifact.source} was compiled without measurements\n    fix: drop --tuning"
        )
    return Recipe(
        options["target"],
        options["schedule"],
        artifact.precision,
        device,
        tuning,
        {name: tuple(shape) for name, shape in options.get("shapes", {}).items()},
        options.get("dims", {}),
        values,
    )


def check_values(artifact: Artifact, values: Mapping[str, Array]) -> None:
    """Inputs that became constants have to be the ones that the artefact was compiled with."""
    known: Mapping[str, str] = artifact.manifest.get("options", {}).get("values", {})
    given = {name: api.digest(array) for name, array in values.items()}
    wrong = sorted(
        name for name in known.keys() | given.keys() if known.get(name) != given.get(name)
    )
    if wrong:
        raise OptionError(
            f"{artifact.source}: inputs {wrong} were bound to other values when it was compiled\n"
            "    fix: give exactly those of then: --bind NAME=VALUES.npz"
        )
