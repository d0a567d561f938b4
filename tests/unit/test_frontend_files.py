"""Files that are missing, damaged, incomplete or elsewhere: each with its error and fix."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from frontend_support import ALL_OPERATORS, have, one_node, parse, random_inputs, run_ort, to_model
from onnx import helper, numpy_helper

from ramforge.compiler.errors import EXIT_ENVIRONMENT, EXIT_MODEL, ArtifactError, InvalidModel
from ramforge.compiler.frontend import import_model

TEXT = "g (float[2,8] x) => (float[2,8] y) { y = Relu(x) }"


@pytest.fixture(autouse=True)
def _all_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, ALL_OPERATORS)


def weighted() -> onnx.ModelProto:
    """Two large constants, a small one and a large Constant node."""
    generator = np.random.default_rng(0)
    model = parse(
        "g (float[2,64] x) => (float[2,64] y) "
        "{ a = MatMul(x, w) b = Add(a, c) d = Mul(b, k) y = MatMul(d, v) }"
    )
    for name, shape in (("w", (64, 64)), ("c", (64,)), ("v", (64, 64))):
        array = generator.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    large = numpy_helper.from_array(generator.standard_normal((2, 64, 64)).astype(np.float32))
    scale = numpy_helper.from_array(generator.standard_normal((1, 64)).astype(np.float32))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], value=scale))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=large))
    return model


def save_external(model: onnx.ModelProto, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    onnx.save(
        onnx.ModelProto.FromString(model.SerializeToString()),
        path,
        save_as_external_data=True,
        location="model.data",
        size_threshold=100,
    )
    return path


def test_external_data_is_mapped_and_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = weighted()
    path = save_external(model, tmp_path / "models")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for given in (path, str(path), os.path.relpath(path)):
        graph = import_model(given)
        assert set(graph.constants) == {"w", "c", "k", "v"}
        feeds = random_inputs(graph)
        found, expected = run_ort(to_model(graph), feeds), run_ort(model, feeds)
        np.testing.assert_array_equal(found[0], expected[0])
    base = graph.constants["w"]
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
    assert graph.name == "model"


def test_a_model_in_memory_is_not_changed() -> None:
    model = weighted()
    before = model.SerializeToString()
    import_model(model)
    assert model.SerializeToString() == before


def test_constants_equal_those_of_the_model() -> None:
    model = weighted()
    graph = import_model(model)
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(graph.constants[tensor.name], numpy_helper.to_array(tensor))


def test_models_over_two_gigabytes_are_read_without_reading_the_data(tmp_path: Path) -> None:
    model = parse("g (float[1,1000] x) => (float[1,1000] y) { a = MatMul(x, w) y = MatMul(a, v) }")
    for index, name in enumerate(("w", "v")):
        tensor = model.graph.initializer.add(name=name, data_type=onnx.TensorProto.FLOAT)
        tensor.dims.extend((1000, 400000) if name == "w" else (400000, 1000))
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "w.bin"), ("offset", str(index * 1_600_000_000))):
            tensor.external_data.add(key=key, value=value)
    path = tmp_path / "large.onnx"
    path.write_bytes(model.SerializeToString())
    with (tmp_path / "w.bin").open("wb") as data:
        data.truncate(3_200_000_000)
    graph = import_model(path)
    assert graph.constants["v"].shape == (400000, 1000)
    assert graph.tensor("a").shape == (1, 400000)


def test_the_default_domain_may_be_spelt_out() -> None:
    model = parse(TEXT, 17)
    model.opset_import[0].domain = model.graph.node[0].domain = "ai.onnx"
    assert [node.op for node in import_model(model).nodes] == ["Relu"]


def test_an_old_domain_may_be_imported_twice() -> None:
    """As onnx.compose.merge_models does it."""
    model = one_node("ReduceMean", 13, axes=[0])
    model.opset_import.add().CopyFrom(model.opset_import[0])
    assert [node.op for node in import_model(model).nodes] == ["ReduceMean"]


def test_all_missing_external_tensors_are_in_one_message(tmp_path: Path) -> None:
    path = save_external(weighted(), tmp_path / "models")
    (path.parent / "model.data").unlink()
    with pytest.raises(InvalidModel) as caught:
        import_model(path)
    message = str(caught.value)
    assert caught.value.exit_code == EXIT_MODEL
    for name in ("'w'", "'c'", "'v'", str(path.parent / "model.data"), "fix: keep the data file"):
        assert name in message


def test_external_data_that_is_too_short_says_how_long_it_is(tmp_path: Path) -> None:
    path = save_external(weighted(), tmp_path / "models")
    data = path.parent / "model.data"
    data.write_bytes(data.read_bytes()[:10000])
    with pytest.raises(InvalidModel, match="has 10000 bytes, expected at least"):
        import_model(path)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.data", ""])
def test_external_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    path = save_external(weighted(), tmp_path / "models")
    (tmp_path / "secret.data").write_bytes(bytes(1 << 20))
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModel, match=r"'w'.*is not a path inside the model's folder"):
        import_model(path)


def test_external_data_of_a_model_in_memory_asks_for_the_path(tmp_path: Path) -> None:
    path = save_external(weighted(), tmp_path / "models")
    with pytest.raises(InvalidModel, match=r"(?s)in memory has no folder.*fix: give the path"):
        import_model(onnx.load(path, load_external_data=False))


def test_a_missing_path_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"(?s)nothing.onnx: no such file.*fix: ") as caught:
        import_model(tmp_path / "nothing.onnx")
    assert caught.value.exit_code == EXIT_ENVIRONMENT


def test_a_folder_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="found a folder") as caught:
        import_model(tmp_path)
    assert caught.value.exit_code == EXIT_ENVIRONMENT


DAMAGED = {
    "empty": (b"", "the file is empty"),
    "text": (b"# my notes\nthis is no model, it is text\n", "looks like text"),
    "zip": (b"PK\x03\x04" + bytes(range(256)), "zip archive or a PyTorch checkpoint"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "noise": (bytes(range(255, 0, -1)), "cannot decode"),
    "cut": (parse(TEXT).SerializeToString()[:-9], "ONNX model"),
    "graphless": (onnx.ModelProto(ir_version=8).SerializeToString(), "found no graph"),
    "other-protobuf": (
        helper.make_tensor("t", onnx.TensorProto.FLOAT, [1], [1]).SerializeToString(),
        "ONNX model",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_no_model_is_refused_with_a_fix(case: str, tmp_path: Path) -> None:
    data, words = DAMAGED[case]
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidModel) as caught:
        import_model(path)
    message = str(caught.value)
    assert caught.value.exit_code == EXIT_MODEL
    assert words in message and "fix: " in message and len(message.splitlines()) < 10


@pytest.mark.parametrize("keep", [0.1, 0.35, 0.6, 0.85, 0.999])
def test_every_truncation_is_an_error_of_ours(keep: float, tmp_path: Path) -> None:
    data = weighted().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InvalidModel, match="fix: "):
        import_model(path)


def test_data_that_does_not_fit_its_shape_names_the_tensor() -> None:
    model = weighted()
    model.graph.initializer[0].raw_data = b"1234"
    with pytest.raises(InvalidModel, match="data of tensor 'w' does not fit"):
        import_model(model)


def test_a_newer_ir_version_says_what_to_upgrade() -> None:
    model = parse(TEXT)
    model.ir_version = 99
    with pytest.raises(InvalidModel, match=r"(?s)IR version 99 is newer.*pip install"):
        import_model(model)


INVALID = {
    "cycle": ("{ a = Add(x, y) y = Abs(a) }", "topologically sorted"),
    "unknown-input": ("{ y = Abs(z) }", "'z'"),
    "tensor-made-twice": ("{ y = Abs(x) y = Neg(x) }", "'y' has been used as output names"),
    "wrong-attribute": ("{ y = Relu<nonsense=3>(x) }", "nonsense"),
    "too-many-inputs": ("{ y = Relu(x, x, x) }", "Relu"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_graphs_are_refused_with_the_checkers_words(case: str) -> None:
    body, words = INVALID[case]
    with pytest.raises(InvalidModel) as caught:
        import_model(parse("g (float[2,8] x) => (float[2,8] y) " + body))
    message = str(caught.value)
    assert words in message and "fix: " in message and len(message.splitlines()) == 2


@pytest.mark.parametrize("where", ["initializer", "input", "output"])
def test_repeated_names_are_refused(where: str) -> None:
    model = weighted()
    entries = getattr(model.graph, where)
    entries.append(entries[0])
    with pytest.raises(InvalidModel, match="is there twice"):
        import_model(model)
