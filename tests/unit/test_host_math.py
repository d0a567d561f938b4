"""The functions that a core computes itself, on floats from all over their range."""

from __future__ import annotations

import ctypes
import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ramforge.codegen.build import host
from ramforge.codegen.build.toolchain import find_host_compiler
from tests.helpers import Array

LIBRARY = Path(host.__file__).parents[2] / "kernels" / "lib"
LOOP = """
extern "C" void all_{0}(const float* x, float* y, int count) {{
  _Pragma("GCC ivdep") for (int i = 0; i < count; ++i) y[i] = rf_{0}(x[i]);
}}
"""


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "tanh": np.tanh,
    "log": np.log,
    "sigmoid": sigmoid,
    "erf": lambda x: np.array([math.erf(value) for value in x]),
}
SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38)
# Where exp becomes infinite, subnormal and 0; between the parts of tanh, erf and log.
EDGES = (88.722, 88.723, 88.73, -87.34, -103.97, -103.98, -104.1, 0.3, 0.9277344, 4.0, 0.70710678)


def source() -> str:
    library = "".join((LIBRARY / f"{name}.cuh").read_text() for name in ("platform", "math"))
    return library + "".join(map(LOOP.format, FUNCTIONS))


def inputs() -> Array:
    everywhere = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = np.linspace(-12, 12, 200_001, dtype=np.float32)
    return np.concatenate([everywhere, near, np.float32(SPECIAL), np.float32(EDGES)])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_right_to_three_units_of_the_last_place(name: str) -> None:
    x = inputs()
    found = np.empty_like(x)
    function = getattr(ctypes.CDLL(str(host.build_library(source()))), f"all_{name}")
    function(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(found.ctypes.data), len(x))
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name](x.astype(np.float64))
        wanted = exact.astype(np.float32)
        unit = np.spacing(np.abs(wanted)).astype(np.float64)
        error = np.abs(found.astype(np.float64) - exact) / unit
    is_finite = np.isfinite(wanted)
    np.testing.assert_array_equal(found[~is_finite], wanted[~is_finite])
    assert is_finite.any() and error[is_finite].max() <= 3


def test_loops_over_them_are_vector_code(tmp_path: Path) -> None:
    compiler = find_host_compiler()
    if compiler.name != "g++":
        pytest.skip("only g++ is asked what it made of a loop")
    (tmp_path / "math.cpp").write_text(source())
    flags = [*host.host_flags(compiler), "-O3", "-fopt-info-vec", "-c", "math.cpp", "-o", "math.o"]
    built = subprocess.run(
        [*compiler.command, *flags], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = {line.split(":")[1] for line in built.stderr.splitlines() if "loop vectorized" in line}
    assert len(lines) == len(FUNCTIONS), built.stderr
