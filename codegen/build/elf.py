"""What a cubin says of the functions in it. A cubin is an ELF file with sections of NVIDIA's own;
those of ``.nv.info`` are lists of attributes, which the CUDA binary utilities print.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"\x7fELF"
_HEADER = struct.Struct("<40xQ10xHHH")  # where the section headers are, their size and number
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_FUNCTION = 2  # STT_FUNC
_SIZED = 4  # the form of an attribute that has a value of its own size
_RESERVED = ".nv.reservedSmem.offset0"
_RESERVED_BYTES = 1024  # of each block on some architectures: part of a kernel's shared memory
_REGISTERS = 0x2F  # EIATTR_REGCOUNT: a symbol, and what a thread of it takes


class Function(NamedTuple):
    """A kernel, or a function that is called."""

    code_bytes: int
    registers: int  # 0 where the file does not say, as of a body inside a kernel's section
    shared_bytes: int


class _Section(NamedTuple):
    name: str
    content: bytes
    size: int


def functions(data: bytes) -> dict[str, Function]:
    """All functions by name."""
    sections = {section.name: section for section in _sections(data)}
    names, symbols = sections[".strtab"].content, sections[".symtab"].content
    registers = dict(_register_counts(sections[".nv.info"].content))
    reserved = _RESERVED_BYTES if _RESERVED.encode() in names else 0
    found = {}
    for number, symbol in enumerate(_SYMBOL.iter_unpack(symbols)):
        start, kind, _, section, _, size = symbol
        if kind & 15 == _FUNCTION and section:  # it has no section where others define it
            name = _text(names, start)
            shared = sections.get(f".nv.shared.{name}")
            own = max(0, shared.size - reserved) if shared else 0
            found[name] = Function(size, registers.get(number, 0), own)
    return found


def _sections(data: bytes) -> Iterator[_Section]:
    assert data[:4] == MAGIC
    offset, size, count, names_number = _HEADER.unpack_from(data)
    rows = [_SECTION.unpack_from(data, offset + size * number) for number in range(count)]
    names = data[rows[names_number][4] :]
    for row in rows:
        name, kind, start, length = row[0], row[1], row[4], row[5]
        is_empty = kind == 8  # SHT_NOBITS: room, but nothing in the file
        yield _Section(
            _text(names, name), b"" if is_empty else data[start : start + length], length
        )


def _register_counts(info: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(info):
        form, attribute, value = struct.unpack_from("<BBH", info, at)
        at += 4
        if form != _SIZED:
            continue
        if attribute == _REGISTERS:
            symbol, count = struct.unpack_from("<II", info, at)
            yield symbol, count
        at += value


def _text(table: bytes, start: int) -> str:
    return table[start : table.index(b"\0", start)].decode()
