"""The structures of all networks of the zoo, small, on the host body and in the emulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import ramforge
from ramforge.compiler.device import find_target
from ramforge.runtime import arrays, verify
from ramforge.runtime.drivers.emulated import EmulatedDriver, Settings
from ramforge.runtime.drivers.emulator import Order
from ramforge.runtime.verify.reference import Reference, Source
from ramforge.runtime.verify.steps import steps
from ramforge.zoo import ZOO

SMS = 4


@pytest.mark.parametrize("name", ZOO)
def test_host_and_emulator_agree_with_the_reference(name: str, tmp_path: Path) -> None:
    model = ZOO[name].small()
    target = replace(find_target("h200"), sms=SMS)
    artifact = ramforge.compile(model, target=target, output=tmp_path / "net.cu")
    inputs = arrays.made_up(artifact.inputs, seed=0)
    names = [port.name for port in artifact.outputs]
    allowed = steps(model)
    # ONNX Runtime does not take a quantised model word for word: it computes with other roundings
    reference = Reference(Source(model), inputs, "onnx" if allowed.absolute else "ort")
    expected = [reference.values(names)[name] for name in names]
    with ramforge.Session(artifact, "host") as host:
        verify.require(verify.differences(names, host.run(None, inputs), expected, allowed))
    emulated = EmulatedDriver(artifact, quick=True)
    emulated.settings = Settings(order=Order.RANDOM, seed=5)
    given = [inputs[port.name] for port in artifact.inputs]
    verify.require(verify.differences(names, emulated.run(given), expected, allowed))
