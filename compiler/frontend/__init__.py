"""The front end: ONNX in, Graph out.

    load -> bind -> check -> convert -> (infer, fold, expand, unroll, again) -> tidy -> build

What always holds for the result: static shapes, constants out of protobuf, one form of each
operator, nothing in it that the registry lacks. Whatever stops that is raised as one error that
lists everything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import onnx

from ramforge.compiler.frontend.build import build
from ramforge.compiler.frontend.control_flow import select, unroll
from ramforge.compiler.frontend.convert import check, convert
from ramforge.compiler.frontend.declared import settle
from ramforge.compiler.frontend.dimensions import bind
from ramforge.compiler.frontend.expand import expand
from ramforge.compiler.frontend.fold import infer_and_fold
from ramforge.compiler.frontend.lenient import scalars
from ramforge.compiler.frontend.load import load
from ramforge.compiler.frontend.sequences import follow
from ramforge.compiler.frontend.slim import Inferred, is_dense
from ramforge.compiler.frontend.values import deciding_inputs, give
from ramforge.compiler.ir import Array, Graph

__all__ = ["deciding_inputs", "import_model", "is_dense"]

_NOTHING: Mapping[str, int] = MappingProxyType({})
_NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})
_NO_VALUES: Mapping[str, Array] = MappingProxyType({})


def import_model(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    shapes: Mapping[str, tuple[int, ...]] = _NO_SHAPES,
    dims: Mapping[str, int] = _NOTHING,
    values: Mapping[str, Array] = _NO_VALUES,
) -> Graph:
    """Read a model and bring it into the compiler's own form.

    ``dims`` gives named dimensions their sizes, ``shapes`` whole inputs, and ``values`` makes
    inputs constants. Raises ArtifactError for a path that cannot be read, InvalidModel for what is
    not an ONNX model, CompileError for shapes or values that do not fit it, and UnsupportedModel
    with everything the compiler cannot do.
    """
    is_path = not isinstance(model, onnx.ModelProto)
    simplified = _simplify(model, shapes, dims, values)
    name = Path(simplified.model.name).stem if is_path else simplified.model.name
    return build(simplified, name)


def _simplify(
    model: str | os.PathLike[str] | onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]] = _NO_SHAPES,
    dims: Mapping[str, int] = _NOTHING,
    values: Mapping[str, Array] = _NO_VALUES,
) -> Inferred:
    """Everything before the Graph is built; its proto still runs in other tools."""
    slim = convert(check(bind(give(load(model), values), shapes, dims)))
    while True:
        inferred = infer_and_fold(slim)
        slim = scalars(unroll(expand(follow(inferred.model))))
        if slim is inferred.model:
            slim = select(slim)
        if slim is inferred.model:
            slim = settle(slim)
        if slim is inferred.model:
            return inferred
