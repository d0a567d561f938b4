"""What lowering adds to the candidates of a family."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.compiler.device import Target, find_target
from ramforge.compiler.frontend import import_model
from ramforge.compiler.lower import lower
from ramforge.compiler.pipeline import optimise


def from_memory(readers: int, target: Target) -> list[float]:
    """Bytes of weights that the first candidate of each product takes from memory, in all."""
    steps = " ".join(f"h{i + 1} = MatMul(h{i}, w) " for i in range(readers))
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        f"g (float[64, 128] h0) => (float[64, 128] h{readers}) {{ {steps} }}"
    )
    weight = np.eye(128, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    found = lower(optimise(import_model(model)), target).candidates
    for candidates in found:
        assert candidates[0].make().cost == candidates[0].cost
    return [each[0].tasks * each[0].cost.constant_bytes for each in found]


def test_weights_that_several_nodes_read_come_from_memory_once() -> None:
    target = find_target("h200")
    (alone,) = from_memory(1, target)
    assert alone == 4 * 128 * 128
    assert from_memory(4, target) == [alone / 4] * 4


def test_weights_that_do_not_stay_in_l2_come_each_time() -> None:
    target = replace(find_target("h200"), l2_bytes=1 << 15)
    assert from_memory(4, target) == from_memory(1, target) * 4
