"""Loops and accesses of disassembled code."""

from __future__ import annotations

import pytest

from ramforge.codegen.build import nvdisasm, nvrtc, sass, toolchain
from ramforge.codegen.build.nvdisasm import INSTRUCTION_BYTES, Instruction
from ramforge.codegen.build.sass import Access
from ramforge.compiler.errors import ToolchainError

needs_disassembler = pytest.mark.skipif(
    toolchain.find_nvdisasm() is None or toolchain.find_nvrtc() is None,
    reason="nvdisasm or NVRTC is not installed",
)


def code(text: str) -> tuple[Instruction, ...]:
    """A line for each instruction; ``@name`` is where the line ``name:`` stands."""
    lines = [line.strip() for line in text.strip().splitlines()]
    places: dict[str, int] = {}
    kept: list[str] = []
    for line in lines:
        if line.endswith(":"):
            places[line[:-1]] = len(kept)
        else:
            kept.append(line)
    found = []
    for line in kept:
        predicate, line = line[1:].split(" ", 1) if line.startswith("?") else ("", line)
        opcode, _, operands = line.partition(" ")
        for name, place in places.items():
            operands = operands.replace(f"@{name}", hex(place * INSTRUCTION_BYTES))
        found.append(Instruction(opcode, operands, predicate))
    return tuple(found)


NESTED = """
MOV R1,R2
stage:
LDGSTS.E.BYPASS.128 [R3],[R4.64]
?P0 BRA @skip
IADD3 R1,R1,0x1,RZ
skip:
chunk:
LDS.128 R4,[R3]
FFMA R8,R4,R5,R8
FFMA R9,R4,R6,R9
?P1 BRA @chunk
?P2 BRA @stage
STG.E [R6.64],R8
RET.ABS.NODEC R30,0x0
end:
BRA @end
"""


def test_loops_are_found_with_what_is_in_them() -> None:
    found = sass.loops(code(NESTED))
    assert [(loop.head, sorted(loop.body)) for loop in found] == [
        (1, list(range(1, 9))),
        (4, list(range(4, 8))),
    ]
    main = sass.main_loop(code(NESTED), found)
    assert main is not None and main.head == 4
    assert sass.around(main, found) == found[0]
    assert sass.around(found[0], found) is None


def test_what_stands_behind_the_end_and_goes_back_is_no_loop() -> None:
    """As shuffles do, where threads of a warp may have parted."""
    text = """
    BRA.DIV ~URZ,@apart
    SHFL.BFLY R1,R2,0x10
    back:
    FADD R1,R1,R2
    EXIT
    apart:
    WARPSYNC.COLLECTIVE R3,@meet
    meet:
    BRA @back
    """
    assert sass.loops(code(text)) == ()
    assert sass.main_loop(code(text), ()) is None


def test_a_loop_that_ends_by_a_call_that_is_a_jump() -> None:
    """As the assembler for sm_80 writes it."""
    text = """
    again:
    FFMA R1,R1,R2,R3
    ?!P0 CALL.REL.NOINC @out
    BRA @again
    out:
    RET.ABS.NODEC R30,0x0
    """
    (loop,) = sass.loops(code(text))
    assert sorted(loop.body) == [0, 1, 2]


def test_the_main_loop_is_the_one_with_most_math() -> None:
    text = """
    zero:
    STS [R1],RZ
    IADD3 R1,R1,0x4,RZ
    IADD3 R2,R2,0x4,RZ
    ?P0 BRA @zero
    sum:
    FADD R1,R1,R2
    ?P0 BRA @sum
    EXIT
    """
    main = sass.main_loop(code(text), sass.loops(code(text)))
    assert main is not None and main.head == 4


@pytest.mark.parametrize(
    ("line", "access"),
    [
        ("LDG.E.128 R4,[R2.64]", Access("global", False, 16)),
        ("LDG.E.128.CONSTANT R4,[R2.64]", Access("global", False, 16)),
        ("LDG.E R4,[R2.64]", Access("global", False, 4)),
        ("LDG.E.U8 R4,[R2.64]", Access("global", False, 1)),
        ("LDGSTS.E.BYPASS.LTC128B.128 [R1],[R2.64]", Access("global", False, 16)),
        ("LDGSTS.E [R1],[R2.64]", Access("global", False, 4)),
        ("LD.E.64 R4,[R2.64]", Access("generic", False, 8)),
        ("LDS.U.128 R4,[R2]", Access("shared", False, 16)),
        ("LDSM.16.M88.4 R4,[R2]", Access("shared", False, 16)),
        ("STG.E.64 [R2.64],R4", Access("global", True, 8)),
        ("?!PT LDS RZ,[RZ]", None),  # never done: a pause for the copies behind it
        ("LDC.64 R4,c[0x0][0x28]", None),
        ("FFMA R4,R4,R5,R6", None),
    ],
)
def test_accesses(line: str, access: Access | None) -> None:
    (instruction,) = code(line)
    assert sass.access(instruction) == access


@pytest.mark.parametrize(
    ("line", "is_math"),
    [
        ("FFMA R4,R4,R5,R6", True),
        ("FADD.FTZ R4,-RZ,R5", True),
        ("HMMA.16816.F32 R4,R4,R8,R4", True),
        ("FFMA R4,-RZ,RZ,1.875", False),  # moves a constant
        ("IMAD.WIDE R4,R4,R5,R6", False),
        ("IADD3 R4,R4,R5,RZ", False),
    ],
)
def test_math(line: str, is_math: bool) -> None:
    (instruction,) = code(line)
    assert sass.is_math(instruction) is is_math


KERNEL = """
extern "C" __global__ void sums(const float4* in, float* out, int n) {
  float sum = 0;
#pragma unroll 1
  for (int i = 0; i < n; ++i) {
    const float4 four = in[i];
    sum += four.x * four.y + four.z * four.w;
  }
  *out = sum;
}
"""


@needs_disassembler
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_a_kernel_is_disassembled(arch: str) -> None:
    found = nvdisasm.disassemble(nvrtc.compile_cubin(KERNEL, arch).data)["sums"]
    (loop,) = sass.loops(found)
    inside = [found[number] for number in loop.body]
    assert sum(map(sass.is_math, inside)) >= 3
    accesses = [sass.access(each) for each in inside]
    assert accesses.count(Access("global", False, 16)) == 1
    assert not any(map(sass.is_local, found))


@needs_disassembler
def test_spills_inside_a_loop_are_seen() -> None:
    sums = "".join(f"float s{i} = in[{i}].x;" for i in range(64))
    steps = "".join(f"s{i} = s{i} * in[k + {i}].y + s{(i + 1) % 64};" for i in range(64))
    ends = " + ".join(f"s{i}" for i in range(64))
    text = (
        'extern "C" __global__ void tight(const float4* in, float* out, int n) {'
        f"{sums}\n#pragma unroll 1\nfor (int k = 0; k < n; ++k) {{ {steps} }} *out = {ends}; }}"
    )
    built = nvrtc.compile_cubin(text, "sm_80", options=("--maxrregcount=32",))
    found = nvdisasm.disassemble(built.data)["tight"]
    assert any(sass.is_local(found[number]) for loop in sass.loops(found) for number in loop.body)


def test_without_a_disassembler_there_is_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvdisasm, "find_nvdisasm", lambda: None)
    with pytest.raises(ToolchainError, match="pip install nvidia-cuda-nvdisasm"):
        nvdisasm.disassemble(b"")
