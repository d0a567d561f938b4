"""The graph that grows behind a model: values with operators of their own, written as nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Shape = tuple[int, ...]


class NoGradient(ValueError):
    """The model has something that cannot be differentiated."""


@dataclass(frozen=True)
class Value:
    """A tensor of the graph. Arithmetic with it adds nodes; a plain number becomes a constant."""

    tape: Tape
    name: str

    def __add__(self, other: Value | float) -> Value:
        return self.tape.node("Add", self, other)

    def __sub__(self, other: Value | float) -> Value:
        return self.tape.node("Sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return self.tape.node("Sub", other, self)

    def __mul__(self, other: Value | float) -> Value:
        return self.tape.node("Mul", self, other)

    def __truediv__(self, other: Value | float) -> Value:
        return self.tape.node("Div", self, other)

    def __pow__(self, other: Value | float) -> Value:
        return self.tape.node("Pow", self, other)

    def __neg__(self) -> Value:
        return self.tape.node("Neg", self)

    def __lt__(self, other: Value | float) -> Value:
        return self.tape.node("Less", self, other)

    def __gt__(self, other: Value | float) -> Value:
        return self.tape.node("Greater", self, other)

    def equals(self, other: Value | float) -> Value:
        return self.tape.node("Equal", self, other)

    def apply(self, op: str) -> Value:
        return self.tape.node(op, self)

    def where(self, yes: Value | float, no: Value | float) -> Value:
        """This is the condition."""
        return self.tape.node("Where", self, yes, no)

    def as_number(self) -> Value:
        return self.tape.node("Cast", self, to=self.tape.element_type)

    def as_index(self) -> Value:
        return self.tape.node("Cast", self, to=TensorProto.INT64)

    def reshaped(self, shape: Sequence[int]) -> Value:
        return self.tape.node("Reshape", self, self.tape.indices(shape))

    def expanded(self, shape: Sequence[int]) -> Value:
        return self.tape.node("Expand", self, self.tape.indices(shape))

    def transposed(self, *order: int) -> Value:
        return self.tape.node("Transpose", self, perm=list(order))

    def summed(self, axes: Sequence[int], keep: bool = True) -> Value:
        return self.tape.node("ReduceSum", self, self.tape.indices(axes), keepdims=int(keep))

    def summed_to(self, shape: Shape, target: Shape) -> Value:
        """Back to what was broadcast to ``shape``."""
        if shape == target:
            return self
        lead = len(shape) - len(target)
        axes = [*range(lead)]
        axes += [lead + i for i, n in enumerate(target) if n == 1 and shape[lead + i] != 1]
        return (self.summed(axes) if axes else self).reshaped(target)


@dataclass(frozen=True)
class Step:
    """A node of the model with its tensors; ``moved`` are the inputs whose gradient is wanted."""

    tape: Tape
    node: onnx.NodeProto
    moved: frozenset[str]

    @property
    def inputs(self) -> tuple[Value | None, ...]:
        return tuple(Value(self.tape, name) if name else None for name in self.node.input)

    def input(self, slot: int) -> Value:
        return Value(self.tape, self.node.input[slot])

    @property
    def output(self) -> Value:
        return Value(self.tape, self.node.output[0])

    def has(self, slot: int) -> bool:
        return slot < len(self.node.input) and bool(self.node.input[slot])

    def shape(self, slot: int) -> Shape:
        return self.tape.shape(self.node.input[slot])

    @property
    def out_shape(self) -> Shape:
        return self.tape.shape(self.node.output[0])

    def attribute(self, name: str, default: Any) -> Any:
        found = (helper.get_attribute_value(a) for a in self.node.attribute if a.name == name)
        value = next(found, default)
        return value.decode() if isinstance(value, bytes) else value

    def known(self, slot: int, default: Sequence[int] = ()) -> list[int]:
        """The integers of an operand."""
        if not self.has(slot):
            return list(default)
        value = self.tape.constants.get(self.node.input[slot])
        if value is None:
            raise self.refused(f"input {slot} is not a constant")
        return [int(number) for number in value.reshape(-1)]

    def axes(self, slot: int, default: Sequence[int] = ()) -> list[int]:
        """The axes of the first input that an attribute names, or an operand in newer opsets."""
        given = self.attribute("axes", None) or self.known(slot, default)
        return [axis % len(self.shape(0)) for axis in given]

    def refused(self, reason: str) -> NoGradient:
        return NoGradient(f"{self.node.op_type} {self.node.name!r}: {reason}")


# The gradients of the outputs in, those of the inputs out; None where there is none.
Rule = Callable[..., Sequence["Value | None"]]


class Tape:
    """Takes a model apart and writes the one that goes on backwards from its loss."""

    def __init__(self, model: onnx.ModelProto, loss: str) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        self._model, graph = inferred, inferred.graph
        self.forward = list(graph.node)
        self.constants: dict[str, Array] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
        }
        for node in self.forward:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        values = (*graph.input, *graph.value_info, *graph.output)
        types = {value.name: value.type.tensor_type for value in values}
        self.shapes: dict[str, Shape] = {
            name: tuple(dim.dim_value for dim in kind.shape.dim) for name, kind in types.items()
        }
        self.shapes.update((name, array.shape) for name, array in self.constants.items())
        if loss not in types or self.shape(loss) not in ((), (1,)):
            raise NoGradient(f"{loss!r} is not one number")
        self.element_type = types[loss].elem_type
        self.dtype = helper.tensor_dtype_to_np_dtype(self.element_type)
        self._nodes: list[onnx.NodeProto] = []
        self._made: dict[tuple[str, Shape, bytes], Value] = {}
        self._outputs: list[onnx.ValueInfoProto] = []

    def shape(self, name: str) -> Shape:
        shape = self.shapes[name]
        if not all(shape):
            raise NoGradient(f"the shape of {name!r} is not known")
        return shape

    def constant(self, array: Array) -> Value:
        """The same constant again is the same value."""
        array = np.array(array, order="C")
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._made:
            name = f"/gradients/constant_{len(self._made)}"
            self._made[key] = Value(self, name)
            self._model.graph.initializer.append(numpy_helper.from_array(array, name))
        return self._made[key]

    def number(self, value: float) -> Value:
        return self.constant(np.asarray(value, self.dtype))

    def numbers(self, array: Array) -> Value:
        return self.constant(array.astype(self.dtype))

    def indices(self, values: Sequence[int]) -> Value:
        return self.constant(np.array(values, np.int64))

    def filled(self, value: float, shape: Shape) -> Value:
        return self.number(value).expanded(shape) if shape else self.number(value)

    def node(self, op: str, *inputs: Value | float | None, **attributes: Any) -> Value:
        return self.nodes(op, *inputs, outputs=1, **attributes)[0]

    def nodes(
        self, op: str, *inputs: Value | float | None, outputs: int, **attributes: Any
    ) -> list[Value]:
        name = f"/gradients/{op}_{len(self._nodes)}"
        names = [f"{name}_output_{i}" for i in range(outputs)]
        operands = [self._named(operand) for operand in inputs]
        self._nodes.append(helper.make_node(op, operands, names, name=name, **attributes))
        return [Value(self, output) for output in names]

    def total(self, values: Sequence[Value]) -> Value | None:
        """The sum of the gradients that come to one tensor from all who read it."""
        if not values:
            return None
        result = values[0]
        for value in values[1:]:
            result = result + value
        return result

    def finish(self, value: Value, name: str, shape: Shape) -> None:
        """Make a value an output of the model."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name], name=name))
        self._outputs.append(helper.make_tensor_value_info(name, self.element_type, shape))

    def model(self) -> onnx.ModelProto:
        """The model with what was added, less what nobody reads."""
        graph = self._model.graph
        graph.output.extend(self._outputs)
        read = {value.name for value in graph.output}
        kept = []
        for node in reversed([*self.forward, *self._nodes]):
            if read.intersection(node.output):
                read.update(node.input)
                kept.append(node)
        constants = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(reversed(kept))
        graph.initializer.extend(constants)
        onnx.checker.check_model(self._model, full_check=True)
        return self._model

    def _named(self, operand: Value | float | None) -> str:
        if operand is None:
            return ""
        return operand.name if isinstance(operand, Value) else self.number(operand).name
