"""Operators and the kernel families that carry them out. Importing this fills the registry: every
module here is imported, so that a new one is found by being there.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    if not _module.ispkg:
        importlib.import_module(f"{__name__}.{_module.name}")
