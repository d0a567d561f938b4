"""Debug builds, in which a wait that sees no end gives up: how to make one of a text, and what it
leaves in the control block, in words.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ramforge.codegen.artifact import Artifact
from ramforge.compiler.errors import DeviceError
from ramforge.compiler.ir import Array

_ABORT, _REPORT = 1, 5  # words of rf_control in sync.cuh
FIX = "a fault of the schedule or of the kernels, not of the model: report it with the .cu file"


def text_of(text: str, debug: bool) -> str:
    """What to build of an emitted text."""
    return f"#define RF_DEBUG 1\n{text}" if debug else text


class Report(NamedTuple):
    """``rf_report`` of sync.cuh, word by word."""

    launch: int
    block: int
    lane: int
    entry: int
    event: int
    counter: int
    wanted: int
    seen: int
    next: int
    source: int


def is_aborted(control: Array) -> bool:
    return bool(control[_ABORT])


def report_of(control: Array) -> Report:
    words = control[_REPORT : _REPORT + len(Report._fields)].astype("int32")
    return Report(*words.tolist())


def given_up(artifact: Artifact, control: Array) -> DeviceError:
    """Which vEU waited for what, by the names of the model."""
    found = report_of(control)
    roperators = artifact.manifest["roperators"]
    return DeviceError(
        f"gave up a wait in launch {found.launch}: vEU {found.lane} (block {found.block}, entry "
        f"{found.entry}), about to run {_name(roperators, found.next)}, waited for event "
        f"{found.event} behind {_name(roperators, found.source)}: counter {found.counter} has "
        f"{found.seen} of {found.wanted} signals\n    fix: {FIX}"
    )


def _name(roperators: list[dict[str, Any]], number: int) -> str:
    """An rOperator, with the ONNX nodes in it if its own name is not all of them."""
    if number < 0:
        return "no rOperator"
    name, nodes = roperators[number]["name"], roperators[number]["nodes"]
    return str(name) if nodes == [name] else f"{name} ({' + '.join(nodes)})"
