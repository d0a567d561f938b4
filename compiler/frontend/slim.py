"""A model with its constants beside it: onnx's passes stay quick, and protobuf under 2 GB.

Input: an onnx.ModelProto, output: a SlimModel. What always holds: ``constants`` has every known
tensor; the small ones are also initializers of ``proto`` (shape inference reads them), the large
ones and those of unsupported types stand in it as further graph inputs. No top-level node of
``proto`` is a Constant, every one has a unique name, and all are in ``origins``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ramforge.compiler.errors import InvalidModel
from ramforge.compiler.ir import Array, DType

SMALL_BYTES = 1024
ReadTensor = Callable[[onnx.TensorProto], Array]


@dataclass(frozen=True, slots=True)
class Origin:
    """The node of the user's model that a node comes from."""

    node: str
    operator: str


@dataclass(frozen=True, slots=True)
class SlimModel:
    """``foreign`` names the type of each constant that DType lacks; its data is not read.

    ``source_opset`` is the one that the user's model has; ``declared`` are the sizes that it says
    its tensors have, ``settled`` those of them that are taken for true because nothing else tells.
    """

    name: str
    proto: onnx.ModelProto
    constants: Mapping[str, Array]
    foreign: Mapping[str, str]
    origins: Mapping[str, Origin]
    source_opset: int
    declared: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    settled: Mapping[str, onnx.ValueInfoProto] = field(default_factory=dict)

    @property
    def opset(self) -> int:
        return opset_of(self.proto)

    @property
    def inputs(self) -> tuple[onnx.ValueInfoProto, ...]:
        """The inputs a user feeds."""
        return tuple(value for value in self.proto.graph.input if self.is_fed(value.name))

    def is_fed(self, name: str) -> bool:
        return name not in self.constants and name not in self.foreign

    def with_proto(self, proto: onnx.ModelProto) -> SlimModel:
        return replace(self, proto=proto)


@dataclass(frozen=True, slots=True)
class Inferred:
    """A model with inferred types, and what inference had to say against it."""

    model: SlimModel
    complaint: str


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of the default domain, 0 if it is not imported."""
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def _plain_domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def element_label(element_type: int) -> str:
    """The ONNX name of an element type, in small letters."""
    try:
        return str(onnx.TensorProto.DataType.Name(element_type)).lower()
    except ValueError:
        return f"element type {element_type}"


def dtype_of(element_type: int) -> DType | None:
    """The DType of an ONNX element type, None if there is none."""
    label = "float32" if element_type == onnx.TensorProto.FLOAT else element_label(element_type)
    label = "float64" if element_type == onnx.TensorProto.DOUBLE else label
    return next((dtype for dtype in DType if dtype.label == label), None)


def is_dense(known: onnx.TypeProto) -> bool:
    """Whether this is a tensor of elements that a DType holds."""
    tensor = known.HasField("tensor_type") and known.tensor_type.elem_type
    return bool(tensor) and dtype_of(tensor) is not None


def element_types(proto: onnx.ModelProto) -> dict[str, int]:
    """The ONNX element type of each tensor; 0 where it is not known."""
    graph = proto.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        types.setdefault(value.name, value.type.tensor_type.elem_type)
    return types


def tensor_names(proto: onnx.ModelProto) -> set[str]:
    """The names of all tensors of a graph."""
    names = {output for node in proto.graph.node for output in node.output}
    names.update(value.name for value in proto.graph.input)
    names.update(tensor.name for tensor in proto.graph.initializer)
    return names


def hold_constants(model: onnx.ModelProto, name: str, read: ReadTensor) -> SlimModel:
    """Take the constants out of a model; ``model`` itself is not changed, nor copied as a whole."""
    proto = onnx.ModelProto(ir_version=max(model.ir_version, 10))
    # The default domain has two names; onnx's passes want the empty one. onnx.compose says each
    # import twice, which its own converter does not expect.
    imports = [(_plain_domain(entry.domain), entry.version) for entry in model.opset_import]
    proto.opset_import.extend(helper.make_opsetid(*entry) for entry in dict.fromkeys(imports))
    proto.functions.extend(model.functions)
    graph = proto.graph
    graph.name = model.graph.name or "graph"
    known = _Known(read, name)
    for tensor in model.graph.initializer:
        known.add(tensor.name, tensor)
    for sparse in model.graph.sparse_initializer:
        known.add_sparse(sparse.values.name, sparse)
    # Before IR version 4 every initializer was listed as an input as well.
    graph.input.extend(value for value in model.graph.input if not known.has(value.name))
    graph.output.extend(model.graph.output)
    _refuse_repeated(name, "input", (value.name for value in graph.input))
    _refuse_repeated(name, "output", (value.name for value in graph.output))
    origins: dict[str, Origin] = {}
    for node, node_name in zip(model.graph.node, _node_names(model.graph.node), strict=True):
        if not known.take(node):
            graph.node.append(node)
            graph.node[-1].name = node_name
            graph.node[-1].domain = _plain_domain(node.domain)
            origins[node_name] = Origin(node.name or node_name, node.op_type)
    declared = _declared_shapes((*model.graph.output, *model.graph.value_info))
    slim = SlimModel(name, proto, {}, known.foreign, origins, opset_of(model), declared)
    graph.input.extend(known.placeholders)
    return with_constants(slim, known.arrays)


def static_shape(known: onnx.TypeProto | None) -> tuple[int, ...] | None:
    """The sizes that a type says, if it says all."""
    if known is None or not known.HasField("tensor_type"):
        return None
    if not known.tensor_type.HasField("shape"):
        return None
    dims = known.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims):
        return None
    return tuple(dim.dim_value for dim in dims)


def _declared_shapes(values: Iterable[onnx.ValueInfoProto]) -> dict[str, tuple[int, ...]]:
    shapes = ((value.name, static_shape(value.type)) for value in values)
    return {name: shape for name, shape in shapes if shape is not None}


def lift_constant_nodes(slim: SlimModel, read: ReadTensor = numpy_helper.to_array) -> SlimModel:
    """Turn Constant nodes, which converter and inliner make, into constants."""
    if not any(node.op_type == "Constant" for node in slim.proto.graph.node):
        return slim
    known = _Known(read, slim.name)
    kept = [node for node in slim.proto.graph.node if not known.take(node)]
    proto = copy_with_nodes(slim.proto, kept)
    proto.graph.input.extend(known.placeholders)
    slim = replace(slim, proto=proto, foreign={**slim.foreign, **known.foreign})
    return with_constants(slim, known.arrays)


def with_constants(slim: SlimModel, arrays: Mapping[str, Array]) -> SlimModel:
    """Add known tensors. The proto is changed in place: callers own it."""
    graph = slim.proto.graph
    for name, array in arrays.items():
        if array.nbytes <= SMALL_BYTES:
            graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        else:
            element_type = helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(helper.make_tensor_value_info(name, element_type, array.shape))
    return replace(slim, constants={**slim.constants, **arrays})


def copy_with_nodes(
    proto: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], keep_types: bool = False
) -> onnx.ModelProto:
    """The same slim proto with other nodes; inferred types go unless they are kept."""
    result = onnx.ModelProto(ir_version=proto.ir_version)
    result.opset_import.extend(proto.opset_import)
    result.functions.extend(proto.functions)
    result.graph.name = proto.graph.name
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(proto.graph.initializer)
    result.graph.input.extend(proto.graph.input)
    result.graph.output.extend(proto.graph.output)
    if keep_types:
        result.graph.value_info.extend(proto.graph.value_info)
    return result


def unique_name(wanted: str, taken: set[str]) -> str:
    """``wanted``, or with a number if it is taken; the result is added to ``taken``."""
    name, count = wanted, 0
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    taken.add(name)
    return name


class _Known:
    """Collects constants while a graph is read."""

    def __init__(self, read: ReadTensor, model: str) -> None:
        self.arrays: dict[str, Array] = {}
        self.foreign: dict[str, str] = {}
        self.placeholders: list[onnx.ValueInfoProto] = []
        self._read = read
        self._model = model

    def has(self, name: str) -> bool:
        return name in self.arrays or name in self.foreign

    def add_sparse(self, name: str, sparse: onnx.SparseTensorProto) -> None:
        label = f"sparse {element_label(sparse.values.data_type)}"
        self._add_foreign(name, label, sparse.values.data_type, sparse.dims)

    def _add_foreign(self, name: str, label: str, element_type: int, dims: Iterable[int]) -> None:
        self._refuse_second(name)
        self.foreign[name] = label
        self.placeholders.append(helper.make_tensor_value_info(name, element_type, list(dims)))

    def add(self, name: str, tensor: onnx.TensorProto) -> None:
        if dtype_of(tensor.data_type) is None:
            label = element_label(tensor.data_type)
            self._add_foreign(name, label, tensor.data_type, tensor.dims)
            return
        self._refuse_second(name)
        try:
            self.arrays[name] = self._read(tensor)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise InvalidModel(
                f"{self._model}: the data of tensor {name!r} does not fit its type "
                f"{element_label(tensor.data_type)}{list(tensor.dims)}: {first_line(error)}\n"
                "    fix: export or download the model again; the file is damaged"
            ) from error

    def take(self, node: onnx.NodeProto) -> bool:
        """Whether the node is a Constant, which then is collected."""
        if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or not node.output:
            return False
        attribute = next(iter(node.attribute), None)
        name = node.output[0]
        if attribute is None:
            return False
        if attribute.name == "value":
            self.add(name, attribute.t)
        elif attribute.name in ("value_float", "value_floats"):
            self._add_plain(name, attribute, np.float32)
        elif attribute.name in ("value_int", "value_ints"):
            self._add_plain(name, attribute, np.int64)
        elif attribute.name == "sparse_value":
            self.add_sparse(name, attribute.sparse_tensor)
        elif attribute.name in ("value_string", "value_strings"):
            dims = [len(attribute.strings)] if attribute.strings else []
            self._add_foreign(name, "string", onnx.TensorProto.STRING, dims)
        else:
            return False
        return True

    def _add_plain(self, name: str, attribute: onnx.AttributeProto, dtype: type) -> None:
        self._refuse_second(name)
        self.arrays[name] = np.array(helper.get_attribute_value(attribute), dtype)

    def _refuse_second(self, name: str) -> None:
        if self.has(name):
            raise _repeated(self._model, "constant", name)


def first_line(error: BaseException) -> str:
    """What an error of another library says, without its context."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _repeated(model: str, what: str, name: str) -> InvalidModel:
    return InvalidModel(
        f"{model}: {what} {name!r} is there twice, expected each name once\n"
        "    fix: rename one of them, or export the model again"
    )


def _refuse_repeated(model: str, what: str, names: Iterator[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise _repeated(model, what, name)
        seen.add(name)


def _node_names(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    """A unique name for every node; those of ONNX may be empty or repeat."""
    nodes = list(nodes)
    taken = {node.name for node in nodes if node.name}
    seen: set[str] = set()
    names = []
    for index, node in enumerate(nodes):
        name = node.name
        if not name or name in seen:
            name = unique_name(name or f"{node.op_type}_{index}", taken)
        seen.add(name)
        names.append(name)
    return names
