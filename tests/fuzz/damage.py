"""Ways to damage a valid model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.fuzz.maker import Maker

Damage = Callable[[Maker, onnx.ModelProto], None]

LARGE = (-1, 0, -(2**31), 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), 3, 1000, 10**6)
NAMES = ("", "x1", "t2", "no such tensor", "a\nb", "ä", "*/", '"', "x" * 3000)
OPERATORS = ("Relu", "Mystery", "", "Conv", "Concat", "If", "Loop", "Add", "Reshape", "Gather")


class Nothing(Exception):
    """The model has not what this would damage."""


def _node(maker: Maker, model: onnx.ModelProto) -> onnx.NodeProto:
    if not model.graph.node:
        raise Nothing
    return maker.pick(model.graph.node)


def _attribute(maker: Maker, model: onnx.ModelProto) -> AttributeProto:
    found = [attribute for node in model.graph.node for attribute in node.attribute]
    if not found:
        raise Nothing
    return maker.pick(found)


def _constant(maker: Maker, model: onnx.ModelProto) -> TensorProto:
    if not model.graph.initializer:
        raise Nothing
    return maker.pick(model.graph.initializer)


def _port(maker: Maker, model: onnx.ModelProto) -> onnx.ValueInfoProto:
    found = [*model.graph.input, *model.graph.output]
    if not found:
        raise Nothing
    return maker.pick(found)


def attribute_value(maker: Maker, model: onnx.ModelProto) -> None:
    """An odd number, or a list of them."""
    attribute = _attribute(maker, model)
    if attribute.type == AttributeProto.INTS and attribute.ints and maker.chance(70):
        place = maker.integer(0, len(attribute.ints) - 1)
        attribute.ints[place] = maker.pick(LARGE)
    elif attribute.type == AttributeProto.INTS:
        values = [maker.pick(LARGE) for _ in range(maker.integer(0, 5))]
        del attribute.ints[:]
        attribute.ints.extend(values)
    elif attribute.type == AttributeProto.INT:
        attribute.i = maker.pick(LARGE)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = maker.pick((np.inf, -np.inf, np.nan, 0.0, 1e38, -1.0))
    elif attribute.type == AttributeProto.STRING:
        attribute.s = maker.pick((b"", b"nonsense", b"\xff\xfe", b"linear"))


def attribute_type(maker: Maker, model: onnx.ModelProto) -> None:
    attribute = _attribute(maker, model)
    values = (1, 1.5, "text", [1, 2], [0.5], np.zeros(2, np.float32), ["a"])
    value = maker.pick(values)
    made = helper.make_attribute(
        attribute.name, numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
    )
    attribute.CopyFrom(made)


def attribute_added(maker: Maker, model: onnx.ModelProto) -> None:
    node = _node(maker, model)
    names = ("axis", "axes", "kernel_shape", "pads", "strides", "group", "perm", "to", "foo", "")
    many = [maker.pick(LARGE) for _ in range(maker.integer(0, 4))]
    value = maker.pick((maker.pick(LARGE), many, "text"))
    if value == []:
        raise Nothing
    node.attribute.append(helper.make_attribute(maker.pick(names), value))


def attribute_lost(maker: Maker, model: onnx.ModelProto) -> None:
    node = _node(maker, model)
    if not node.attribute:
        raise Nothing
    del node.attribute[maker.integer(0, len(node.attribute) - 1)]


def attribute_name(maker: Maker, model: onnx.ModelProto) -> None:
    _attribute(maker, model).name = maker.pick(("", "axis", "nonsense", "keepdims"))


def input_lost(maker: Maker, model: onnx.ModelProto) -> None:
    node = _node(maker, model)
    if not node.input:
        raise Nothing
    if maker.chance(50):
        del node.input[-1]
    else:
        node.input[maker.integer(0, len(node.input) - 1)] = ""


def input_added(maker: Maker, model: onnx.ModelProto) -> None:
    node = _node(maker, model)
    names = [port.name for port in model.graph.input] + ["", "no such tensor"]
    node.input.extend(maker.pick(names) for _ in range(maker.integer(1, 7)))


def input_renamed(maker: Maker, model: onnx.ModelProto) -> None:
    """Maybe to a value that comes later: a circle."""
    node = _node(maker, model)
    if not node.input:
        raise Nothing
    later = [name for other in model.graph.node for name in other.output]
    ports = [port.name for port in model.graph.input]
    place = maker.integer(0, len(node.input) - 1)
    node.input[place] = maker.pick([*later, *ports, *NAMES])


def output_renamed(maker: Maker, model: onnx.ModelProto) -> None:
    node = _node(maker, model)
    others = [name for other in model.graph.node for name in (*other.output, *other.input)]
    place = maker.integer(0, len(node.output) - 1)
    node.output[place] = maker.pick([*others, *NAMES])


def output_count(maker: Maker, model: onnx.ModelProto) -> None:
    node = _node(maker, model)
    if maker.chance(30):
        del node.output[-1]
    else:
        node.output.extend(f"more{number}" for number in range(maker.integer(1, 4)))


def operator(maker: Maker, model: onnx.ModelProto) -> None:
    node = _node(maker, model)
    if maker.chance(80):
        schemas = sorted({s.name for s in onnx.defs.get_all_schemas() if s.domain == ""})
        node.op_type = maker.pick((*OPERATORS, *schemas))
    else:
        node.domain = maker.pick(("nowhere", "ai.onnx.ml", "com.microsoft", "ai.onnx"))


def node_name(maker: Maker, model: onnx.ModelProto) -> None:
    _node(maker, model).name = maker.pick((*NAMES, model.graph.node[0].name))


def node_order(maker: Maker, model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))


def node_twice(maker: Maker, model: onnx.ModelProto) -> None:
    model.graph.node.append(_node(maker, model))


def node_lost(maker: Maker, model: onnx.ModelProto) -> None:
    _node(maker, model)
    del model.graph.node[maker.integer(0, len(model.graph.node) - 1)]


def port_shape(maker: Maker, model: onnx.ModelProto) -> None:
    shape = _port(maker, model).type.tensor_type.shape
    if shape.dim and maker.chance(70):
        dimension = maker.pick(shape.dim)
        if maker.chance(15):
            dimension.dim_param = maker.pick(("n", "", "batch size"))
        else:
            dimension.dim_value = maker.pick(LARGE)
    elif maker.chance(50):
        shape.dim.add(dim_value=maker.pick(LARGE))
    else:
        del shape.dim[:]


def port_type(maker: Maker, model: onnx.ModelProto) -> None:
    port = _port(maker, model)
    if maker.chance(80):
        port.type.tensor_type.elem_type = maker.integer(0, 30)
    elif maker.chance(50):
        port.ClearField("type")
    else:
        port.type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT


def port_name(maker: Maker, model: onnx.ModelProto) -> None:
    _port(maker, model).name = maker.pick(NAMES)


def port_twice(maker: Maker, model: onnx.ModelProto) -> None:
    ports = maker.pick((model.graph.input, model.graph.output))
    if not ports:
        raise Nothing
    ports.append(maker.pick(ports))


def port_lost(maker: Maker, model: onnx.ModelProto) -> None:
    ports = maker.pick((model.graph.input, model.graph.output))
    if not ports:
        raise Nothing
    del ports[maker.integer(0, len(ports) - 1)]


def constant_values(maker: Maker, model: onnx.ModelProto) -> None:
    """Odd numbers, where lists of sizes, axes and places are."""
    tensor = _constant(maker, model)
    array = numpy_helper.to_array(tensor)
    if array.dtype != np.int64 or not array.size:
        raise Nothing
    changed = array.copy().reshape(-1)
    changed[maker.integer(0, array.size - 1)] = maker.pick(LARGE)
    tensor.CopyFrom(numpy_helper.from_array(changed.reshape(array.shape), tensor.name))


def constant_length(maker: Maker, model: onnx.ModelProto) -> None:
    tensor = _constant(maker, model)
    array = numpy_helper.to_array(tensor)
    longer = np.resize(array, (maker.pick((0, 1, array.size + 1, 2 * array.size)),))
    tensor.CopyFrom(numpy_helper.from_array(longer, tensor.name))


def constant_type(maker: Maker, model: onnx.ModelProto) -> None:
    tensor = _constant(maker, model)
    if maker.chance(50):
        tensor.data_type = maker.integer(0, 30)
        return
    kind = maker.pick((np.float32, np.int32, np.int64, np.bool_, np.float64, np.uint8))
    with np.errstate(all="ignore"):
        array = numpy_helper.to_array(tensor).astype(kind)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def constant_data(maker: Maker, model: onnx.ModelProto) -> None:
    tensor = _constant(maker, model)
    if maker.chance(60):
        tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]
    elif maker.chance(50):
        tensor.raw_data = tensor.raw_data + b"abc"
    else:
        tensor.ClearField("raw_data")


def constant_shape(maker: Maker, model: onnx.ModelProto) -> None:
    tensor = _constant(maker, model)
    if tensor.dims and maker.chance(70):
        tensor.dims[maker.integer(0, len(tensor.dims) - 1)] = maker.pick(LARGE)
    else:
        tensor.dims.append(maker.pick(LARGE))


def constant_name(maker: Maker, model: onnx.ModelProto) -> None:
    _constant(maker, model).name = maker.pick(NAMES)


def constant_twice(maker: Maker, model: onnx.ModelProto) -> None:
    model.graph.initializer.append(_constant(maker, model))


def constant_outside(maker: Maker, model: onnx.ModelProto) -> None:
    tensor = _constant(maker, model)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    for key, value in (("location", maker.pick(("w.bin", "", "/etc/passwd"))), ("offset", "-5")):
        tensor.external_data.add(key=key, value=value)


def opset(maker: Maker, model: onnx.ModelProto) -> None:
    if maker.chance(70):
        model.opset_import[0].version = maker.pick((0, -1, 1, 6, 7, 9, 11, 13, 25, 99, 2**40))
    elif maker.chance(50):
        del model.opset_import[:]
    else:
        model.opset_import.append(helper.make_opsetid("", 7))


def version(maker: Maker, model: onnx.ModelProto) -> None:
    model.ir_version = maker.pick((0, -1, 1, 3, 99, 2**40))


def subgraph(maker: Maker, model: onnx.ModelProto) -> None:
    """A node that holds the whole graph."""
    node = _node(maker, model)
    inner = onnx.GraphProto()
    inner.CopyFrom(model.graph)
    node.attribute.append(helper.make_attribute(maker.pick(("body", "then_branch")), inner))


DAMAGES: tuple[Damage, ...] = (
    *(attribute_value, attribute_value, attribute_value, attribute_type, attribute_added),
    *(attribute_lost, attribute_name, input_lost, input_added, input_renamed, output_renamed),
    *(output_count, operator, node_name, node_order, node_twice, node_lost),
    *(port_shape, port_shape, port_type, port_name, port_twice, port_lost),
    *(constant_values, constant_values, constant_values, constant_length, constant_type),
    *(constant_data, constant_shape, constant_name, constant_twice, constant_outside),
    *(opset, version, subgraph),
)


def damaged(maker: Maker, model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """A damaged copy, and what was done to it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    done: list[str] = []
    wanted = 1 if maker.chance(80) else 2
    for _ in range(20):
        if len(done) == wanted:
            break
        damage = maker.pick(DAMAGES)
        try:
            damage(maker, copy)
        except (Nothing, TypeError, ValueError):  # or protobuf does not take it
            continue
        done.append(damage.__name__)
    return copy, " and ".join(done)
