"""The twin of LSTM-TC: the same layers with the same weights, each one LSTM operator."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from ramforge.zoo.builder import Builder
from ramforge.zoo.recurrent import Cell, forget_bias, make_cell

# The operator's order of gates, as places in ours: input, output, forget, cell.
_ORDER = (0, 3, 1, 2)


def lstm_tc_operator(
    layers: int = 10, steps: int = 100, hidden: int = 256, batch: int = 1
) -> onnx.ModelProto:
    """The last layer's last state, as of ``lstm_tc``."""
    builder = Builder("lstm_tc_operator", seed=10)
    x = builder.input("x", (steps * batch, hidden))
    x = builder.node("Reshape", [x, builder.constant("times", [steps, batch, hidden])], "/reshape")
    state = ""
    for layer in range(layers):
        name = f"/layer{layer}"
        weights = _stacked(builder, make_cell(builder, name, hidden, hidden, forget_bias(layer)))
        outputs = (f"{name}/all", f"{name}/last")
        x, state = builder.nodes("LSTM", [x, *weights], name, outputs, hidden_size=hidden)
        # of the directions, of which there is one
        axis = builder.constant("directions", [1])
        x = builder.node("Squeeze", [x, axis], f"{name}/squeeze")
    axis = builder.constant("direction", [0])
    return builder.finish([builder.node("Squeeze", [state, axis], "/last", "h")])


def lstm_tc_operator_small() -> onnx.ModelProto:
    return lstm_tc_operator(layers=2, steps=5, hidden=32)


def _stacked(builder: Builder, cell: Cell) -> tuple[str, str, str]:
    """The weights of all gates as the operator has them, one tensor for x and one for h."""

    def joined(names: tuple[str, ...]) -> NDArray[np.float32]:
        parts = [builder.taken(names[place]).T for place in _ORDER]
        return np.concatenate(parts)[None].astype(np.float32)

    bias = joined(cell.biases)
    both = np.concatenate([bias, np.zeros_like(bias)], axis=1)  # that of h is in that of x
    return (
        builder.constant(f"{cell.name}/W", joined(cell.from_x)),
        builder.constant(f"{cell.name}/R", joined(cell.from_h)),
        builder.constant(f"{cell.name}/B", both),
    )
