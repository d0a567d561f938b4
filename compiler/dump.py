"""What developers look at: numbered texts of every stage in the folder that RAMFORGE_DUMP names."""

from __future__ import annotations

import os
from pathlib import Path


def write(number: int, name: str, text: str) -> None:
    """Write one stage; nothing without the variable."""
    folder = os.environ.get("RAMFORGE_DUMP")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / f"{number:02d}_{name}").write_text(text, encoding="utf-8")
