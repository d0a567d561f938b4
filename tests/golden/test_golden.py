"""What a tiny network becomes, in full: the graph after all passes, the program, and the model's
own part of the emitted text. ``pytest --update-golden`` writes the files anew.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import ramforge.kernels  # noqa: F401  (fills the registry)
from ramforge.codegen import render, sections, weights
from ramforge.compiler import printer
from ramforge.compiler.device import find_target
from ramforge.compiler.frontend import import_model
from ramforge.compiler.pipeline import Program, compile_graph
from ramforge.compiler.schedule import POLICIES
from ramforge.zoo.builder import Builder

FOLDER = Path(__file__).parent
LIBRARY = ("library", sections.PART, "kernels", "host")
CHANNELS, IMAGE, CLASSES = 8, 6, 3


@cache
def program(policy: str = "waves") -> Program:
    """Convolution, normalisation, Relu, Flatten and Gemm, for a device of two SMs."""
    builder = Builder("tiny", seed=2)
    x = builder.input("x", (1, CHANNELS, IMAGE, IMAGE))
    shape = (CHANNELS, CHANNELS, 3, 3)
    weight = builder.weight("conv.weight", shape, CHANNELS * 9, math.sqrt(2))
    bias = builder.bias("conv.bias", CHANNELS)
    x = builder.node("Conv", [x, weight, bias], "/conv", kernel_shape=[3, 3], pads=[1] * 4)
    x = builder.node("Relu", [x], "/relu")
    x = builder.node("Flatten", [x], "/flatten", axis=1)
    features = CHANNELS * IMAGE * IMAGE
    weight = builder.weight("fc.weight", (CLASSES, features), features)
    x = builder.node("Gemm", [x, weight, builder.bias("fc.bias", CLASSES)], "/fc", "y", transB=1)
    target = replace(find_target("h200"), sms=2)
    return compile_graph(import_model(builder.finish([x])), target, policy)


def own_text(made: Program) -> str:
    """The emitted text without the library, which is in kernels/ to be read."""
    gathered = weights.gather(made.weights, made.memory.weight_offsets, made.memory.weight_bytes)
    text = render.render(made, gathered, render.Names("tiny.cu", "tiny.safetensors"))
    head, *rest = (part for part in sections.split(text) if part.title not in LIBRARY)
    own = head.text + "".join(f"{sections.rule(part.title)}\n{part.text}" for part in rest)
    kept = [line for line in own.splitlines() if "sha256" not in line and "DIGEST" not in line]
    return "\n".join(kept) + "\n"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


def compare(name: str, text: str, update: bool) -> None:
    path = FOLDER / name
    if update:
        path.write_text(text, encoding="utf-8")
    expected = path.read_text(encoding="utf-8").splitlines()
    difference = difflib.unified_diff(expected, text.splitlines(), name, "now", lineterm="")
    shown = "\n".join(difference)
    assert not shown, f"{shown}\nfix: look at it; if it is meant, pytest --update-golden"


def test_the_graph_after_all_passes(golden: bool) -> None:
    compare("tiny.graph.txt", printer.graph_text(program().graph), golden)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_program(policy: str, golden: bool) -> None:
    made = program(policy)
    text = printer.program_text(made.operators, made.plan, made.memory)
    compare(f"tiny.{policy}.txt", text, golden)


def test_the_text(golden: bool) -> None:
    compare("tiny.cu.txt", own_text(program()), golden)
