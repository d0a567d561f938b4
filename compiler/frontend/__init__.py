"""The front end: ONNX in, Graph out.

    load -> bind -> check -> convert -> (infer, fold, expand, again) -> tidy -> build

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
from ramforge.compiler.frontend.convert import check, convert
from ramforge.compiler.frontend.dimensions import bind
from ramforge.compiler.frontend.expand import expand
from ramforge.compiler.frontend.fold import Inferred, infer_and_fold
from ramforge.compiler.frontend.load import load
from ramforge.compiler.ir import Graph

__all__ = ["import_model"]

_NOTHING: Mapping[str, int] = MappingProxyType({})
_NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})


def import_model(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    shapes: Mapping[str, tuple[int, ...]] = _NO_SHAPES,
    dims: Mapping[str, int] = _NOTHING,
) -> Graph:
    """Read a model and bring it into the compiler's own form.

    ``dims`` gives named dimensions their sizes, ``shapes`` whole inputs. Raises ArtifactError for a
    path that cannot be read, InvalidModel for what is not an ONNX model, CompileError for shapes
    that do not fit it, and UnsupportedModel with everything the compiler cannot do.
    """
    is_path = not isinstance(model, onnx.ModelProto)
    simplified = _simplify(model, shapes, dims)
    name = Path(simplified.model.name).stem if is_path else simplified.model.name
    return build(simplified, name)


def _simplify(
    model: str | os.PathLike[str] | onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]] = _NO_SHAPES,
    dims: Mapping[str, int] = _NOTHING,
) -> Inferred:
    """Everything before the Graph is built; its proto still runs in other tools."""
    slim = convert(check(bind(load(model), shapes, dims)))
    while True:
        inferred = infer_and_fold(slim)
        slim = expand(inferred.model)
        if slim is inferred.model:
            return inferred
