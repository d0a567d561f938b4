"""Loops of a disassembled function, and what its instructions do.

Input: instructions in order; output: loops and counts. A loop is what a jump back to an instruction
closes that every way to the jump goes through; code that the assembler moves behind the end of a
function, and from there back, is none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import networkx as nx

from ramforge.codegen.build.nvdisasm import Instruction

Numbers = frozenset[int]

# Arithmetic and comparisons of floats, and products of small matrices of whatever.
_MATH = frozenset(
    (
        *("FFMA", "FADD", "FMUL", "FMNMX", "FSETP", "MUFU", "FFMA2", "FADD2", "FMUL2"),
        *("DFMA", "DADD", "DMUL", "DMNMX", "DSETP", "HMMA", "IMMA", "DMMA", "IDP"),
    )
)
_ENDS = frozenset(("EXIT", "RET"))
_JUMPS = frozenset(("BRA", "BRX", "JMP", "JMX"))
_WIDTH = re.compile(r"\.[US]?(8|16|32|64|128)\b")
_SPACES = {
    "LDG": "global",
    "LDGSTS": "global",
    "LD": "generic",
    "LDS": "shared",
    "LDSM": "shared",
    "STG": "global",
    "ST": "generic",
    "STS": "shared",
}
_STORES = frozenset(("STG", "ST", "STS"))
_WIDE = 16


@dataclass(frozen=True, slots=True)
class Access:
    """``space`` is generic where the assembler does not know which memory it is."""

    space: str
    is_store: bool
    nbytes: int


@dataclass(frozen=True, slots=True)
class Loop:
    """The numbers of its instructions; those of the loops in it are among them."""

    head: int
    body: Numbers


@dataclass(frozen=True, slots=True)
class Outline:
    """``math`` of the ``instructions`` of the main loop do arithmetic; ``enclosing`` are those of
    the loop around it, its own left out. Without a loop all of the code stands for it.
    """

    math: int
    instructions: int
    enclosing: int
    stack_accesses_in_loops: int

    @property
    def math_share(self) -> float:
        return self.math / self.instructions if self.instructions else 0.0


def outline(code: Sequence[Instruction]) -> Outline:
    """Where a function spends its time, as far as its text tells."""
    found = loops(code)
    main = main_loop(code, found)
    body = main.body if main else Numbers(range(len(code)))
    outer = around(main, found) if main else None
    looped = Numbers().union(*(each.body for each in found))
    return Outline(
        sum(is_math(code[number]) for number in body),
        len(body),
        len(outer.body - body) if outer else 0,
        sum(is_local(code[number]) for number in looped),
    )


def is_math(instruction: Instruction) -> bool:
    """What moves a constant is none."""
    return instruction.base in _MATH and not instruction.operands.count("RZ") > 1


def access(instruction: Instruction) -> Access | None:
    """What memory an instruction reads or writes, if any but constants and its own stack."""
    space = _SPACES.get(instruction.base)
    if space is None or instruction.predicate == "!PT":
        return None
    if instruction.base == "LDSM":
        return Access(space, False, _WIDE)  # a row of a matrix for each thread
    found = _WIDTH.findall(instruction.opcode)
    bits = int(found[-1]) if found else 32
    return Access(space, instruction.base in _STORES, bits // 8)


def is_local(instruction: Instruction) -> bool:
    """Whether it reads or writes what a thread keeps on its stack: spilled registers above all."""
    return instruction.base in ("LDL", "STL")


def loops(code: Sequence[Instruction]) -> tuple[Loop, ...]:
    """All loops, by where they begin; jumps to the same place are one loop."""
    graph = _flow(code)
    dominators = nx.immediate_dominators(graph, 0)
    bodies: dict[int, set[int]] = {}
    for source, head in graph.edges:
        if source in dominators and source != head and _dominates(dominators, head, source):
            bodies.setdefault(head, {head}).update(_between(graph, head, source))
    return tuple(Loop(head, frozenset(bodies[head])) for head in sorted(bodies))


def main_loop(code: Sequence[Instruction], found: Sequence[Loop]) -> Loop | None:
    """The one with the most math outside of the loops in it, or memory if none has any."""
    weights = {}
    for loop in found:
        inner = Numbers().union(*(other.body for other in found if other.body < loop.body))
        own = [code[number] for number in loop.body - inner]
        weights[loop] = sum(map(is_math, own)), sum(access(each) is not None for each in own)
    return max(found, key=weights.__getitem__, default=None)


def around(loop: Loop, found: Iterable[Loop]) -> Loop | None:
    """The next loop around another."""
    outer = [other for other in found if loop.body < other.body]
    return min(outer, key=lambda other: len(other.body), default=None)


def opcodes(code: Iterable[Instruction]) -> Counter[str]:
    """How often each is there, without suffixes."""
    return Counter(instruction.base for instruction in code)


def _flow(code: Sequence[Instruction]) -> nx.DiGraph:
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from(range(len(code)))
    for number, instruction in enumerate(code):
        graph.add_edges_from((number, after) for after in _after(number, instruction, len(code)))
    return graph


def _after(number: int, instruction: Instruction, count: int) -> Iterator[int]:
    """The instructions that may come next. Threads meet again (BSYNC) in front of where that is; a
    call may also be a jump that is taken.
    """
    is_jump = instruction.base in _JUMPS
    target = instruction.target if is_jump or instruction.base == "CALL" else None
    if target is not None and target < count:
        yield target
    is_certain = not instruction.predicate and "," not in instruction.operands
    if not ((is_jump and is_certain) or _leaves(instruction)) and number + 1 < count:
        yield number + 1


def _leaves(instruction: Instruction) -> bool:
    return instruction.base in _ENDS and not instruction.predicate


def _dominates(dominators: dict[int, int], head: int, number: int) -> bool:
    while number != head:
        above = dominators.get(number, number)
        if above == number or above is None:
            return False
        number = above
    return True


def _between(graph: nx.DiGraph, head: int, source: int) -> set[int]:
    """What leads to the jump without going through the head again."""
    found, left = {source}, [source]
    while left:
        for before in graph.predecessors(left.pop()):
            if before != head and before not in found:
                found.add(before)
                left.append(before)
    return found
