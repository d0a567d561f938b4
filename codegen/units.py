"""From an emitted file to the texts that are built one by one: a unit for each distinct body, and
the schedule with the kernels.

A unit's text holds what it needs and nothing else: the library, the body, and the constants that
these name. So it is the same in whichever model, schedule or place in the file the body stands, and
what was made of it can be used again. Everything comes from the file itself, by its sections.

A unit is made for a number of registers. A kernel whose blocks share an SM has fewer of them, and
the linker refuses a callee that takes more than its caller may.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ramforge.codegen import parts, sections
from ramforge.codegen.parts import Part
from ramforge.codegen.sections import PART, Section

_REGISTERS_PER_SM = 65536
_REGISTER_UNIT = 8  # a thread gets whole units of so many
_MOST_REGISTERS = 255
# So many registers a body leaves as they are. With fewer, the kernel puts away what it knows around
# each call; with more, bodies with a register tile do.
_CALLERS_REGISTERS = 16

_DEFINE = re.compile(r"^#define (RF_\w+).*$", re.M)
_WORD = re.compile(r"\w+")
_BODY = re.compile(r"^struct (\w+) \{\n.*?^\};\n", re.M | re.S)
_RUN = re.compile(r"case (\d+): (?:if constexpr \(KERNELS & (0x[0-9a-f]+)u\) )?(\w+)::run\(")
_PREFETCH = re.compile(r"case (\d+): (\w+)::prefetch\(")
_KERNEL = re.compile(r"^RF_KERNEL\((\d+), (\d+)\)$", re.M)
_THREADS = re.compile(r"^#define RF_THREADS (\d+)$", re.M)

_RUN_SIGNATURE = "(rf_view p, int task, char* arena)"
_PREFETCH_SIGNATURE = "(rf_view p, int task)"


@dataclass(frozen=True, slots=True)
class Unit:
    """One body for kernels whose threads have at most ``register_cap`` registers."""

    body: str
    register_cap: int
    text: str

    @property
    def name(self) -> str:
        """What its function is called."""
        return _unit_name(self.body, self.register_cap)


@dataclass(frozen=True, slots=True)
class Units:
    """What an emitted file is built from; ``schedule`` has the kernels, which call the units."""

    bodies: tuple[Unit, ...]
    schedule: str


@dataclass(frozen=True, slots=True)
class _Library:
    """The library as it stands in a file: what every text gets, and what some need."""

    always: Part
    optional: tuple[Part, ...]


def register_cap(threads: int) -> int:
    """What a thread may have, where so many are on an SM at once."""
    return min(_MOST_REGISTERS, _REGISTERS_PER_SM // threads // _REGISTER_UNIT * _REGISTER_UNIT)


def split(text: str) -> Units | None:
    """The units of an emitted file; None if it has not the sections of one."""
    found = sections.split(text)
    file = {section.title: section.text for section in found}
    if not {"constants", "library", "bodies", "choice of a body", "kernels"} <= file.keys():
        return None
    constants = _defines(file["constants"])
    library = _library(found)
    caps = _caps(file["constants"], file["kernels"])
    users = _users(file["choice of a body"], caps)
    bodies = {match[1]: match[0] for match in _BODY.finditer(file["bodies"])}
    made = tuple(
        Unit(name, cap, _with_needs(_unit_text(name, cap, bodies[name]), library, constants))
        for name, by_kernel in users.items()
        for cap in sorted(set(by_kernel.values()))
    )
    schedule = _choice(file["choice of a body"], users) + file["schedule"] + file["kernels"]
    # what was put before the file (RF_DEBUG and its like) is about waits and launches, not bodies
    modes = _defines(file[""])
    return Units(made, _with_needs(schedule, library, modes | constants))


def _defines(text: str) -> dict[str, str]:
    """The lines that define constants, by name."""
    return {match[1]: match[0] for match in _DEFINE.finditer(text)}


def _caps(constants: str, kernels: str) -> dict[int, int]:
    """The register cap of each kernel."""
    (threads,) = map(int, _THREADS.findall(constants))
    rows = [(int(number), int(blocks)) for number, blocks in _KERNEL.findall(kernels)]
    return {number: register_cap(threads * blocks) for number, blocks in rows}


def _users(choice: str, caps: Mapping[int, int]) -> dict[str, dict[int, int]]:
    """The kernels that run each body, each with its cap."""
    return {
        name: {
            kernel: cap for kernel, cap in caps.items() if not mask or int(mask, 16) >> kernel & 1
        }
        for _, mask, name in _RUN.findall(choice)
    }


def _library(file: Sequence[Section]) -> _Library:
    texts = [section.text for section in file if section.title == PART]
    (always,) = (section.text for section in file if section.title == "library")
    return _Library(_part(always), tuple(map(_part, texts)))


def _part(text: str) -> Part:
    return Part("", text, parts.defined(text), _words(text))


def _with_needs(text: str, library: _Library, constants: Mapping[str, str]) -> str:
    """A text behind the constants and the parts of the library that it names, each part behind
    those that it needs itself.
    """
    named = _words(text)
    kept: list[str] = []
    for part in reversed(library.optional):
        if part.defines & named:
            kept.insert(0, part.text)
            named |= part.names
    named |= library.always.names
    lines = [line for name, line in constants.items() if name in named]
    return "\n".join([*lines, "", "".join([library.always.text, *kept, text])])


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text))


def _unit_name(body: str, cap: int) -> str:
    return f"{body}_r{cap}"


def _prefetch_name(body: str, cap: int) -> str:
    return f"{_unit_name(body, cap)}_prefetch"


def _function(name: str, signature: str) -> str:
    """The head of a function that stands in one unit and is called from another."""
    return (
        f"#pragma nv_abi preserve_n_data({_CALLERS_REGISTERS})\n"
        f'extern "C" __device__ __noinline__ void {name}{signature}'
    )


def _unit_text(name: str, cap: int, body: str) -> str:
    """A body and the function that the kernels call: it is the body, which is inlined there.

    It asks for the arena itself: of an address that it is given the assembler does not know that it
    is shared memory, and reads it by instructions that can read any.
    """
    run = _function(_unit_name(name, cap), _RUN_SIGNATURE)
    text = (
        f"#undef RF_BODY\n#define RF_BODY RF_DEVICE\n{body}\n"
        f"{run} {{\n  arena = rf_arena();\n  {name}::run(p, task, arena);\n}}\n"
    )
    if "void prefetch(" not in body:
        return text
    prefetch = _function(_prefetch_name(name, cap), _PREFETCH_SIGNATURE)
    return f"{text}{prefetch} {{\n  {name}::prefetch(p, task);\n}}\n"


def _calls(body: str, by_kernel: Mapping[int, int]) -> list[str]:
    """The unit of each kernel that runs a body."""
    return [
        f"      if constexpr (KERNELS == {1 << kernel}u) {_unit_name(body, cap)}(p, task, arena);"
        for kernel, cap in by_kernel.items()
    ]


def _choice(choice: str, users: Mapping[str, Mapping[int, int]]) -> str:
    """The choice of a body again, among functions of other units."""
    prefetched = {name: number for number, name in _PREFETCH.findall(choice)}
    declared: list[str] = []
    runs: list[str] = []
    prefetches: list[str] = []
    for number, _, name in _RUN.findall(choice):
        caps = sorted(set(users[name].values()))
        declared += [_function(_unit_name(name, cap), _RUN_SIGNATURE) for cap in caps]
        runs += [f"    case {number}:", *_calls(name, users[name]), "      break;"]
        if name in prefetched:
            # whichever kernel asks for it: the unit with the fewest registers serves all
            function = _prefetch_name(name, caps[0])
            declared.append(_function(function, _PREFETCH_SIGNATURE))
            prefetches.append(f"    case {prefetched[name]}: {function}(p, task); break;")
    return "\n".join(
        [
            *(f"{head};" for head in declared),
            "template <unsigned KERNELS>",
            "RF_DEVICE void rf_run_task(int body, const rf_view& p, int task, char* arena) {",
            "  switch (body) {",
            *runs,
            "  }",
            "}",
            "RF_DEVICE void rf_prefetch_task(int body, const rf_view& p, int task) {",
            "  switch (body) {",
            *prefetches,
            "    default: break;",
            "  }",
            "}",
            "",
        ]
    )
