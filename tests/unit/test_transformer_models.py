"""The zoo's transformers have the published sizes, and its twins agree with each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

from ramforge.zoo import ZOO
from ramforge.zoo.builder import Builder
from ramforge.zoo.gpt2 import gpt2

Array = NDArray[Any]

# As counted by those who published the weights; Llama's and GPT-2's projections are their tables.
PARAMETERS = {
    "vit_b16": 86_567_656,
    "bert_base": 109_482_240,
    "bert_large": 335_141_888,
    "gpt2": 124_439_808,
    "gpt2_decode": 124_439_808,
    "llama_decode": 1_235_814_400,
}


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, ...]]:
    """The shapes of all weights of a model that is then built, without their values."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(
        builder: Builder, name: str, shape: Sequence[int] | int, *rest: object, **named: object
    ) -> str:
        shapes[name] = (shape,) if isinstance(shape, int) else tuple(shape)
        return name

    for kind in ("weight", "bias", "spread"):
        monkeypatch.setattr(Builder, kind, note)
    monkeypatch.setattr(Builder, "taken", lambda builder, name: np.zeros((1, 1)))
    monkeypatch.setattr(Builder, "finish", lambda builder, outputs: None)
    return shapes


@pytest.mark.parametrize("name", PARAMETERS)
def test_there_are_as_many_parameters_as_published(
    name: str, sizes: dict[str, tuple[int, ...]]
) -> None:
    ZOO[name].full()
    assert sum(map(math.prod, sizes.values())) == PARAMETERS[name]


def run(model: onnx.ModelProto, feeds: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
    model.graph.output.extend(
        helper.make_empty_tensor_value_info(name)
        for name in names
        if name not in {value.name for value in model.graph.output}
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(output) for output in session.run(list(names), dict(feeds))]


def close(got: Array, wanted: Array) -> bool:
    return bool(np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max())


def test_a_step_with_a_cache_says_what_the_whole_text_says() -> None:
    layers, tokens = 2, 10
    small: dict[str, int] = {"width": 48, "heads": 3, "vocabulary": 61, "positions": 20}
    ids = np.random.default_rng(0).integers(0, 61, (1, tokens))
    # where each layer of the whole text has its keys and values
    parts = [(layer, part) for layer in range(layers) for part in ("key", "value")]
    inner = [f"/h.{layer}/attn/{part}/transpose_output_0" for layer, part in parts]
    whole = gpt2(layers=layers, tokens=tokens, **small)
    logits, *cache = run(whole, {"input_ids": ids}, ["logits", *inner])
    feeds = {"input_ids": ids[:, -1:], "position_ids": np.array([[tokens - 1]])}
    for (layer, part), values in zip(parts, cache, strict=True):
        feeds[f"past_key_values.{layer}.{part}"] = values[:, :, :-1]
    step = gpt2(layers=layers, tokens=1, past=tokens - 1, **small)
    presents = [f"present.{layer}.{part}" for layer, part in parts]
    last, *longer = run(step, feeds, ["logits", *presents])
    assert close(last[0, 0], logits[0, -1])
    assert all(map(close, longer, cache))


def test_the_operator_does_what_the_unrolled_cells_do() -> None:
    unrolled, operator = ZOO["lstm_tc"].small(), ZOO["lstm_tc_operator"].small()
    shape = [dim.dim_value for dim in operator.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    assert close(run(operator, feeds, ["h"])[0], run(unrolled, feeds, ["h"])[0])


@pytest.mark.parametrize(
    "name", ("vit_b16", "bert_base", "gpt2", "gpt2_decode", "llama_decode", "whisper_tiny")
)
def test_attention_picks_and_no_branch_vanishes(name: str) -> None:
    """The scores of a token spread by 1 to 3; a branch is at least a tenth of its trunk."""
    make: Callable[[], onnx.ModelProto] = ZOO[name].small
    model = make()
    nodes = {output: node for node in model.graph.node for output in node.output}
    scores = [node.input[0] for node in nodes.values() if node.op_type == "Softmax"]
    sums = [
        list(node.input)
        for node in nodes.values()
        if node.op_type == "Add"
        and all(name in nodes for name in node.input)
        and len(node.input) == 2
        and "/mask" not in node.name
    ]
    feeds = {}
    generator = np.random.default_rng(1)
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [dim.dim_value for dim in kind.shape.dim]
        if kind.elem_type == onnx.TensorProto.INT64:
            feeds[value.name] = generator.integers(0, 8, shape)
        else:
            feeds[value.name] = generator.standard_normal(shape).astype(np.float32)
    flat = [name for pair in sums for name in pair]
    found = run(model, feeds, list(dict.fromkeys([*scores, *flat])))
    values = dict(zip(dict.fromkeys([*scores, *flat]), found, strict=True))
    for name in scores:
        counted = np.where(values[name] > -1e30, values[name], np.nan)
        assert 1 < np.nanmean(np.nanstd(counted, axis=-1)) < 3, name
    for pair in sums:
        small, large = sorted(float(values[name].std()) for name in pair)
        assert small > 0.1 * large, pair
