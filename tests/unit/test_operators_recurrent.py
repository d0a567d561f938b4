"""LSTM, GRU and RNN: directions, lengths, states, peepholes, activations, layouts, outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ramforge.compiler.errors import CompileError
from ramforge.compiler.frontend import import_model
from tests.helpers import Array, Case, Known, check, expected_of, model_of, numbers, one

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
SLOTS = ("x", "w", "r", "b", "lengths", "h", "c", "p")


def operands(op: str, both: bool = False, time: int = 3, batch: int = 2) -> dict[str, Any]:
    """Every operand that the operator can have, by name."""
    inner, hidden, directions = 3, 5, 1 + both
    width = GATES[op] * hidden
    state = (directions, batch, hidden)
    made = {
        "x": numbers(time, batch, inner),
        "w": numbers(directions, width, inner, seed=1),
        "r": numbers(directions, width, hidden, seed=2) * np.float32(0.5),
        "b": numbers(directions, 2 * width, seed=3),
        "lengths": np.arange(batch, dtype=np.int32) % time + 1,
        "h": numbers(*state, seed=4),
    }
    if op == "LSTM":
        made["c"] = numbers(*state, seed=5)
        made["p"] = numbers(directions, 3 * hidden, seed=6)
    return made


def layer(op: str, *names: str, both: bool = False, **attributes: Any) -> Case:
    """A case with these optional operands, and all outputs."""
    known = operands(op, both)
    if both:
        attributes["direction"] = "bidirectional"
    listed = [known.get(name) if name in ("x", "w", "r", *names) else None for name in SLOTS]
    while listed[-1] is None:
        listed.pop()
    outputs = 3 if op == "LSTM" else 2
    return one(op, *listed, outputs=outputs, hidden_size=5, **attributes)


def lstm_cases() -> list[Case]:
    everything = ("b", "lengths", "h", "c", "p")
    six = ["HardSigmoid", "Softsign", "Relu", "Affine", "LeakyRelu", "ScaledTanh"]
    return [
        layer("LSTM"),
        layer("LSTM", "b", "p"),
        layer("LSTM", "c", direction="reverse"),
        layer("LSTM", *everything, both=True),
        layer("LSTM", *everything, direction="reverse", clip=0.7),
        layer("LSTM", "h", "c", input_forget=1),
        layer(
            "LSTM",
            *everything,
            both=True,
            activations=six,
            activation_alpha=[0.3, 0.8, 0.05, 1.2],
            activation_beta=[0.4, 0.1, 0.7],
        ),
    ]


def gru_cases() -> list[Case]:
    return [
        layer("GRU"),
        layer("GRU", "b", linear_before_reset=1),
        layer("GRU", "b", "lengths", "h", both=True),
        layer("GRU", "b", "lengths", "h", both=True, linear_before_reset=1),
        layer("GRU", "h", direction="reverse", clip=0.5),
        layer("GRU", "b", activations=["Softplus", "ThresholdedRelu"], activation_alpha=[0.2]),
    ]


def rnn_cases() -> list[Case]:
    return [
        layer("RNN"),
        layer("RNN", "b", "lengths", "h", both=True, activations=["Elu", "Sigmoid"]),
        layer("RNN", "b", direction="reverse", activations=["Relu"], clip=0.9),
        layer("RNN", "b", activations=["HardSigmoid"]),
    ]


@pytest.mark.parametrize("cases", [lstm_cases, gru_cases, rnn_cases])
def test_every_operand_and_attribute(cases: Callable[[], list[Case]], tmp_path: Path) -> None:
    check(cases(), tmp_path)


def batch_first(case: Case) -> Case:
    """The same with the batch as the first axis; what it gives is moved likewise."""
    inputs = {
        name: np.swapaxes(value, 0, 1) if name in ("x0", "x5", "x6") else value
        for name, value in case.inputs.items()
    }
    return Case(case.name, case.nodes, inputs, case.outputs)


def test_layout_1_only_moves_axes(tmp_path: Path) -> None:
    cases = []
    for op in GATES:
        names = ("b", "lengths", "h", "c")
        y, *last = expected_of(layer(op, *names, both=True))
        wanted: list[Array] = [y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in last)]
        cases.append(batch_first(layer(op, *names, both=True, layout=1)).giving(*wanted))
    check(cases, tmp_path)


def long_case() -> Case:
    known = operands("RNN", time=18, batch=1)
    return one("RNN", known["x"], Known(known["w"]), Known(known["r"]), outputs=2, hidden_size=5)


def last_cell_case() -> Case:
    every = layer("LSTM", "b")
    node = onnx.NodeProto()
    node.CopyFrom(every.nodes[0])
    node.output[0] = node.output[1] = ""
    wanted = expected_of(every)[2]
    return Case("only Y_c", (node,), every.inputs, ("y2",)).giving(wanted)


def empty_case() -> Case:
    known = operands("LSTM")
    case = one(
        "LSTM",
        known["x"][:0],
        *(known["w"], known["r"], None, None, known["h"]),
        outputs=3,
        hidden_size=5,
    )
    zeros = np.zeros_like(known["h"])
    return case.giving(np.zeros((0, 1, 2, 5), np.float32), known["h"], zeros)


def typed_case(dtype: Any, tolerance: float) -> Case:
    """As float32 says, within what the type can hold."""
    case = layer("LSTM", "b", "h", "c", "p")
    inputs = {name: value.astype(dtype) for name, value in case.inputs.items()}
    same = replace(case, name=f"LSTM {dtype.__name__}", inputs=inputs, tolerance=tolerance)
    return same.giving(*(value.astype(dtype) for value in expected_of(case)))


def test_long_and_empty_sequences_absent_outputs_and_other_types(tmp_path: Path) -> None:
    cases = [long_case(), last_cell_case(), empty_case()]
    check([*cases, typed_case(np.float16, 1e-2), typed_case(np.float64, 1e-6)], tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activations": ["Sigmoid", "Wave", "Tanh"]}, "'wave'"),
        ({"activations": ["Sigmoid", "Tanh"]}, "2 activations"),
        ({"activations": ["Sigmoid", "ScaledTanh", "Tanh"]}, "ScaledTanh"),
        ({"activation_alpha": [0.5]}, "activation_alpha"),
        ({"layout": 2}, "layout"),
    ],
)
def test_bad_attributes_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CompileError, match=words):
        import_model(model_of([layer("LSTM", **change)]))


def test_weights_of_other_sizes_are_refused() -> None:
    known = operands("GRU")
    for name, value in (
        ("w", numbers(1, 15, 4)),
        ("r", numbers(1, 12, 5)),
        ("h", numbers(1, 3, 5)),
    ):
        bad = {**known, name: value}
        case = one("GRU", *(bad.get(slot) for slot in SLOTS[:6]), outputs=2, hidden_size=5)
        with pytest.raises(CompileError, match="has the shape"):
            import_model(model_of([case]))
