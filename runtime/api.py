"""``compile`` and ``load``: the compiler as a function."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.codegen import artifact as artifacts
from ramforge.codegen.artifact import Artifact
from ramforge.codegen.render import counted
from ramforge.compiler.cost import tuning_file
from ramforge.compiler.cost.analytic import AnalyticCost
from ramforge.compiler.cost.tuned import TunedCost
from ramforge.compiler.device import DEFAULT_TARGET, PRECISIONS, Target, find_target
from ramforge.compiler.errors import ArtifactError
from ramforge.compiler.ir import Array
from ramforge.compiler.pipeline import Program, compile_graph
from ramforge.compiler.schedule import DEFAULT_SCHEDULE

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("ramforge")


def compile(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    target: str | Target = DEFAULT_TARGET,
    output: str | os.PathLike[str] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    dims: Mapping[str, int] | None = None,
    values: Mapping[str, Array] | None = None,
    schedule: str = DEFAULT_SCHEDULE,
    precision: str = PRECISIONS[0],
    tuning: str | os.PathLike[str] | None = None,
) -> Artifact:
    """Compile an ONNX model to ``output`` (a path that ends in .cu), or into the cache without one.

    Beside the source stand the weights (.safetensors) and the manifest (.json). Needs no compiler
    and no GPU. ``values`` makes inputs constants; ``tuning`` is a file of measurements by which to
    choose (``compile --tune``). ``precision`` (fp32, tf32, fp16, bf16) is that of the factors of
    matrix products; sums are float32.
    """
    from ramforge.compiler.frontend import import_model

    if output is not None:
        artifacts.check_writable(Path(output))
    chosen = find_target(target) if isinstance(target, str) else target
    chosen = chosen.with_precision(precision)
    measured = tuning_file.read(tuning, chosen) if tuning is not None else None
    log.info("reading the model")
    graph = import_model(model, shapes=shapes or {}, dims=dims or {}, values=values or {})
    log.info("compiling %s for %s", counted(len(graph.nodes), "node"), chosen.name)
    cost = TunedCost(AnalyticCost(), measured, chosen) if measured else AnalyticCost()
    program = compile_graph(graph, chosen, schedule, cost=cost)
    options = _options(chosen, schedule, shapes or {}, dims or {}, values or {})
    if measured:
        options["tuning"] = tuning_file.digest(measured)
    log.info("writing")
    if output is None:
        return _in_cache(program, model, options)
    return artifacts.emit(program, Path(output), options)


def load(path: str | os.PathLike[str]) -> Artifact:
    """An artefact on disk: its .cu file, or the folder that holds it."""
    return artifacts.load(path)


def _options(
    target: Target,
    schedule: str,
    shapes: Mapping[str, tuple[int, ...]],
    dims: Mapping[str, int],
    values: Mapping[str, Array],
) -> dict[str, Any]:
    return {
        "target": target.label,
        "schedule": schedule,
        "precision": target.precision,
        "shapes": {name: list(shape) for name, shape in sorted(shapes.items())},
        "dims": dict(sorted(dims.items())),
        "values": {name: digest(array) for name, array in sorted(values.items())},
    }


def digest(array: Array) -> str:
    """What the manifest says of a value that became a constant."""
    plain = np.ascontiguousarray(array)
    text = f"{plain.dtype.name}{list(plain.shape)}"
    return f"{text} {hashlib.sha256(plain.tobytes()).hexdigest()[:16]}"


def _in_cache(
    program: Program, model: str | os.PathLike[str] | onnx.ModelProto, options: dict[str, Any]
) -> Artifact:
    """Write into a folder of the cache that is named by what is in it."""
    from ramforge.codegen.build import cache

    stem = Path(model).stem if isinstance(model, str | os.PathLike) else model.graph.name
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in stem or "model")
    rendered = artifacts.render(program, f"{safe}.cu", options)
    folder = cache.store() / "artifacts" / rendered.digest[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: cannot be made ({error.strerror})\n"
            "    fix: give an output path, or set RAMFORGE_CACHE to a folder of yours"
        ) from None
    return rendered.write(folder)
