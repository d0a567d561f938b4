"""The example networks are valid, run in ONNX Runtime, and their outputs would show a mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from examples.models import MODELS
from examples.models.encoder import VOCABULARY

Array = NDArray[Any]

LARGE = ("resnet18", "encoder")
SMALL = tuple(name for name in MODELS if name not in LARGE)
# Adding the same to every key, or this much to every score of a row, cannot change a softmax.
WITHOUT_EFFECT = ("/attention/key.bias", "ratio")


def feeds_of(model: onnx.ModelProto, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [dimension.dim_value or 3 for dimension in kind.shape.dim]
        if kind.elem_type == onnx.TensorProto.INT64:
            feeds[value.name] = random.integers(0, VOCABULARY, shape)
        else:
            feeds[value.name] = random.standard_normal(shape).astype(np.float32)
    return feeds


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(output) for output in session.run(None, dict(feeds))]


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_valid_and_the_same_each_time(name: str) -> None:
    model = MODELS[name]()
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString() == MODELS[name]().SerializeToString()
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names) and all(names)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_finite_spread_out_and_depend_on_the_input(name: str) -> None:
    model = MODELS[name]()
    outputs = run(model, feeds_of(model))
    others = run(model, feeds_of(model, seed=1))
    for output, other in zip(outputs, others, strict=True):
        assert np.isfinite(output).all()
        assert 0.02 < output.std() < 50
        # Two hundred tolerances; white noise loses much of its character in an average pool.
        assert np.abs(output - other).max() > 0.02 * np.abs(output).max()


@pytest.mark.parametrize("name", SMALL)
def test_no_weight_can_be_lost_unnoticed(name: str) -> None:
    model = MODELS[name]()
    feeds = feeds_of(model)
    right = run(model, feeds)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.size < 2 or value.dtype != np.float32 or tensor.name.endswith(WITHOUT_EFFECT):
            continue
        kept = onnx.TensorProto()
        kept.CopyFrom(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(value), tensor.name))
        wrong = run(model, feeds)
        tensor.CopyFrom(kept)
        # Ten times the tolerance at which results are compared.
        changed = [
            np.abs(a - b).max() > 1e-3 * np.abs(a).max() for a, b in zip(right, wrong, strict=True)
        ]
        assert any(changed), tensor.name


def test_attention_is_far_from_uniform() -> None:
    model = MODELS["encoder_small"]()
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(softmax.output[0]))
    shares = run(model, feeds_of(model))[-1]
    assert shares.max(axis=-1).mean() > 3 / shares.shape[-1]


def test_the_batch_of_the_mlp_is_open() -> None:
    model = MODELS["mlp"]()
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert run(model, {"x": np.ones((5, 64), np.float32)})[0].shape == (5, 10)
