"""The weights file: safetensors that anyone can read, aligned, the same bytes each time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from program_support import optimised, planned_model
from safetensors.numpy import load_file

from ramforge.codegen import weights
from ramforge.compiler import pipeline
from ramforge.compiler.ir import Array
from ramforge.compiler.memory import plan_memory

TYPES = ("float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8", "uint64")


def written(path: Path, arrays: dict[str, Array]) -> weights.Weights:
    offsets, end = {}, 0
    for name, array in arrays.items():
        offsets[name] = end
        end += -(-array.nbytes // 64) * 64
    made = weights.gather(arrays, offsets, end)
    with path.open("wb") as file:
        weights.write(made, file)
    return made


def assert_right(path: Path, made: weights.Weights) -> None:
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    assert start % 64 == 0 and len(raw) == start + made.nbytes
    assert json.loads(raw[8:start])["__metadata__"] == {"ramforge": made.digest}
    found = load_file(path)
    assert {name for name in found if not name.startswith(weights.PADDING)} == set(made.arrays)
    for name, array in made.arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
        offset = start + made.offsets[name]
        assert offset % 64 == 0
        assert raw[offset : offset + array.nbytes] == array.tobytes()


shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(TYPES), shapes), max_size=6))
def test_the_file_reads_back_and_its_data_is_aligned(
    tmp_path_factory: object, kinds: list[tuple[str, tuple[int, ...]]]
) -> None:
    random = np.random.default_rng(1)
    arrays = {
        f"w{number}": random.integers(0, 2, shape).astype(kind)
        for number, (kind, shape) in enumerate(kinds)
    }
    path = Path(tmp_path_factory.getbasetemp()) / "any.safetensors"  # type: ignore[attr-defined]
    assert_right(path, written(path, arrays))


def test_names_of_any_alphabet_and_arrays_in_any_order_are_kept(tmp_path: Path) -> None:
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    arrays: dict[str, Array] = {
        'quo"te\\': turned,
        "名前": np.array(3, np.float32),
        "/a.b": turned[::2],
    }
    made = written(tmp_path / "w.safetensors", arrays)
    found = load_file(tmp_path / "w.safetensors")
    for name, array in made.arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_the_weights_of_a_model_lie_where_its_program_looks_for_them(tmp_path: Path) -> None:
    made = planned_model("resnet_small", "waves", 4)
    arrays = pipeline._weights(optimised("resnet_small"), made.operators)
    sizes = {name: array.nbytes for name, array in arrays.items()}
    placed = plan_memory(made.graph, made.operators, made.plan.steps, sizes)
    gathered = weights.gather(arrays, placed.weight_offsets, placed.weight_bytes)
    path = tmp_path / "resnet.safetensors"
    with path.open("wb") as file:
        weights.write(gathered, file)
    assert_right(path, gathered)
    for name, offset in placed.weight_offsets.items():
        assert placed.places[name].offset == offset


def test_bytes_are_the_same_each_time_and_the_digest_tells_contents_apart(tmp_path: Path) -> None:
    arrays: dict[str, Array] = {"a": np.arange(5, dtype=np.int8), "b": np.ones((2, 3), np.float32)}
    digests = {written(tmp_path / f"{number}", arrays).digest for number in range(2)}
    files = [hashlib.sha256((tmp_path / f"{number}").read_bytes()) for number in range(2)]
    assert len(digests) == 1 and files[0].digest() == files[1].digest()
    others: tuple[dict[str, Array], ...] = (
        {"a": arrays["a"], "b": arrays["b"] + 1},
        {"b": arrays["b"], "a": arrays["a"]},
        {"a": arrays["a"], "c": arrays["b"]},
        {"a": arrays["a"], "b": arrays["b"].T},
        {"a": arrays["a"].astype(np.uint8), "b": arrays["b"]},
    )
    for number, other in enumerate(others):
        digests.add(written(tmp_path / f"other{number}", other).digest)
    assert len(digests) == 1 + len(others)
