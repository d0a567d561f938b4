"""What developers look at: numbered texts of every stage in the folder that RAMFORGE_DUMP names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write(number: int, name: str, text: Callable[[], str]) -> None:
    """Write one stage; without the variable the text is not even made."""
    folder = os.environ.get("RAMFORGE_DUMP")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / f"{number:02d}_{name}").write_text(text(), encoding="utf-8")
