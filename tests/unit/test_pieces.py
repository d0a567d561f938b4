"""On a core, columns are cut where a comparison changes its answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from ramforge.compiler.device import find_target
from ramforge.compiler.frontend import import_model
from ramforge.compiler.pipeline import compile_graph
from ramforge.runtime.gpu_cases import model_of
from tests.helpers import Case, check, ints, one

CONCAT = model_of(
    "g (float[5, 16] a, float[5, 24] b, float[5, 9] c) => (float[5, 49] y)"
    "{ j = Concat<axis=1>(a, b, c) y = Relu(j) }"
)
FEW = model_of(
    "g (float[64, 4] a, float[64, 5] b) => (float[64, 9] y) { y = Concat<axis=1>(a, b) }"
)


def text(model: onnx.ModelProto, target: str) -> str:
    program = compile_graph(import_model(model), find_target(target), "per-op")
    (operator,) = program.operators
    return operator.variant.body.text


def test_a_concatenation_is_a_copy_for_each_operand() -> None:
    found = text(CONCAT, "host:2")
    assert found.count("rf_tile_map<") == 3
    assert "?" not in found and "column <" not in found


@pytest.mark.parametrize(("model", "target"), [(FEW, "host:2"), (CONCAT, "h200")])
def test_short_pieces_and_threads_ask_for_each_column(model: onnx.ModelProto, target: str) -> None:
    found = text(model, target)
    assert found.count("rf_tile_map<") == 1 and "?" in found


def cases() -> list[Case]:
    x = np.arange(5 * 40, dtype=np.float32).reshape(5, 40)
    return [
        one("Concat", x, x[:, :16] + 500, x[:, :9] - 500, axis=-1),
        one("Concat", x, x[:2], axis=0),
        one("Pad", x, ints(0, 9, 0, 11)),
        one("Pad", x, ints(0, 9, 1, 0), mode="reflect"),
        one("Pad", x, ints(0, 9, 0, 11), mode="edge"),
        one("Trilu", x, upper=0),
    ]


def test_each_piece_has_its_own(tmp_path: Path) -> None:
    check(cases(), tmp_path)
