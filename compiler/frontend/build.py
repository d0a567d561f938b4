"""Makes the Graph of a simplified model, or reports everything that stops it.

Input: a SlimModel after folding and expansion, output: a Graph, or errors.UnsupportedModel with all
problems at once. A problem is reported where it starts: what merely follows from an earlier one is
not listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from ramforge.compiler import registry
from ramforge.compiler.errors import Problem, UnsupportedModel
from ramforge.compiler.frontend import control_flow, dimensions, problems, sequences
from ramforge.compiler.frontend.convert import UNKNOWN_DOMAIN
from ramforge.compiler.frontend.declared import solve
from ramforge.compiler.frontend.expand import is_expandable
from ramforge.compiler.frontend.fitting import refusal
from ramforge.compiler.frontend.slim import Inferred, Origin, SlimModel, dtype_of, element_label
from ramforge.compiler.frontend.tidy import Tidied, tidy
from ramforge.compiler.frontend.values import deciding_slots, sources
from ramforge.compiler.ir import Array, DType, Graph, Node, Tensor

# Places in memory are 32 bits wide, in units of 16 bytes.
MOST_BYTES = 16 * 2**32
_NO_TENSORS = ("sequence", "optional", "map", "sparse tensor")


def build(inferred: Inferred, graph_name: str) -> Graph:
    """The Graph of a model that has no problems."""
    slim = inferred.model
    tidied = tidy(slim)
    types = _types(slim, tidied)
    graph = _graph(slim, tidied, types, graph_name)
    if not any(map(_is_large, graph.tensors.values())):
        graph = solve(graph, slim.opset)
    found = tuple(_distinct(_problems(inferred, tidied, types, graph)))
    if found:
        raise UnsupportedModel(slim.name, found)
    return graph


@dataclass(frozen=True, slots=True)
class _Type:
    """What is known about a tensor; ``found`` is its shape in words."""

    dtype: DType | None
    label: str
    shape: tuple[int, ...] | None
    found: str

    def tensor(self, name: str) -> Tensor | None:
        if self.dtype is None or self.shape is None:
            return None
        return Tensor(name, self.shape, self.dtype)


def _types(slim: SlimModel, tidied: Tidied) -> dict[str, _Type]:
    graph = slim.proto.graph
    types = {
        value.name: _type(value.type) for value in (*graph.value_info, *graph.output, *graph.input)
    }
    for name, label in slim.foreign.items():
        types[name] = _Type(None, label, None, label)
    for name, array in slim.constants.items():
        dtype = DType.of(array)
        types[name] = _Type(dtype, dtype.label, array.shape, "")
    for name, like in tidied.copies.items():
        types[name] = types[like]
    return types


def _type(proto: onnx.TypeProto) -> _Type:
    kind = proto.WhichOneof("value") or "unknown type"
    if kind != "tensor_type":
        label = kind.removesuffix("_type").replace("_", " ")
        return _Type(None, label, None, label)
    tensor = proto.tensor_type
    label = element_label(tensor.elem_type)
    if not tensor.HasField("shape"):
        return _Type(dtype_of(tensor.elem_type), label, None, "no shape")
    dims = tensor.shape.dim
    static = all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims)
    texts = [
        str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims
    ]
    shape = tuple(dim.dim_value for dim in dims) if static else None
    return _Type(dtype_of(tensor.elem_type), label, shape, f"({', '.join(texts)})")


def _graph(slim: SlimModel, tidied: Tidied, types: Mapping[str, _Type], graph_name: str) -> Graph:
    """All that is known; complete if there are no problems."""
    inputs = tuple(value.name for value in slim.inputs)
    used = {*inputs, *tidied.outputs}
    for node in tidied.nodes:
        used.update(name for name in (*node.inputs, *node.outputs) if name)
    tensors = {}
    for name in sorted(used):
        tensor = types[name].tensor(name) if name in types else None
        if tensor is not None:
            tensors[name] = tensor
    constants: dict[str, Array] = {}
    for name in sorted(used):
        source = tidied.copies.get(name, name)
        if source in slim.constants and name not in tidied.outputs:
            constants[name] = slim.constants[source]
    return Graph(graph_name, inputs, tidied.outputs, tidied.nodes, tensors, constants)


def _problems(
    inferred: Inferred, tidied: Tidied, types: Mapping[str, _Type], graph: Graph
) -> Iterator[Problem]:
    slim = inferred.model
    yield from dimensions.unresolved(slim)
    for value in slim.inputs:
        yield from _input_type(value.name, types[value.name], value.type)
    for name in tidied.outputs:
        if name in types and types[name].label in _NO_TENSORS:
            yield problems.output_type(name, types[name].label)
    fed_others = any(types[value.name].label in _NO_TENSORS for value in slim.inputs)
    for tensor in graph.tensors.values():
        if _is_large(tensor):
            yield problems.too_large(tensor.name, tensor.shape, dimensions.LARGEST, MOST_BYTES)
    used = {name for node in tidied.nodes for name in node.inputs}
    for name, label in slim.foreign.items():
        if name in used or name in tidied.copies.values():
            yield problems.element_type("tensor", name, label)
    if inferred.complaint:
        yield from problems.inference_errors(inferred.complaint, dict(slim.origins))
    for node in graph.nodes:
        if node.op in (registry.COMPARE, registry.CHOOSE):
            continue
        if fed_others and (node.op in sequences.OPERATORS or _has_graphs(node)):
            continue  # follows from the inputs
        problem = _node_problem(node, slim, tidied, types, graph)
        if problem:
            yield problem


def _is_large(tensor: Tensor) -> bool:
    return max(tensor.shape, default=0) > dimensions.LARGEST or tensor.nbytes > MOST_BYTES


def _input_type(name: str, known: _Type, proto: onnx.TypeProto) -> Iterable[Problem]:
    if not proto.HasField("tensor_type"):
        return (problems.not_a_tensor(name, known.label),)
    return () if known.dtype else (problems.element_type("input", name, known.label),)


def _node_problem(
    node: Node, slim: SlimModel, tidied: Tidied, types: Mapping[str, _Type], graph: Graph
) -> Problem | None:
    origin = tidied.origins.get(node.name, Origin(node.origin[0], node.op))
    domain = tidied.domains.get(node.name, "")
    if domain == UNKNOWN_DOMAIN:
        return problems.unknown_operator(origin, node.op, slim.source_opset)
    if domain:
        return problems.foreign_domain(origin, f"{domain}.{node.op}", domain)
    operator = registry.find(node.op)
    whole = all(name in graph.tensors for name in node.inputs if name)
    if operator is None:
        if _has_graphs(node):
            return problems.control_flow(
                origin, node.op, control_flow.obstacles(slim).get(node.name, "")
            )
        if node.op in sequences.OPERATORS:
            made = [types[name].label for name in node.outputs if name in types]
            is_reader = not any(label in _NO_TENSORS for label in made)
            return problems.open_sequence(origin, node.op) if is_reader else None
        # Not expanded only because its inputs have no types, which is somebody else's problem.
        if not whole and is_expandable(node.op, "", slim.opset):
            return None
        return problems.unsupported_operator(origin, node.op)
    if not whole:
        return None
    for name in filter(None, node.outputs):
        known = types.get(name, _Type(None, "", None, "nothing"))
        if known.dtype is None and known.label:
            return problems.produced_type(origin, node.op, name, known.label)
        if known.shape is None and name not in graph.tensors:
            slots = [slot for slot in deciding_slots(node.op) if slot < len(node.inputs)]
            return problems.unknown_shape(
                origin, node.op, name, known.found, _sources(slim, node, slots)
            )
    for slot in operator.needs:
        name = node.inputs[slot] if slot < len(node.inputs) else ""
        if name and name not in graph.constants:
            return problems.unknown_operand(origin, node.op, name, _sources(slim, node, [slot]))
    axis = node.attr("axis", 0)
    rank = len(graph.tensor(node.inputs[0]).shape) if node.inputs and node.inputs[0] else None
    if rank is not None and isinstance(axis, int) and not -rank - 1 <= axis <= max(rank, 1):
        return problems.axis_outside(origin, node.op, axis, rank)
    if control_flow.SAME_SHAPE in node.attrs:
        yes, no = (graph.tensor(name).shape for name in node.inputs[1:])
        if yes != no:
            return problems.unlike_branches(origin, yes, no)
    found = refusal(operator, node, graph)
    return Problem(origin.node, node.op, *found) if found else None


def _sources(slim: SlimModel, node: Node, slots: Sequence[int]) -> Sequence[str]:
    """The inputs of the model that the values of these operands come from."""
    return sorted(sources(slim.proto.graph, [node.inputs[slot] for slot in slots]))


def _has_graphs(node: Node) -> bool:
    return any(isinstance(value, onnx.GraphProto) for value in node.attrs.values())


def _distinct(found: Iterable[Problem]) -> Iterator[Problem]:
    """One row for a node: an expanded one may fail in several of its parts."""
    seen: set[tuple[str, str]] = set()
    for problem in found:
        # Several axes of one input are several problems.
        key = (problem.node, problem.operator or problem.reason)
        if key not in seen:
            seen.add(key)
            yield problem
