"""The structures of all networks of the zoo, small, on the host body and in the emulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

import ramforge
from ramforge.compiler.device import find_target
from ramforge.runtime import arrays, verify
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.drivers.emulator import Order
from ramforge.zoo import ZOO

SMS = 4


@pytest.mark.parametrize("name", ZOO)
def test_host_and_emulator_agree_with_onnx_runtime(name: str, tmp_path: Path) -> None:
    model = ZOO[name].small()
    target = replace(find_target("h200"), sms=SMS)
    artifact = ramforge.compile(model, target=target, output=tmp_path / "net.cu")
    inputs = arrays.made_up(artifact.inputs, seed=0)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [port.name for port in artifact.outputs]
    expected = session.run(names, inputs)
    with ramforge.Session(artifact, "host") as host:
        verify.require(verify.differences(names, host.run(None, inputs), expected))
    emulated = EmulatedDriver(artifact)
    emulated.settings = Settings(order=Order.RANDOM, seed=5)
    given = [inputs[port.name] for port in artifact.inputs]
    verify.require(verify.differences(names, emulated.run(given), expected))
