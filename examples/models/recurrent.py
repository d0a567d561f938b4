"""The paper's unrolled recurrent networks: LSTM-TC and Seq2Seq, each cell eight matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from ramforge.zoo.builder import Builder

_GATES = ("input", "forget", "cell", "output")
# What happens in an early step of a low layer is seen in the last state, and rounding errors are
# not: hidden states are about half as large as the input.
_GAIN_X, _GAIN_H = 2.0, 1.0


@dataclass(frozen=True, slots=True)
class Cell:
    """The weights of one layer, shared by all of its steps: for each gate, from x and from h."""

    name: str
    from_x: tuple[str, ...]
    from_h: tuple[str, ...]
    biases: tuple[str, ...]


def make_cell(builder: Builder, name: str, inputs: int, hidden: int, forget: float = 1.0) -> Cell:
    """``forget`` is the bias of the forget gates: the larger it is, the longer a state is known."""
    biases = {"forget": forget}
    return Cell(
        name,
        tuple(
            builder.weight(f"{name}/{g}/weight_x", (inputs, hidden), inputs, _GAIN_X)
            for g in _GATES
        ),
        tuple(
            builder.weight(f"{name}/{g}/weight_h", (hidden, hidden), hidden, _GAIN_H)
            for g in _GATES
        ),
        tuple(builder.bias(f"{name}/{g}/bias", hidden, biases.get(g, 0.0)) for g in _GATES),
    )


def step(builder: Builder, cell: Cell, number: int, x: str, h: str, c: str) -> tuple[str, str]:
    """One time step: (h, c) after it."""
    at = f"{cell.name}/{number}"
    gates = []
    for gate, from_x, from_h, bias in zip(
        _GATES, cell.from_x, cell.from_h, cell.biases, strict=True
    ):
        by_x = builder.node("MatMul", [x, from_x], f"{at}/{gate}/x")
        by_h = builder.node("MatMul", [h, from_h], f"{at}/{gate}/h")
        both = builder.node("Add", [by_x, by_h], f"{at}/{gate}/add")
        both = builder.node("Add", [both, bias], f"{at}/{gate}/bias")
        gates.append(builder.node("Tanh" if gate == "cell" else "Sigmoid", [both], f"{at}/{gate}"))
    take, forget, candidate, out = gates
    kept = builder.node("Mul", [forget, c], f"{at}/keep")
    added = builder.node("Mul", [take, candidate], f"{at}/take")
    c = builder.node("Add", [kept, added], f"{at}/state")
    squashed = builder.node("Tanh", [c], f"{at}/squash")
    return builder.node("Mul", [out, squashed], f"{at}/hidden"), c


def forget_bias(layer: int) -> float:
    """Of LSTM-TC, of which only the last state comes out: low layers hand on quickly what is new,
    high ones know for a hundred steps what was. All of them at 2.0 would tell of rounding errors.
    """
    return 0.8 + 1.4 * layer / 9


def lstm_tc(
    layers: int = 10, steps: int = 100, hidden: int = 256, batch: int = 1
) -> onnx.ModelProto:
    """LSTM-TC: all layers unrolled over all steps; the last layer's last state comes out."""
    builder = Builder("lstm_tc", seed=10)
    sequence = _steps_of_input(builder, steps, batch, hidden)
    zero = zero_state(builder, batch, hidden)
    for layer in range(layers):
        cell = make_cell(builder, f"/layer{layer}", hidden, hidden, forget_bias(layer))
        sequence, _ = unroll(builder, cell, sequence, (zero, zero))
    return builder.finish([builder.node("Identity", [sequence[-1]], "/last", "h")])


def lstm_tc_small() -> onnx.ModelProto:
    return lstm_tc(layers=2, steps=5, hidden=32)


def seq2seq(
    encoder_layers: int = 8,
    encoder_steps: int = 100,
    decoder_layers: int = 4,
    decoder_steps: int = 30,
    hidden: int = 128,
) -> onnx.ModelProto:
    """An encoder whose last layers' final states start the decoder, which feeds itself."""
    builder = Builder("seq2seq", seed=2)
    sequence = _steps_of_input(builder, encoder_steps, 1, hidden)
    zero = zero_state(builder, 1, hidden)
    states = []
    for layer in range(encoder_layers):
        cell = make_cell(builder, f"/encoder{layer}", hidden, hidden)
        sequence, state = unroll(builder, cell, sequence, (zero, zero))
        states.append(state)
    cells = [make_cell(builder, f"/decoder{i}", hidden, hidden) for i in range(decoder_layers)]
    states = states[-decoder_layers:]
    word, words = sequence[-1], []
    for number in range(decoder_steps):
        for layer, cell in enumerate(cells):
            states[layer] = step(builder, cell, number, word, *states[layer])
            word = states[layer][0]
        words.append(word)
    return builder.finish([builder.node("Concat", words, "/words", "decoded", axis=0)])


def seq2seq_small() -> onnx.ModelProto:
    return seq2seq(2, 4, 2, 3, 32)


def _steps_of_input(builder: Builder, steps: int, batch: int, width: int) -> list[str]:
    """The input (steps * batch, width), a name for each step."""
    x = builder.input("x", (steps * batch, width))
    sizes = builder.constant("step_sizes", [batch] * steps)
    return list(
        builder.nodes("Split", [x, sizes], "/split", [f"x_{i}" for i in range(steps)], axis=0)
    )


def zero_state(builder: Builder, batch: int, hidden: int) -> str:
    import numpy as np

    return builder.constant("zero_state", np.zeros((batch, hidden), dtype=np.float32))


def unroll(
    builder: Builder, cell: Cell, sequence: list[str], state: tuple[str, str]
) -> tuple[list[str], tuple[str, str]]:
    outputs = []
    for number, x in enumerate(sequence):
        state = step(builder, cell, number, x, *state)
        outputs.append(state[0])
    return outputs, state
