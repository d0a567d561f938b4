"""Random operators: the same numbers everywhere, spread as they should be, and none by accident."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import ramforge
from ramforge.compiler.errors import ShapeError, UnsupportedModel
from ramforge.kernels.operators.random_numbers import random_bits
from ramforge.runtime.session import Session
from tests.helpers import Array, Case, Known, check, model_of, numbers, one, run_both

SEED = 7.0
KEY = int(np.float64(SEED).view(np.uint64))
LOW, HIGH = np.array(False), np.array(True)


def uniform(*shape: int, seed: int = KEY, draw: int = 0, dtype: Any = np.float32) -> Array:
    """What the operators start from."""
    bits = random_bits(seed, np.arange(math.prod(shape)).reshape(shape), draw)
    if dtype is np.float64:
        return np.asarray((bits >> np.uint64(11)) * 2.0**-53)
    return np.asarray((bits >> np.uint64(40)) * 2.0**-24).astype(dtype)


def normal(*shape: int, dtype: Any = np.float32) -> Array:
    first, second = (uniform(*shape, draw=draw, dtype=dtype) for draw in (0, 1))
    return np.asarray(np.sqrt(-2 * np.log(1 - first)) * np.cos(2 * np.pi * second)).astype(dtype)


def node(op: str, x: Array | None = None, **attributes: Any) -> Case:
    return one(op, *([] if x is None else [x]), seed=SEED, **attributes)


def cases() -> list[Case]:
    chances, double = np.linspace(0, 1, 45, dtype=np.float32), np.linspace(0, 1, 6)
    x, wide = numbers(3, 1, 5), uniform(2, 9, dtype=np.float64)
    kept = uniform(3, 1, 5) >= 0.25
    doubled = uniform(40, dtype=np.float64)
    logarithms = numbers(2, 5)
    uniforms = np.minimum(1 - uniform(2, 8, 5, dtype=np.float64), 1 - 2.0**-53)
    scores = logarithms[:, None].astype(np.float64) - np.log(-np.log(uniforms))
    whole = np.asarray(KEY, np.uint64)
    assert whole == np.float64(SEED).view(np.uint64)
    return [
        node("RandomUniform", shape=[4, 3]).giving(uniform(4, 3)),
        node("RandomUniform", shape=[2, 9], dtype=TensorProto.DOUBLE, low=-3.0, high=5.0).giving(
            wide * 8 - 3
        ),
        node("RandomUniform", shape=[9], dtype=TensorProto.FLOAT16).giving(
            uniform(9).astype(np.float16)
        ),
        node("RandomUniformLike", x).giving(uniform(3, 1, 5)),
        node("RandomUniformLike", x.astype(np.int32), dtype=TensorProto.FLOAT, high=2.0).giving(
            uniform(3, 1, 5) * 2
        ),
        node("RandomNormal", shape=[70]).giving(normal(70)),
        node("RandomNormal", shape=[40], dtype=TensorProto.DOUBLE, mean=10.0, scale=0.5).giving(
            normal(40, dtype=np.float64) * 0.5 + 10
        ),
        node("RandomNormalLike", x, mean=-1.0).giving(normal(3, 1, 5) - 1),
        node("Bernoulli", chances).giving((uniform(45) < chances).astype(np.float32)),
        node("Bernoulli", double, dtype=TensorProto.INT32).giving(
            (uniform(6, dtype=np.float64) < double).astype(np.int32)
        ),
        node("Bernoulli", doubled.astype(np.float16), dtype=TensorProto.BOOL).giving(
            uniform(40) < doubled.astype(np.float16)
        ),
        node("Multinomial", logarithms, sample_size=8).giving(scores.argmax(2).astype(np.int32)),
        node("Multinomial", np.array([[-np.inf, 0, -np.inf]]), sample_size=3, dtype=7).giving(
            np.ones((1, 3), np.int64)
        ),
        one("Dropout", x, np.float32(0.25), HIGH, seed=7, outputs=2).giving(
            np.where(kept, x / 0.75, 0).astype(np.float32), kept
        ),
        one("Dropout", x, Known(np.float32(0.25)), Known(HIGH), seed=7).giving(
            np.where(kept, x / 0.75, 0).astype(np.float32)
        ),
        one("Dropout", x, None, Known(HIGH), seed=7, outputs=2).giving(
            np.where(uniform(3, 1, 5) >= 0.5, x * 2, 0), uniform(3, 1, 5) >= 0.5
        ),
        one("Dropout", x, np.float32(0.25), LOW, outputs=2).giving(x, np.ones_like(kept)),
        one("Dropout", x, np.float32(0), HIGH, seed=7, outputs=2).giving(x, np.ones_like(kept)),
        one("Dropout", x, np.float32(0), HIGH).giving(x),
        one("Dropout", x, outputs=2).giving(x, np.ones_like(kept)),
    ]


CASES = cases()


def test_numbers_of_a_seed_are_the_same_everywhere(tmp_path: Path) -> None:
    check(cases(), tmp_path)


def test_bits_are_those_of_the_published_generator() -> None:
    """The first words of Random123's known answers for philox4x32-10."""
    assert random_bits(0, 0, 0) == 0xE169C58D6627E8D5
    seed, place = 0x299F31D0A4093822, 0x85A308D3243F6A88
    answer = random_bits(seed, place, 0x13198A2E)
    assert answer != random_bits(seed, place, 0) != random_bits(seed + 1, place, 0)


def test_distributions(tmp_path: Path) -> None:
    count = 20000
    made = [
        node("RandomUniform", shape=[count]),
        node("RandomNormal", shape=[count]),
        node("Bernoulli", np.full(count, 0.3, np.float32)),
        node("Multinomial", np.log(np.array([[1, 2, 5]], np.float32)), sample_size=count),
    ]
    inputs = {f"c{n}_{name}": x for n, case in enumerate(made) for name, x in case.inputs.items()}
    found = run_both(model_of(made), inputs, tmp_path, ["host"])["host"]
    flat, bell, coins, classes = found
    assert np.histogram(flat, 10, (0, 1))[0] == pytest.approx(count / 10, rel=0.08)
    assert flat.min() >= 0 and flat.max() < 1
    assert bell.mean() == pytest.approx(0, abs=0.03) and bell.std() == pytest.approx(1, abs=0.03)
    assert (np.abs(bell) < 1).mean() == pytest.approx(0.6827, abs=0.015)
    assert coins.mean() == pytest.approx(0.3, abs=0.015)
    shares = np.bincount(classes[0], minlength=3) / count
    assert shares == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.015)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("op", ["RandomUniform", "RandomNormalLike", "Bernoulli", "Dropout"])
def test_without_a_seed_they_are_refused(op: str, seed: float | None, tmp_path: Path) -> None:
    x = numbers(3)
    attributes: dict[str, Any] = {} if op == "Dropout" else {"dtype": TensorProto.FLOAT}
    if seed is not None:
        attributes["seed"] = int(seed) if op == "Dropout" else float(seed)
    if op == "RandomUniform":
        case = one(op, shape=[3], **attributes)
    else:
        more = [Known(np.float32(0.5)), Known(HIGH)] if op == "Dropout" else []
        case = one(op, x, *more, **attributes)
    with pytest.raises(UnsupportedModel, match="set the attribute 'seed'"):
        ramforge.compile(model_of([case]), target="host", output=tmp_path / "out.cu")


def test_dropping_that_only_a_run_asks_for_needs_a_seed(tmp_path: Path) -> None:
    case = one("Dropout", numbers(3), np.float32(0.5), HIGH)
    model = model_of([case])
    artifact = ramforge.compile(model, target="host", output=tmp_path / "out.cu")
    feeds = {f"c0_{name}": value for name, value in case.inputs.items()}
    with Session(artifact, "host:1") as session:
        np.testing.assert_array_equal(
            session.run(None, {**feeds, "c0_x2": LOW})[0], case.inputs["x0"]
        )
        with pytest.raises(ShapeError, match="set the attribute 'seed'"):
            session.run(None, feeds)


def test_graph_without_inputs_is_only_its_numbers(tmp_path: Path) -> None:
    made = helper.make_node("RandomUniform", [], ["y"], shape=[2, 3], seed=SEED)
    case = Case("numbers", (made,), {}, ("y",)).giving(uniform(2, 3))
    check(case, tmp_path)
