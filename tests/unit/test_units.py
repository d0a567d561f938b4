"""An emitted file in units: each text holds what it needs and no more, and linked they are the
program.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ramforge.codegen import sections, units
from ramforge.codegen.artifact import Artifact
from ramforge.codegen.build import (
    cache,
    cubin,
    device,
    elf,
    linked,
    nvcc,
    nvjitlink,
    nvrtc,
    toolchain,
)
from ramforge.codegen.build.cubin import Cubin
from ramforge.codegen.units import Unit, Units
from ramforge.compiler.errors import ToolchainError
from ramforge.runtime.drivers import debug

CompileExample = Callable[..., Artifact]
ARCH = "sm_90a"

needs_linker = pytest.mark.skipif(bool(linked.obstacle()), reason=linked.obstacle())

# Two products that may run at the same time, in a function that is called.
PRODUCTS = """
QUALIFIERS void body(float* out, unsigned long long a, int k) {
  float d[4] = {};
  for (int i = 0; i < k; ++i) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %4, "
                 "1, 1, 1, 0, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a + i));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }
  for (int i = 0; i < 4; ++i) out[i * 128 + threadIdx.x] = d[i];
}
"""
CALLER = """
extern "C" __global__ void __launch_bounds__(128) kernel(float* out, unsigned long long a, int k) {
  for (int i = 0; i < k; ++i) body(out + i, a, k);
}
"""
# A function that keeps a hundred values, and a kernel whose threads have 64 registers.
GREEDY = """
extern "C" __device__ __noinline__ void greedy(volatile float* x) {
  float values[100];
  #pragma unroll
  for (int i = 0; i < 100; ++i) values[i] = x[i];
  #pragma unroll
  for (int i = 0; i < 100; ++i) x[99 - i] = values[i];
}
"""
GREEDY_CALLER = """
extern "C" __device__ void greedy(volatile float* x);
extern "C" __global__ void __launch_bounds__(1024) kernel(float* x) { greedy(x); }
"""


def units_of(text: str) -> Units:
    found = units.split(text)
    assert found is not None
    return found


@pytest.fixture
def text(compile_example: CompileExample) -> str:
    return compile_example("encoder_small", "waves", sms=132).text()


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "store"))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that NVRTC was given."""
    given: list[str] = []
    compile_now = nvrtc._compile

    def noted(library: object, source: str, *rest: object) -> Cubin:
        given.append(source)
        return compile_now(library, source, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(nvrtc, "_compile", noted)
    return given


def test_sections_are_the_file(text: str) -> None:
    head, *rest = sections.split(text)
    again = head.text + "".join(f"{sections.rule(part.title)}\n{part.text}" for part in rest)
    assert again == text and head.title == ""
    titles = ["constants", "library", "bodies", "choice of a body", "schedule", "kernels", "host"]
    assert [part.title for part in rest if part.title != sections.PART] == titles


def test_every_body_is_a_unit_named_by_its_content_and_its_registers(
    text: str, compile_example: CompileExample
) -> None:
    manifest = compile_example("encoder_small", "waves", sms=132).manifest
    (launch,) = manifest["schedule"]["launches"]
    cap = units.register_cap(launch["threads"] * launch["blocks_per_sm"])
    found = units_of(text).bodies
    assert {unit.body for unit in found} == {row["body"] for row in manifest["roperators"]}
    for unit in found:
        assert unit.register_cap == cap and unit.name == f"{unit.body}_r{cap}"
        assert f"void {unit.name}(rf_view p, int task, char* arena) {{" in unit.text


@pytest.mark.parametrize(
    ("threads", "most"), [(128, 255), (256, 255), (512, 128), (640, 96), (1024, 64)]
)
def test_registers_are_shared_by_all_threads_of_an_sm(threads: int, most: int) -> None:
    assert units.register_cap(threads) == most


def test_a_unit_has_nothing_of_the_model_or_the_schedule(compile_example: CompileExample) -> None:
    artifact = compile_example("encoder_small", "waves", sms=132)
    other = compile_example("encoder_small", "per-op", sms=132)
    first, second = units_of(artifact.text()), units_of(other.text())
    texts = {unit.name: unit.text for unit in first.bodies}
    shared = [unit for unit in second.bodies if unit.name in texts]
    assert shared and all(unit.text == texts[unit.name] for unit in shared)
    assert first.schedule != second.schedule
    for unit in first.bodies:
        constants, _ = unit.text.split("\n\n", 1)
        assert re.fullmatch(r"#define RF_THREADS \d+", constants)
        assert unit.text.count("\nstruct " + unit.body) == 1
        assert not any(node in unit.text for node in artifact.manifest["roperators"][0]["nodes"])
        assert "rf_entries" not in unit.text and "RF_KERNEL" not in unit.text


def test_a_unit_has_the_parts_of_the_library_that_it_names(text: str) -> None:
    bodies = {unit.body.partition("_")[0]: unit.text for unit in units_of(text).bodies}
    assert {"contract", "row", "attention"} <= bodies.keys()
    assert "void rf_contract(" in bodies["contract"]
    assert "void rf_contract(" not in bodies["row"]
    assert "void rf_contract(" not in units_of(text).schedule


def test_a_debug_build_waits_otherwise_and_computes_alike(text: str) -> None:
    plain, debugging = units_of(text), units_of(debug.text_of(text, True))
    assert debugging.bodies == plain.bodies
    assert debugging.schedule.startswith("#define RF_DEBUG 1\n")
    assert debugging.schedule.removeprefix("#define RF_DEBUG 1\n") == plain.schedule


def test_a_text_without_sections_has_no_units() -> None:
    assert units.split("__global__ void kernel() {}\n") is None


@needs_linker
@pytest.mark.parametrize("arch", ["sm_80", ARCH])
def test_linked_units_are_the_program(arch: str, text: str) -> None:
    parts = units_of(text)
    names = {unit.name for unit in parts.bodies}
    schedule = elf.functions(linked.compile_schedule(parts, arch).data)
    assert "rf_kernel_0" in schedule and not names & schedule.keys()
    for unit in parts.bodies:
        made = linked.compile_unit(unit, arch).data
        assert 0 < elf.functions(made)[unit.name].registers <= unit.register_cap
        assert b"rf_entries" not in made
    usage = cubin.usage(linked.compile_cubin(parts, arch))
    assert names <= usage.keys()
    most = max(usage[name].registers for name in names)
    assert most <= usage["rf_kernel_0"].registers <= parts.bodies[0].register_cap
    assert usage["rf_kernel_0"].shared_bytes == 0
    assert all(usage[name].code_bytes > 0 for name in names)


@needs_linker
@pytest.mark.usefixtures("own_store")
def test_another_schedule_only_compiles_its_kernels(
    compile_example: CompileExample, compiled: list[str]
) -> None:
    first = units_of(compile_example("mlp", "waves", sms=132).text())
    whole = linked.compile_cubin(first, ARCH)
    assert len(compiled) == 1 + len(first.bodies)
    compiled.clear()
    assert linked.compile_cubin(first, ARCH) == whole and not compiled
    tables = first.schedule.replace("RF_TABLE rf_launch", "// another one\nRF_TABLE rf_launch")
    linked.compile_cubin(replace(first, schedule=tables), ARCH)
    assert compiled == [tables]


@needs_linker
def test_a_callee_with_more_registers_than_its_kernel_has_is_refused() -> None:
    """Why a unit is made for a number of registers."""
    greedy = Unit("greedy", 255, GREEDY)
    linked.compile_cubin(Units((replace(greedy, register_cap=64),), GREEDY_CALLER), ARCH)
    with pytest.raises(ToolchainError, match="max regcount of 64"):
        linked.compile_cubin(Units((greedy,), GREEDY_CALLER), ARCH)


@needs_linker
def test_a_unit_that_is_missing_is_named(text: str) -> None:
    parts = units_of(text)
    missing, *others = parts.bodies
    with pytest.raises(ToolchainError, match=missing.name):
        linked.compile_cubin(replace(parts, bodies=tuple(others)), ARCH)


@needs_linker
@pytest.mark.usefixtures("own_store")
def test_products_that_would_run_one_by_one_are_an_error(compiled: list[str]) -> None:
    called = PRODUCTS.replace("QUALIFIERS", "static __device__ __noinline__") + CALLER
    for _ in range(2):  # it was not kept
        with pytest.raises(ToolchainError, match=r"serialised[^$]*\(C7510\)[^$]*fix: build in"):
            nvrtc.compile_cubin(called, ARCH)
    assert len(compiled) == 2
    unit = PRODUCTS.replace("QUALIFIERS", 'extern "C" __device__ __noinline__')
    built = nvrtc.compile_cubin(unit, ARCH, options=("--relocatable-device-code=true",))
    assert "body" in elf.functions(built.data)


def test_what_nvcc_says_of_products_is_an_error_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = "ptxas info    : (C7509) Potential Performance Loss: wgmma.mma_async ..."
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "store"))
    monkeypatch.setattr(nvcc, "find_nvcc", lambda: toolchain.Nvcc("nvcc", "13.0"))
    monkeypatch.setattr(nvcc.command, "compile_text", lambda *_: (b"code", said))
    (tmp_path / "out.cu").write_text("")
    with pytest.raises(ToolchainError, match="C7509"):
        nvcc.compile_cubin("", ARCH)
    with pytest.raises(ToolchainError, match="C7509"):
        nvcc.build_program(tmp_path / "out.cu", ARCH, tmp_path / "out")


@needs_linker
def test_without_a_linker_it_is_built_as_one_file(
    text: str, compiled: list[str], monkeypatch: pytest.MonkeyPatch, own_store: None
) -> None:
    monkeypatch.setattr(nvjitlink, "find_nvjitlink", lambda: None)
    assert "pip install 'nvidia-nvjitlink" in linked.obstacle()
    built = device.compile_cubin(text, ARCH)
    assert compiled == [text] and "rf_kernel_0" in elf.functions(built.data)


@needs_linker
def test_units_are_linked_where_that_can_be(text: str) -> None:
    names = {unit.name for unit in units_of(text).bodies}
    assert names <= elf.functions(device.compile_cubin(text, ARCH).data).keys()


@pytest.mark.parametrize(
    ("compiler", "linker", "fits"),
    [
        ((13, 0), (13, 0), True),
        ((13, 0), (13, 2), True),
        ((13, 1), (13, 0), False),
        ((12, 8), (13, 0), False),
        ((13, 0), (12, 9), False),
    ],
)
def test_a_linker_takes_what_is_not_newer_than_itself(
    compiler: tuple[int, int],
    linker: tuple[int, int],
    fits: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nvrtc, "version", lambda: compiler)
    monkeypatch.setattr(nvjitlink, "version", lambda: linker)
    assert (linked.obstacle() == "") == fits


@pytest.mark.parametrize("layout", ["nvidia/cu13/lib", "nvidia/nvjitlink/lib", "lib64"])
def test_the_linker_is_found_in_each_layout(layout: str, tmp_path: Path) -> None:
    folder = tmp_path / layout
    folder.mkdir(parents=True)
    for name in ("libnvJitLink.so.12", "libnvJitLink.so.13", "libnvJitLink.so"):
        (folder / name).touch()
    cuda_home, import_path = (str(tmp_path), ()) if layout == "lib64" else ("", (str(tmp_path),))
    assert toolchain._nvjitlink(cuda_home, import_path) == str(folder / "libnvJitLink.so.13")
