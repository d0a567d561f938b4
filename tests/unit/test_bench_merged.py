"""The two ways to spell products of the same input compute the same."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from ramforge.compiler.device import find_target
from ramforge.runtime.bench.merged import Products, predicted_us

SMALL = (Products("gate", 6, (4, 4), is_gate=True), Products("three", 6, (4, 2, 2)))


def filled(model: onnx.ModelProto, weights: np.ndarray) -> onnx.ModelProto:
    """With columns of these in the place of zeros."""
    first = 0
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2:
            end = first + tensor.dims[1]
            values = np.ascontiguousarray(weights[:, first:end])
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            first = end
    return model


def test_both_compute_the_same() -> None:
    random = np.random.default_rng(3)
    x = random.standard_normal((3, 6)).astype(np.float32)
    for products in SMALL:
        weights = random.standard_normal((6, sum(products.widths))).astype(np.float32)
        one, other = (
            ReferenceEvaluator(filled(products.model(3, merged), weights)).run(None, {"x": x})
            for merged in (False, True)
        )
        for first, second in zip(one, other, strict=True):
            assert np.allclose(first, second, atol=1e-5)


def test_both_have_a_prediction() -> None:
    target = find_target("h200")
    assert all(predicted_us(SMALL[1], 3, merged, target) > 0 for merged in (False, True))
