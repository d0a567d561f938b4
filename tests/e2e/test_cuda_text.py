"""Every emitted file is CUDA that stands alone: two architectures, no warning, nothing spilled."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from emulated_runs import branches, emitted, staged

import ramforge
from ramforge.codegen import units
from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import cubin, device, linked, nvcc, nvrtc, toolchain
from ramforge.codegen.build.cubin import Cubin
from ramforge.compiler.errors import ToolchainError
from ramforge.runtime import gpu_cases
from ramforge.runtime.drivers import debug

NAMES = ("resnet_small", "encoder_small", "mobilenet_small", "mlp", "lstm_cell")
H200_SMS = 132
# What a kernel keeps on its stack while a body runs; moved once for an rTask.
MOST_STACK = 256
CompileExample = Callable[..., Artifact]

needs_nvrtc = pytest.mark.skipif(toolchain.find_nvrtc() is None, reason="NVRTC is not installed")
needs_linker = pytest.mark.skipif(bool(linked.obstacle()), reason=linked.obstacle())
needs_nvcc = pytest.mark.skipif(toolchain.find_nvcc() is None, reason="nvcc is not installed")


def planned(artifact: Artifact) -> list[dict[str, Any]]:
    return list(artifact.manifest["schedule"]["launches"])


def complaints(log: str) -> list[str]:
    """What a compiler said beyond information."""
    return [line for line in log.splitlines() if re.search(r"\b(warning|error)\b.*:", line)]


def assert_good(built: Cubin, artifact: Artifact) -> None:
    assert built.data[:4] == b"\x7fELF"
    assert complaints(built.log) == []
    usage = cubin.usage(built)
    kernels = {row["kernel"]: row["threads"] * row["blocks_per_sm"] for row in planned(artifact)}
    assert cubin.misfits(usage, kernels) == []
    for kernel, threads in kernels.items():
        assert 0 < usage[kernel].registers <= min(255, cubin.REGISTERS_PER_SM // threads)
        assert usage[kernel].shared_bytes == 0  # the arena is asked for at launch
    stacks = [int(found) for found in re.findall(r"(\d+) bytes stack frame", built.log)]
    assert stacks and max(stacks) <= MOST_STACK


@needs_nvrtc
@pytest.mark.parametrize(("schedule", "arch"), [("waves", "sm_80"), ("events", "sm_90a")])
@pytest.mark.parametrize("model", NAMES)
def test_nvrtc_takes_the_text_with_nothing_on_the_include_path(
    model: str, schedule: str, arch: str, compile_example: CompileExample
) -> None:
    artifact = compile_example(model, schedule, sms=H200_SMS)
    assert_good(nvrtc.compile_cubin(artifact.text(), arch), artifact)


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_a_body_that_two_kernels_share_keeps_to_the_registers_of_each(
    arch: str, tmp_path: Path
) -> None:
    """The assembler makes a copy of it for each kernel: the cap of one does not bind the other."""
    program = staged(branches(), "events", sms=H200_SMS, blocks=(2, 1))
    artifact = emitted(program, tmp_path)
    kernels = {row["kernel"]: row["blocks_per_sm"] for row in planned(artifact)}
    assert kernels == {"rf_kernel_0": 2, "rf_kernel_1": 1}
    built = nvrtc.compile_cubin(artifact.text(), arch)
    assert_good(built, artifact)
    usage = cubin.usage(built)
    assert usage["rf_kernel_0"].registers <= 128 < usage["rf_kernel_1"].registers


@needs_linker
@pytest.mark.parametrize(("schedule", "arch"), [("waves", "sm_80"), ("events", "sm_90a")])
@pytest.mark.parametrize("model", NAMES)
def test_linked_units_are_good_too(
    model: str, schedule: str, arch: str, compile_example: CompileExample
) -> None:
    artifact = compile_example(model, schedule, sms=H200_SMS)
    assert_good(device.compile_cubin(artifact.text(), arch), artifact)


@needs_linker
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_a_body_that_two_kernels_share_is_a_unit_for_each(arch: str, tmp_path: Path) -> None:
    twice = "{ a = MatMul(x, w) b = LogSoftmax(a) c = MatMul(b, v) y = LogSoftmax(c) }"
    model = gpu_cases.model_of(
        f"g (float[64, 64] x) => (float[64, 64] y) {twice}", w=(64, 64), v=(64, 64)
    )
    artifact = emitted(staged(model, "events", sms=H200_SMS, blocks=(2, 1)), tmp_path)
    parts = units.split(artifact.text())
    assert parts is not None
    most = {units.register_cap(row["threads"] * row["blocks_per_sm"]) for row in planned(artifact)}
    forms = {(unit.body, unit.register_cap) for unit in parts.bodies}
    assert len(most) == 2 and len(forms) == 4
    assert forms == {(body, cap) for body, _ in forms for cap in most}
    built = linked.compile_cubin(parts, arch)
    assert_good(built, artifact)
    usage = cubin.usage(built)
    assert usage["rf_kernel_0"].registers <= 128 and usage["rf_kernel_1"].registers <= 255


@needs_nvrtc
def test_a_debug_build_is_good_too(compile_example: CompileExample) -> None:
    artifact = compile_example("resnet_small", "events", sms=H200_SMS)
    built = nvrtc.compile_cubin(debug.text_of(artifact.text(), True), "sm_90a")
    assert_good(built, artifact)
    assert built.data != nvrtc.compile_cubin(artifact.text(), "sm_90a").data


def ptx_of(text: str) -> str:
    """What the front half of the compiler makes of the text."""
    library = nvrtc._library()
    options = (b"--gpu-architecture=compute_90a", b"-std=c++17")
    with nvrtc._program(library, text, "out.cu") as program:
        array = (ctypes.c_char_p * len(options))(*options)
        assert library.nvrtcCompileProgram(program, len(options), array) == 0
        return nvrtc._read(library, program, "PTX").decode()


@needs_nvrtc
@pytest.mark.parametrize("model", NAMES)
def test_tensors_are_read_as_coherent_global_memory(
    model: str, compile_example: CompileExample
) -> None:
    """Other blocks write them during the launch: nothing may go through the read-only path. And the
    compiler knows that they are no shared memory.
    """
    ptx = ptx_of(compile_example(model, sms=H200_SMS).text())
    parts = re.split(r"^(?=\.func|\.visible \.entry)", ptx, flags=re.M)[1:]
    kernels = [part for part in parts if ".entry rf_kernel_" in part]
    bodies = "".join(part for part in parts if part not in kernels)
    assert kernels and "ld.global.f32" in bodies and "st.global.f32" in bodies
    assert ".nc." not in bodies
    assert re.findall(r"\b(?:ld|st)\.f\d+", bodies) == []
    assert ".local" not in ptx  # not a byte of stack, nor a copy of the addresses


@needs_nvrtc
def test_a_warning_would_be_seen(compile_example: CompileExample) -> None:
    text = compile_example("mlp", sms=H200_SMS).text()
    log = nvrtc.compile_cubin(f"{text}\n#warning look here\n", "sm_80").log
    assert len(complaints(log)) == 1


@needs_nvcc
def test_nvcc_builds_the_whole_program(tmp_path: Path, compile_example: CompileExample) -> None:
    artifact = compile_example("mlp", sms=H200_SMS)
    program = nvcc.build_program(artifact.source, "sm_90a", tmp_path / "program")
    assert program.read_bytes()[:4] == b"\x7fELF"


@needs_nvcc
def test_a_program_without_weights_makes_nvcc_say_nothing(tmp_path: Path) -> None:
    artifact = ramforge.compile(
        gpu_cases.barrier_models().popitem()[1], output=tmp_path / "out.cu", target="h200"
    )
    assert artifact.manifest["schedule"]["roperators"] > 1
    assert complaints(nvcc.compile_cubin(artifact.text(), "sm_90a").log) == []


@needs_nvrtc
def test_a_device_that_the_compiler_does_not_know_is_named() -> None:
    with pytest.raises(ToolchainError, match=r"does not know --gpu-architecture=sm_1\n    fix: "):
        nvrtc.compile_cubin("", "sm_1")
