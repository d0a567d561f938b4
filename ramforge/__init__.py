"""ramforge: one ONNX model in, one persistent-thread CUDA file out.

artifact = ramforge.compile("model.onnx", target="h200", dims={"batch": 8})
with ramforge.Session(artifact) as session:
    outputs = session.run(None, {"x": array})
ramforge.verify(artifact, "model.onnx").raise_for_status()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ramforge.compiler.errors import (
    ArtifactError,
    CompileError,
    DeviceError,
    InvalidModel,
    Problem,
    RamforgeError,
    ShapeError,
    ToolchainError,
    UnsupportedModel,
    VerificationError,
)
from ramforge.compiler.version import VERSION

if TYPE_CHECKING:
    from ramforge.runtime.api import compile, load
    from ramforge.runtime.session import Session
    from ramforge.runtime.verify import verify

__version__ = VERSION

__all__ = [
    "ArtifactError",
    "CompileError",
    "DeviceError",
    "InvalidModel",
    "Problem",
    "RamforgeError",
    "Session",
    "ShapeError",
    "ToolchainError",
    "UnsupportedModel",
    "VerificationError",
    "__version__",
    "compile",
    "load",
    "verify",
]

# Names that pull in onnx or the build tools are found when they are first used: `import ramforge`
# stays quick.
_LAZY = {
    "compile": "ramforge.runtime.api",
    "load": "ramforge.runtime.api",
    "Session": "ramforge.runtime.session",
    "verify": "ramforge.runtime.verify",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ramforge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
