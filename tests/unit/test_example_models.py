"""The example networks are valid, run in ONNX Runtime, and their outputs would show a mistake."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from ramforge.zoo import MODELS, ZOO
from ramforge.zoo.builder import Builder
from ramforge.zoo.encoder import VOCABULARY, encoder, encoder_base
from ramforge.zoo.mobilenext import mobilenext_small
from ramforge.zoo.quantise import quantised
from ramforge.zoo.resnet import resnet_small

Array = NDArray[Any]

# The bottlenecks beside those that other tests run as well.
ALL = {
    **MODELS,
    "resnet50": ZOO["resnet50"].full,
    "resnet50_small": ZOO["resnet50"].small,
}
LARGE = ("resnet18", "resnet50", "encoder")
SMALL = tuple(name for name in ALL if name not in LARGE)
# Adding the same to every key, or this much to every score of a row, cannot change a softmax.
WITHOUT_EFFECT = ("/attention/key.bias", "ratio")


@cache
def made(name: str) -> onnx.ModelProto:
    return ALL[name]()


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


@pytest.mark.parametrize("name", ALL)
def test_the_model_is_valid_and_the_same_each_time(name: str) -> None:
    model = made(name)
    onnx.checker.check_model(model, full_check=True)
    assert model.SerializeToString() == ALL[name]().SerializeToString()
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names) and all(names)


@pytest.mark.parametrize("name", ALL)
def test_outputs_are_finite_spread_out_and_depend_on_the_input(name: str) -> None:
    model = made(name)
    outputs = run(model, feeds_of(model))
    others = run(model, feeds_of(model, seed=1))
    for output, other in zip(outputs, others, strict=True):
        assert np.isfinite(output).all()
        assert 0.02 < output.std() < 50
        # Two hundred tolerances; white noise loses much of its character in an average pool.
        assert np.abs(output - other).max() > 0.02 * np.abs(output).max()


@pytest.mark.parametrize("name", SMALL)
def test_no_weight_can_be_lost_unnoticed(name: str) -> None:
    model = ALL[name]()
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


def counted(model: onnx.ModelProto) -> tuple[int, int]:
    """The multiplications of its convolutions and products with weights, and all its weights."""
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    weights = sum(math.prod(dims) for dims in sizes.values())
    for value in (*graph.value_info, *graph.input, *graph.output):
        sizes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    multiplications = 0
    for node in graph.node:
        positions = math.prod(sizes[node.output[0]])
        if node.op_type == "Conv":
            multiplications += positions * math.prod(sizes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            multiplications += positions * sizes[node.input[0]][-1]
    return multiplications, weights


def test_resnet50_has_the_published_size() -> None:
    """3.8 billion multiplications (He et al., table 1) and 25.6 million weights."""
    multiplications, weights = counted(made("resnet50"))
    assert multiplications == pytest.approx(3.8e9, rel=0.02)
    assert weights == pytest.approx(25.6e6, rel=0.01)


def test_encoder_base_has_the_layers_of_bert_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer has 4 x 768 x 768 weights of attention and 2 x 4 x 768 x 768 behind it."""

    # all twelve would take ten seconds and half a gigabyte
    def one_layer(layers: int, **sizes: int) -> onnx.ModelProto:
        return encoder(layers=layers // 12, **sizes)

    monkeypatch.setitem(encoder_base.__globals__, "encoder", one_layer)
    multiplications, weights = counted(encoder_base())
    tokens, width = 128, 768
    tables = (VOCABULARY + tokens) * width
    assert weights - tables == pytest.approx(12 * width**2, rel=0.01)
    assert multiplications == 12 * tokens * width**2 + 2 * tokens * tokens * width


# weights, and multiplications of an image, as their papers give them
PUBLISHED = {
    "mobilenet_v2": (3.4e6, 300e6),
    "mobilenext": (3.4e6, 300e6),
    "efficientnet_b0": (5.3e6, 0.39e9),
    "nasnet_mobile": (5.3e6, 564e6),
    "convnext_tiny": (28.6e6, 4.5e9),
    "resnext101": (83.6e6, 15.5e9),
    "resnext29_grouped": (68.1e6, None),
    "unet": (31.0e6, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_convolutional_networks_have_the_published_size(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zeros(self: Builder, name: str, shape: Sequence[int], *_: object, **__: object) -> str:
        return self.constant(name, np.zeros(tuple(shape), np.float32))

    monkeypatch.setattr(Builder, "weight", zeros)  # random numbers would take most of the time
    multiplications, weights = counted(ZOO[name].full())
    expected_weights, expected_multiplications = PUBLISHED[name]
    assert weights == pytest.approx(expected_weights, rel=0.05)
    if expected_multiplications is not None:
        assert multiplications == pytest.approx(expected_multiplications, rel=0.02)


def test_half_of_the_channels_of_mobilenext_can_pass_by_its_shortcuts() -> None:
    whole, half = mobilenext_small(), mobilenext_small(joined=0.5)
    feeds = feeds_of(whole)
    joined = next(node for node in half.graph.node if node.op_type == "Add").output[0]
    half.graph.output.append(onnx.helper.make_empty_tensor_value_info(joined))
    logits, first = run(half, feeds)
    assert first.shape == (1, 18, 7, 7)
    assert np.abs(logits - run(whole, feeds)[0]).max() > 1e-3 * np.abs(logits).max()


def test_the_non_local_block_looks_at_some_positions_more_than_at_others() -> None:
    model = ZOO["resnet50_dnl"].small()
    softmax = [node for node in model.graph.node if node.op_type == "Softmax"]
    assert len(softmax) == 2
    for node in softmax:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.output[0]))
    for shares in run(model, feeds_of(model))[1:]:
        assert shares.max(axis=-1).mean() > 3 / shares.shape[-1]


def test_the_quantised_network_is_near_the_float_one() -> None:
    model = resnet_small(image=28)
    feeds = feeds_of(model)
    exact = run(model, feeds)[0]
    rounded = ReferenceEvaluator(quantised(model, "int8", seed=1)).run(None, feeds)[0]
    difference = np.abs(rounded - exact).max()
    assert 0 < difference < 0.1 * np.abs(exact).max()


def test_scales_are_by_channel_and_zero_points_of_activations_are_not_zero() -> None:
    model = ZOO["resnet18_int8"].small()
    values = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    by_type: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        by_type.setdefault(node.op_type, []).append(node)
    for node in by_type["DequantizeLinear"]:
        if node.input[0] in values:
            assert np.unique(values[node.input[1]]).size > 1 and not values[node.input[2]].any()
    zeros = [values[node.input[2]] for node in by_type["QuantizeLinear"]]
    assert {zero.dtype for zero in zeros} == {np.dtype(np.int8)}
    assert np.mean([zero != 0 for zero in zeros]) > 0.9
