"""The sections of an emitted file. Each begins with a comment line that holds its title; the
template writes these lines, and who builds the file in units reads them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PART = "part of the library"  # one that is there because something in the file names it
_WIDTH = 119
_RULE = re.compile(r"^// ---- (.+) -{3,}\n", re.M)


class Section(NamedTuple):
    """The text between two rules; what stands before the first one has no title."""

    title: str
    text: str


def rule(title: str) -> str:
    """The line that begins a section."""
    return f"// ---- {title} ".ljust(_WIDTH, "-")


def split(text: str) -> tuple[Section, ...]:
    """All sections in their order, without the rules."""
    head, *rest = _RULE.split(text)
    return (Section("", head), *map(Section, rest[::2], rest[1::2]))
