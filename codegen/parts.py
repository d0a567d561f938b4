"""The parts of the library that are in a file only if something in it names what they define.

They are ``kernels/lib/half.cuh`` and its like, and the ``.cuh`` beside a family or an operator.
Nobody lists them: a part is found by its definitions, and stands behind those that it needs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

_OPTIONAL_LIBRARY = ("half.cuh", "narrow.cuh", "matrix.cuh")
_FOLDERS = ("kernels", "kernels.operators")
_DEFINED = re.compile(
    r"^(?:RF_DEVICE|RF_BODY|struct|enum|using|static|#define)\b[^;{(]*?\b(rf_\w+)\b", re.M
)
_NAME = re.compile(r"\brf_\w+")


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    text: str
    defines: frozenset[str]
    names: frozenset[str]


def named(text: str) -> list[str]:
    """The texts of the parts that this text needs, each after those that it needs itself."""
    found: list[Part] = []
    for part in _parts():
        if part.defines & set(_NAME.findall(text)):
            _collect(part, found)
    return [part.text for part in found]


def _collect(part: Part, found: list[Part]) -> None:
    if part in found:
        return
    for other in _parts():
        if other is not part and other.defines & part.names:
            _collect(other, found)
    found.append(part)


@cache
def _parts() -> tuple[Part, ...]:
    library = resources.files("ramforge.kernels.lib")
    folders = [resources.files(f"ramforge.{name}") for name in _FOLDERS]
    files = [(name, library / name) for name in _OPTIONAL_LIBRARY]
    found = [file for folder in folders for file in folder.iterdir()]
    files += sorted((file.name, file) for file in found if file.name.endswith(".cuh"))
    return tuple(_part(name, file.read_text(encoding="utf-8")) for name, file in files)


def defined(text: str) -> frozenset[str]:
    """The names that a part of the library defines."""
    return frozenset(_DEFINED.findall(text))


def _part(name: str, text: str) -> Part:
    defines = defined(text)
    return Part(name, text, defines, frozenset(_NAME.findall(text)) - defines)
