"""Gives the symbolic dimensions of a model's inputs their values.

Input: a SlimModel and what the user said about shapes, output: a SlimModel whose inputs have sizes
wherever they are known. What is still open is reported by ``unresolved``, so that it joins the
other problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from ramforge.compiler.errors import CompileError, Problem
from ramforge.compiler.frontend import problems
from ramforge.compiler.frontend.slim import SlimModel, copy_with_nodes

# Tiles count rows and columns in 32 bits.
LARGEST = 2**31 - 1
_A_SIZE = f"a whole number from 0 to {LARGEST}"


def bind(
    slim: SlimModel, shapes: Mapping[str, Sequence[int]], dims: Mapping[str, int]
) -> SlimModel:
    """Apply the user's shapes and dimensions."""
    inputs = {value.name: value for value in slim.inputs if value.type.HasField("tensor_type")}
    known_dims = sorted({text for value in inputs.values() for text in _symbols(value)})
    complaints = [
        *_unknown(shapes, sorted(inputs), "input", "--shapes"),
        *_unknown(dims, known_dims, "dimension", "--dim"),
        *(
            f"dimension {name!r}: expected {_A_SIZE}, found {size!r}"
            for name, size in dims.items()
            if not _is_size(size)
        ),
    ]
    values = {name: (size, f"--dim {name}={size}") for name, size in dims.items()}
    for name, shape in shapes.items():
        if name in inputs:
            complaints += _agree(inputs[name], tuple(shape), values)
    if complaints:
        raise CompileError(
            "\n".join(
                [
                    f"{slim.name}: the given shapes do not fit the model",
                    *(f"  {c}" for c in complaints),
                    f"    fix: give --shapes and --dim for these inputs: {_declared(inputs)}",
                ]
            )
        )
    proto = copy_with_nodes(slim.proto, slim.proto.graph.node)
    for value in proto.graph.input:
        if slim.is_fed(value.name) and value.type.HasField("tensor_type"):
            _write(
                value, shapes.get(value.name), {name: size for name, (size, _) in values.items()}
            )
    return slim.with_proto(proto)


def unresolved(slim: SlimModel) -> tuple[Problem, ...]:
    """A problem for each input dimension that has no size."""
    found: list[Problem] = []
    for value in slim.inputs:
        if not value.type.HasField("tensor_type"):
            continue
        tensor_type = value.type.tensor_type
        if not tensor_type.HasField("shape"):
            found.append(problems.unknown_rank(value.name))
            continue
        texts = [_text(dim) for dim in tensor_type.shape.dim]
        for axis, dim in enumerate(tensor_type.shape.dim):
            if not _has_size(dim):
                found.append(
                    problems.unresolved_dimension(
                        value.name, len(texts), axis, dim.dim_param, texts
                    )
                )
    return tuple(found)


def _has_size(dim: onnx.TensorShapeProto.Dimension) -> bool:
    # Some exporters write -1 for a dimension that is not known.
    return dim.HasField("dim_value") and dim.dim_value >= 0


def _text(dim: onnx.TensorShapeProto.Dimension) -> str:
    return str(dim.dim_value) if _has_size(dim) else dim.dim_param or "?"


def _symbols(value: onnx.ValueInfoProto) -> tuple[str, ...]:
    return tuple(dim.dim_param for dim in value.type.tensor_type.shape.dim if dim.dim_param)


def _is_size(size: object) -> bool:
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        return False
    return 0 <= int(size) <= LARGEST


def _declared(inputs: Mapping[str, onnx.ValueInfoProto]) -> str:
    """The inputs as the model has them: ``'x' (batch, 3, 224, 224)``."""
    return ", ".join(
        f"{name!r} ({', '.join(map(_text, value.type.tensor_type.shape.dim))})"
        for name, value in inputs.items()
    )


def _unknown(given: Mapping[str, object], known: Sequence[str], what: str, flag: str) -> list[str]:
    listed = ", ".join(repr(name) for name in known) or "none"
    return [
        f"{flag} {name}: the model has no {what} {name!r}; it has: {listed}"
        for name in given
        if name not in known
    ]


def _agree(
    value: onnx.ValueInfoProto, shape: tuple[int, ...], values: dict[str, tuple[int, str]]
) -> list[str]:
    """What is wrong with one input's shape; adds sizes of named dimensions to ``values``."""
    name, tensor_type = value.name, value.type.tensor_type
    complaints = [
        f"input {name!r}, axis {axis}: expected {_A_SIZE}, found {size!r}"
        for axis, size in enumerate(shape)
        if not _is_size(size) and _fixed_size(value, axis) != size
    ]
    if not tensor_type.HasField("shape") or complaints:
        return complaints
    dimensions = tensor_type.shape.dim
    declared = "x".join(_text(dim) for dim in dimensions)
    if len(shape) != len(dimensions):
        given = "x".join(map(str, shape))
        return [
            f"input {name!r}: expected {len(dimensions)} axes ({declared}), "
            f"found {len(shape)} ({given})"
        ]
    for axis, (size, dim) in enumerate(zip(shape, dimensions, strict=True)):
        if _has_size(dim):
            if dim.dim_value != size:
                complaints.append(
                    f"input {name!r}, axis {axis}: expected {dim.dim_value}, found {size}"
                )
        elif dim.dim_param:
            said, source = values.setdefault(dim.dim_param, (size, f"--shapes {name}"))
            if said != size:
                complaints.append(
                    f"input {name!r}, axis {axis} ({dim.dim_param}): expected {said} "
                    f"(from {source}), found {size}"
                )
    return complaints


def _fixed_size(value: onnx.ValueInfoProto, axis: int) -> int | None:
    dimensions = value.type.tensor_type.shape.dim
    return (
        dimensions[axis].dim_value
        if axis < len(dimensions) and _has_size(dimensions[axis])
        else None
    )


def _write(
    value: onnx.ValueInfoProto, shape: Sequence[int] | None, values: Mapping[str, int]
) -> None:
    tensor_type = value.type.tensor_type
    if shape is not None:
        del tensor_type.shape.dim[:]
        tensor_type.shape.SetInParent()
        for size in shape:
            tensor_type.shape.dim.add(dim_value=size)
        return
    for dim in tensor_type.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value < 0:
            dim.ClearField("dim_value")
        if dim.dim_param in values and not _has_size(dim):
            dim.dim_value = values[dim.dim_param]
