"""The data-flow graph: tensors, nodes and constants, all immutable.

What always holds (``verify`` in ``check.py`` says so): names are unique, nodes stand in topological
order, every tensor has a static shape, every node input is a graph input, a constant or an earlier
output.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class DType(enum.Enum):
    """An element type: its ONNX name, its C name in the emitted text and its NumPy type.

    A type with a fourth entry is only a way to store numbers: C computes with that other type, and
    rounds after every operation. Types of less than a byte take a byte each.
    """

    FLOAT32 = ("float32", "float", "float32")
    FLOAT64 = ("float64", "double", "float64")
    FLOAT16 = ("float16", "rf_half", "float16", "float")
    BFLOAT16 = ("bfloat16", "rf_bfloat16", ml_dtypes.bfloat16, "float")
    FLOAT8E4M3FN = ("float8e4m3fn", "rf_float8e4m3fn", ml_dtypes.float8_e4m3fn, "float")
    FLOAT8E4M3FNUZ = ("float8e4m3fnuz", "rf_float8e4m3fnuz", ml_dtypes.float8_e4m3fnuz, "float")
    FLOAT8E5M2 = ("float8e5m2", "rf_float8e5m2", ml_dtypes.float8_e5m2, "float")
    FLOAT8E5M2FNUZ = ("float8e5m2fnuz", "rf_float8e5m2fnuz", ml_dtypes.float8_e5m2fnuz, "float")
    FLOAT8E8M0 = ("float8e8m0", "rf_float8e8m0", ml_dtypes.float8_e8m0fnu, "float")
    FLOAT4E2M1 = ("float4e2m1", "rf_float4e2m1", ml_dtypes.float4_e2m1fn, "float")
    INT8 = ("int8", "signed char", "int8")
    INT16 = ("int16", "short", "int16")
    INT32 = ("int32", "int", "int32")
    INT64 = ("int64", "long long", "int64")
    UINT8 = ("uint8", "unsigned char", "uint8")
    UINT16 = ("uint16", "unsigned short", "uint16")
    UINT32 = ("uint32", "unsigned int", "uint32")
    UINT64 = ("uint64", "unsigned long long", "uint64")
    INT4 = ("int4", "rf_int4", ml_dtypes.int4, "int")
    UINT4 = ("uint4", "rf_uint4", ml_dtypes.uint4, "int")
    INT2 = ("int2", "rf_int2", ml_dtypes.int2, "int")
    UINT2 = ("uint2", "rf_uint2", ml_dtypes.uint2, "int")
    BOOL = ("bool", "bool", "bool")

    def __init__(self, label: str, c_name: str, numpy: Any, c_compute: str = "") -> None:
        self.label = label
        self.c_name = c_name
        self.c_compute = c_compute or c_name
        self.numpy: np.dtype[Any] = np.dtype(numpy)

    @property
    def itemsize(self) -> int:
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        return "float" in self.label

    @property
    def is_stored_only(self) -> bool:
        """Whether C computes with another type."""
        return self.c_compute != self.c_name

    @property
    def wide(self) -> DType:
        """The type that it is computed in."""
        if not self.is_stored_only:
            return self
        return DType.FLOAT32 if self.is_float else DType.INT32

    @staticmethod
    def named(label: str) -> DType:
        """The DType of an ONNX name in small letters; KeyError if there is none."""
        return _BY_LABEL[label]

    @staticmethod
    def of(array_or_dtype: Any) -> DType:
        """The DType of a NumPy array or dtype; KeyError if there is none."""
        return _BY_NUMPY[np.dtype(getattr(array_or_dtype, "dtype", array_or_dtype))]


_BY_LABEL = {dtype.label: dtype for dtype in DType}
_BY_NUMPY = {dtype.numpy: dtype for dtype in DType}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named value. ``layout`` lists the axes from the outermost to the innermost in memory."""

    name: str
    shape: tuple[int, ...]
    dtype: DType
    layout: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.layout:
            object.__setattr__(self, "layout", tuple(range(len(self.shape))))
        if sorted(self.layout) != list(range(len(self.shape))):
            raise ValueError(f"{self.name}: layout {self.layout} does not fit shape {self.shape}")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def is_row_major(self) -> bool:
        """Whether memory order is index order; axes of length one do not matter."""
        long_axes = [axis for axis in self.layout if self.shape[axis] != 1]
        return long_axes == sorted(long_axes)

    @property
    def strides(self) -> tuple[int, ...]:
        """Distance in elements between neighbours along each axis."""
        strides = [0] * len(self.shape)
        step = 1
        for axis in reversed(self.layout):
            strides[axis] = step
            step *= self.shape[axis]
        return tuple(strides)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator applied to named tensors. ``origin`` names the ONNX nodes it came from.

    An optional input that is absent is the empty string, as in ONNX.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    origin: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "attrs", MappingProxyType(dict(self.attrs)))
        if not self.origin:
            object.__setattr__(self, "origin", (self.name,))

    def attr(self, name: str, default: Any = None) -> Any:
        return self.attrs.get(name, default)

    def with_attrs(self, **changes: Any) -> Node:
        return replace(self, attrs={**self.attrs, **changes})


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A whole model. ``tensors`` describes every name; ``constants`` holds those that are known.

    ``checks`` are outputs that the model does not have: each is a number that is 0 if a run went
    well, with what is wrong if it is not.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, Array]
    checks: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))
        object.__setattr__(self, "checks", MappingProxyType(dict(self.checks)))

    def tensor(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def answers(self) -> tuple[str, ...]:
        """The outputs that the model itself has."""
        return tuple(name for name in self.outputs if name not in self.checks)

    def producers(self) -> dict[str, Node]:
        """The node that makes each tensor."""
        return {output: node for node in self.nodes for output in node.outputs}

    def levels(self) -> dict[str, int]:
        """How many nodes have to run one after the other until each tensor is there."""
        found: dict[str, int] = {}
        for node in self.nodes:
            level = 1 + max((found.get(name, 0) for name in node.inputs), default=0)
            found.update(dict.fromkeys(node.outputs, level))
        return found

    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor, a node once per tensor; also those of unknown type."""
        readers: dict[str, list[Node]] = {name: [] for name in self.tensors}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    readers.setdefault(name, []).append(node)
        return readers

    def rebuilt(
        self,
        nodes: Iterable[Node],
        tensors: Iterable[Tensor] = (),
        constants: Mapping[str, Array] | None = None,
        checks: Mapping[str, str] | None = None,
    ) -> Graph:
        """The same model with other nodes; new tensors and constants are added, unused ones go.

        ``checks`` takes the place of those there are.
        """
        if checks is None:
            checks = self.checks
        outputs = (*self.answers, *checks)
        nodes = tuple(nodes)
        known = {**self.tensors, **{tensor.name: tensor for tensor in tensors}}
        values = {**self.constants, **(constants or {})}
        for name, value in (constants or {}).items():
            if name not in known or known[name].shape != value.shape:
                known[name] = Tensor(name, value.shape, DType.of(value))
        used = {*self.inputs, *outputs}
        for node in nodes:
            used.update(name for name in (*node.inputs, *node.outputs) if name)
        return Graph(
            self.name,
            self.inputs,
            outputs,
            nodes,
            {name: tensor for name, tensor in known.items() if name in used},
            {name: value for name, value in values.items() if name in used},
            checks,
        )
