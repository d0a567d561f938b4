"""Damaged models become an error that says what to do, or a program, in bounded time and memory."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx

import ramforge
from ramforge.compiler.errors import RamforgeError
from tests.fuzz import cases
from tests.fuzz.child import in_child

Case = tuple[onnx.ModelProto, str]
COMPILED, REFUSED = "compiled", "refused"
SECONDS, MORE_BYTES = 30.0, 1 << 30  # the bytes are addresses; what is used is far less


def outcome(case: Case) -> str:
    """What the compiler makes of it; anything but the first two is wrong."""
    model, _ = case
    with tempfile.TemporaryDirectory() as folder:
        try:
            ramforge.compile(model, output=Path(folder) / "out.cu")
        except RamforgeError as error:
            return REFUSED if "fix:" in str(error) else f"no fix: {error}"
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
    return COMPILED


def failures(found: Sequence[Case]) -> tuple[list[str], Counter[str]]:
    outcomes = in_child(found, outcome, SECONDS, MORE_BYTES)
    wrong = [
        f"{what}: {text}"
        for (_, what), text in zip(found, outcomes, strict=True)
        if text not in (COMPILED, REFUSED)
    ]
    return wrong, Counter(outcomes)


def test_damaged_models_are_refused_or_compiled() -> None:
    found = cases.damaged_models("17", 17, 12, 6) + cases.damaged_models("22", 22, 12, 6)
    wrong, outcomes = failures(found)
    assert not wrong, "\n".join(wrong)
    assert outcomes[COMPILED] > 15 and outcomes[REFUSED] > 60


def test_a_crash_a_hang_and_too_much_memory_are_seen() -> None:
    def run(case: str) -> str:
        if case == "crash":
            import ctypes

            ctypes.string_at(0)
        if case == "hang":
            time.sleep(60)
        if case == "memory":
            try:
                return str(len(bytearray(1 << 31)))
            except MemoryError:
                return "too much"
        return case

    found = in_child(["a", "crash", "b", "hang", "memory"], run, 1.0, 1 << 28)
    assert found == ["a", "the process ended with -11", "b", "no result in 1 s", "too much"]
