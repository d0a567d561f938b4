"""The same model with operands that decide shapes as inputs of a run, and all shapes declared."""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import helper, numpy_helper

from ramforge.compiler import registry
from tests.fuzz.maker import Maker, Program


def with_operands_as_inputs(made: Program, maker: Maker) -> Program | None:
    """None if no operand can come at run time."""
    graph = made.model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    moved = {
        node.input[slot]
        for node in graph.node
        for slot in _open_slots(node.op_type)
        if slot < len(node.input) and node.input[slot] in constants
    }
    if not moved:
        return None
    model = onnx.ModelProto()
    model.CopyFrom(made.model)
    del model.graph.initializer[:]
    model.graph.initializer.extend(t for t in graph.initializer if t.name not in moved)
    inputs = dict(made.inputs)
    for name in sorted(moved):
        inputs[name] = constants[name]
        kind = helper.np_dtype_to_tensor_dtype(constants[name].dtype)
        model.graph.input.append(helper.make_tensor_value_info(name, kind, constants[name].shape))
    outputs = {value.name for value in graph.output}
    for value in maker.values:
        if value.name not in outputs and value.name not in inputs:
            kind = helper.np_dtype_to_tensor_dtype(value.array.dtype)
            model.graph.value_info.append(
                helper.make_tensor_value_info(value.name, kind, value.array.shape)
            )
    return replace(made, model=model, inputs=inputs)


def _open_slots(op: str) -> tuple[int, ...]:
    """The operands that a run reads, or that the shape of the output tells."""
    operator = registry.find(op)
    if operator is None:
        return ()
    told = (slot for slot, solve in operator.needs.items() if solve is not registry.untold)
    return (*told, *operator.reads)
