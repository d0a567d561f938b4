"""The kernel families, the tile library (``lib``) and the operators that the families carry out
(``operators``). Importing this imports them all, which fills the registry.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
