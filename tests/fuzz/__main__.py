"""Fuzzing for as long as there is time: ``make fuzz SECONDS=600 SEED=1``.

Every round has a seed of its own, which is printed. What fails is saved as a model with its inputs
and what they should give.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
from hypothesis import HealthCheck, Phase, given, seed, settings

from ramforge.runtime.drivers.emulated import Settings
from ramforge.runtime.drivers.emulator import Order
from tests.fuzz import cases
from tests.fuzz.child import in_child
from tests.fuzz.maker import Maker, program
from tests.fuzz.running import (
    compiled,
    complaints,
    differences,
    in_emulator,
    interpreted,
    on_host,
    save,
)
from tests.fuzz.test_damaged_models import COMPILED, MORE_BYTES, REFUSED, SECONDS, outcome


def graphs(number: int, examples: int, folder: Path) -> list[str]:
    """Optimised graphs with NumPy; hypothesis makes what fails small."""
    failing: list[Maker] = []

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(cases.makers())
    def check(maker: Maker) -> None:
        if not maker.nodes:
            return
        failing[:] = [maker]
        made = program([maker])
        assert not complaints(made, interpreted(made.model, made.inputs), "NumPy")

    try:
        check()
    except Exception as error:  # the last run was that of the smallest
        save(program(failing), folder / f"{number}-graph")
        return [f"graph: {_last(error)}"]
    return []


def joined(number: int, folder: Path) -> list[str]:
    """Many graphs on the host and in the emulator; each by itself if something is wrong."""
    opset = cases.OPSETS[number % len(cases.OPSETS)]
    makers = cases.several(str(number), opset, graphs=8, steps=9)
    (text,) = in_child([makers], _run, 600)
    if not text:
        return []
    found = []
    for place, maker in enumerate(makers):
        (text,) = in_child([[maker]], _run, 300)
        if text:
            save(program([maker]), folder / f"{number}-program-{place}")
            found.append(f"program {place}: {text}")
    return found or [f"only together: {text}"]


def _run(makers: list[Maker]) -> str:
    made = program(makers)
    orders = (Settings(), Settings(blocks=3, order=Order.RANDOM, seed=11))
    try:
        with tempfile.TemporaryDirectory() as folder:
            artifact = compiled(made.model, Path(folder))
            host = on_host(artifact, made.inputs)
            found = complaints(made, host, "host")
            for other in in_emulator(artifact, made.inputs, orders):
                found += [f"emulator: {text}" for text in differences(made, host, other)]
    except Exception as error:
        return _last(error)
    return "; ".join(found)


def damages(number: int, folder: Path) -> list[str]:
    """Damaged models, which may only be refused or compiled."""
    opset = cases.OPSETS[number % len(cases.OPSETS)]
    found = cases.damaged_models(str(number), opset, 12, 8)
    complaints = []
    for place, text in enumerate(in_child(found, outcome, SECONDS, MORE_BYTES)):
        if text not in (COMPILED, REFUSED):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}-damaged-{place}.onnx").write_bytes(_bytes(found[place][0]))
            complaints.append(f"damaged {place}, {found[place][1]}: {text}")
    return complaints


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString())


def _last(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:1000]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--seconds", type=float, default=600, help="begin no round after these")
    parser.add_argument("--rounds", type=int, default=10**9)
    parser.add_argument("--examples", type=int, default=60, help="graphs a round")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/fuzz"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    started, failed, rounds = time.monotonic(), 0, 0
    while rounds < options.rounds and time.monotonic() - started < options.seconds:
        number = options.seed + rounds
        print(f"seed {number}", flush=True)
        found = [
            *graphs(number, options.examples, options.output),
            *joined(number, options.output),
            *damages(number, options.output),
        ]
        for text in found:
            print(f"  {text}", flush=True)
        failed += len(found)
        rounds += 1
    print(f"{rounds} rounds, {failed} failures" + (f", see {options.output}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
