"""``--precision``: what is stored in fewer bits, and how far results may then be off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import ramforge
from ramforge.compiler.device import find_target
from ramforge.compiler.errors import OptionError
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import DType
from ramforge.compiler.pipeline import compile_graph, optimise
from ramforge.kernels.contract import rounded_to_tf32
from ramforge.runtime import arrays, gpu_cases, inspect, tune, verify
from ramforge.runtime.cli import commands, run_command
from ramforge.runtime.drivers.emulated import EmulatedDriver
from ramforge.runtime.verify.reference import Reference, Source
from ramforge.zoo import ZOO

NETWORKS = ("resnet18", "mobilenet_v2", "bert_base", "gpt2_decode", "unet")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_right_within_what_the_precision_allows(name: str, precision: str) -> None:
    model = ZOO[name].small()
    whole = ramforge.compile(model, target="host:2")
    artifact = ramforge.compile(model, target="host:2", precision=precision)
    found = verify.verify(artifact, model, device="host:2")
    assert found.ok, found.differences
    assert max(item.share for item in found.differences) > 1e-5  # something was rounded
    assert artifact.manifest["weights"]["bytes"] < 0.8 * whole.manifest["weights"]["bytes"]


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
@pytest.mark.parametrize("name", ["resnet18", "bert_base"])
def test_networks_are_right_in_the_emulator(name: str, precision: str, tmp_path: Path) -> None:
    model = ZOO[name].small()
    target = replace(find_target("h200"), sms=4)
    artifact = ramforge.compile(
        model, target=target, precision=precision, output=tmp_path / "net.cu"
    )
    assert "rf_matrix<" in artifact.text()
    inputs = arrays.made_up(artifact.inputs, seed=0)
    names = [port.name for port in artifact.outputs]
    values = Reference(Source(model), inputs, "ort").values(names)
    got = EmulatedDriver(artifact, quick=True).run([inputs[port.name] for port in artifact.inputs])
    expected = [values[name] for name in names]
    allowed = verify.of_precision(precision)
    verify.require(verify.differences(names, got, expected, allowed))


def chain() -> onnx.ModelProto:
    """x is a factor and an output of the model; p is a factor and an operand of the last Add."""
    return gpu_cases.model_of(
        "g (float[8, 16] x) => (float[8, 16] y, float[8, 16] s)"
        "{ p = MatMul(x, w) s = Softmax(p) q = MatMul(p, v) r = MatMul(s, v) t = Add(p, q)"
        "  y = Add(t, r) }",
        w=(16, 16),
        v=(16, 16),
    )


def test_only_what_is_multiplied_is_stored_in_fewer_bits() -> None:
    graph = optimise(import_model(chain()), "fp16")
    types = {name: tensor.dtype for name, tensor in graph.tensors.items()}
    narrow = {name for name, dtype in types.items() if dtype is DType.FLOAT16}
    assert narrow == {"x#float16", "w#float16", "v#float16", "p", "s#float16"}
    assert types["x"] is types["s"] is types["y"] is DType.FLOAT32
    assert "w" not in graph.tensors and graph.constants["w#float16"].dtype == np.float16


def test_weights_that_are_too_large_become_the_largest_number() -> None:
    model = chain()
    large = np.full((16, 16), -1e9, np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(large, "w"))
    graph = optimise(import_model(model), "fp16")
    assert np.all(graph.constants["w#float16"] == -65504)


def test_infinite_weights_stay_infinite() -> None:
    model = chain()
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.full((16, 16), np.inf, np.float32), "w")
    )
    assert np.all(np.isinf(optimise(import_model(model), "bf16").constants["w#bfloat16"]))
    largest = np.array([np.finfo(np.float32).max, np.inf, -np.inf, np.nan], np.float32)
    assert np.isfinite(rounded_to_tf32(largest)).tolist() == [True, False, False, False]


def test_names_of_nodes_stay_unique() -> None:
    graph = optimise(import_model(chain()), "fp16")
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names)
    assert {node.op for node in graph.nodes if "#" in node.name} == {"Cast"}


def test_inspect_and_tune_see_the_nodes_that_compile_sees(tmp_path: Path) -> None:
    target = find_target("host:2").with_precision("fp16")
    program = compile_graph(import_model(chain()), target)
    document = inspect.of_model(chain(), target, "auto", lambda _: None)
    sizes = sum(array.nbytes for array in program.weights.values())
    assert document["memory"]["weight_bytes"] == sizes
    known = tune.tune(chain(), target, tmp_path / "tuning.json", seconds=60)
    bodies = {operator.variant.body.name for operator in program.operators}
    assert bodies <= {row.name for row in known.bodies}


def test_tf32_is_asked_for_and_changes_the_packed_weights() -> None:
    graph = import_model(chain())
    target = find_target("h200")
    plain = compile_graph(graph, target)
    fewer = compile_graph(graph, target.with_precision("tf32"))
    exact = [array for name, array in plain.weights.items() if name.startswith("w")]
    rounded = [array for name, array in fewer.weights.items() if name.startswith("w")]
    assert np.array_equal(rounded_to_tf32(exact[0]), rounded[0])
    assert not np.array_equal(exact[0], rounded[0])


def test_the_command_knows_the_option(tmp_path: Path) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "m.cu"
    onnx.save_model(chain(), str(path))
    arguments = ["compile", str(path), "-o", str(out), "--precision", "bf16", "-q"]
    assert run_command(commands, arguments, "ramforge") == 0
    assert ramforge.load(out).precision == "bf16"
    assert run_command(commands, ["inspect", str(path), "--precision", "fp16"], "ramforge") == 0
    with pytest.raises(OptionError, match="use one of fp32, tf32"):
        ramforge.compile(chain(), precision="fp8")
