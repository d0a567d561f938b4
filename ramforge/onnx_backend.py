"""``onnx.backend.test.BackendTest(ramforge.onnx_backend)``: ONNX's own interface to a backend."""

from __future__ import annotations

from ramforge.runtime.onnx_backend import (
    RamforgeBackend,
    RamforgeRep,
    is_compatible,
    prepare,
    run_model,
    run_node,
    supports_device,
)

__all__ = [
    "RamforgeBackend",
    "RamforgeRep",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
]
