"""One step of an LSTM (Hochreiter and Schmidhuber, 1997) from primitive operators."""

from __future__ import annotations

import onnx

from ramforge.zoo.builder import Builder


def lstm_cell(inputs: int = 64, hidden: int = 64, batch: int = 1) -> onnx.ModelProto:
    """(x, h, c) in, (h_next, c_next) out."""
    builder = Builder("lstm_cell", seed=4)
    x = builder.input("x", (batch, inputs))
    h = builder.input("h", (batch, hidden))
    c = builder.input("c", (batch, hidden))
    from_x = builder.weight("weight_x", (inputs, 4 * hidden), inputs)
    from_h = builder.weight("weight_h", (hidden, 4 * hidden), hidden)
    gates = builder.node(
        "Add",
        [
            builder.node("MatMul", [x, from_x], "/gates/x"),
            builder.node("MatMul", [h, from_h], "/gates/h"),
        ],
        "/gates/add",
    )
    gates = builder.node("Add", [gates, builder.bias("bias", 4 * hidden)], "/gates/bias")
    sizes = builder.constant("gate_sizes", [hidden] * 4)
    parts = builder.nodes(
        "Split",
        [gates, sizes],
        "/gates/split",
        [f"/gates/split_output_{i}" for i in range(4)],
        axis=1,
    )
    take, forget, out = (
        builder.node("Sigmoid", [part], f"/{name}/sigmoid")
        for name, part in zip(("input", "forget", "output"), parts, strict=False)
    )
    candidate = builder.node("Tanh", [parts[3]], "/candidate/tanh")
    kept = builder.node("Mul", [forget, c], "/forget/mul")
    added = builder.node("Mul", [take, candidate], "/input/mul")
    c_next = builder.node("Add", [kept, added], "/cell/add", "c_next")
    squashed = builder.node("Tanh", [c_next], "/cell/tanh")
    return builder.finish([builder.node("Mul", [out, squashed], "/output/mul", "h_next"), c_next])
