"""Copies that run on by themselves and products of small matrices, as the emulator makes them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from ramforge.codegen import parts
from ramforge.runtime.drivers.emulator import Emulator, EmulatorReport, Order, build

EVERY_ORDER = pytest.mark.parametrize("order", tuple(Order), ids=lambda order: order.name.lower())
HEAD = """
#define RF_SIMT 1
#define RF_DEVICE static inline __attribute__((always_inline))
#define RF_UNROLL
"""
KERNEL = """
extern "C" __attribute__((visibility("default"))) int rf_emulate(
    const rf_emulator_config* config, char* const* spaces, void*, int) {
  return rf_emulator_launch(config, [=] {
    const int thread = (int)threadIdx.x;
    char* const arena = rf_emulator_arena();
    (void)thread; (void)arena;
    %s
  });
}
"""
# Two stages; TOO_FEW waits for one group less than it reads, TOO_SOON does not wait for readers.
PIPELINE = """
    const float* in = (const float*)spaces[0];
    float* out = (float*)spaces[1];
    float* stages = (float*)arena;
    const int threads = (int)blockDim.x, steps = 6;
    rf_copy<4>(stages + thread, in + thread, true);
    rf_copies_commit();
    for (int step = 0; step < steps; ++step) {
      const int next = step + 1;
      if (next < steps)
        rf_copy<4>(stages + next % 2 * threads + thread, in + next * threads + thread, true);
      rf_copies_commit();
#ifdef TOO_FEW
      rf_copies_wait<2>();
#else
      rf_copies_wait<1>();
#endif
      __syncthreads();
      out[step * threads + thread] = stages[step % 2 * threads + threads - 1 - thread];
#ifndef TOO_SOON
      __syncthreads();
#endif
    }
"""


def emulator(body: str, *, race: bool = False, defines: tuple[str, ...] = ()) -> Emulator:
    library = "\n".join(parts.named("rf_multiply"))
    return Emulator(build(HEAD + library + KERNEL % body, race=race, defines=defines))


def run(
    loaded: Emulator, given: NDArray[Any], out: NDArray[Any], order: Order, seed: int = 0
) -> EmulatorReport:
    spaces = [array.view(np.uint8).reshape(-1) for array in (given, out)]
    return loaded.launch(
        0,
        spaces=spaces,
        control=np.zeros(16, np.uint32),
        blocks=1,
        threads=64 if out.size > 256 else 32,
        arena_bytes=4096,
        spin_seconds=1,
        order=order,
        seed=seed,
    )


def pipelined(order: Order, seed: int, *defines: str, race: bool = False) -> tuple[bool, bool]:
    """Whether the output is right, and whether the launch was fine."""
    given = np.random.default_rng(seed).standard_normal((6, 64)).astype(np.float32)
    out = np.zeros_like(given)
    report = run(emulator(PIPELINE, defines=defines, race=race), given, out, order, seed)
    return bool(np.array_equal(out, given[:, ::-1])), report.ok


@EVERY_ORDER
def test_copies_are_there_once_they_are_waited_for(order: Order) -> None:
    assert all(pipelined(order, seed) == (True, True) for seed in range(4))


@EVERY_ORDER
@pytest.mark.parametrize("mistake", ["TOO_FEW", "TOO_SOON"])
def test_a_pipeline_that_does_not_wait_is_found_out(mistake: str, order: Order) -> None:
    """Copies that come late show the one mistake, copies that come at once the other."""
    right = [pipelined(order, seed, mistake)[0] for seed in range(4)]
    shows = {
        "TOO_FEW": order is not Order.DESCENDING,
        "TOO_SOON": order is not Order.ASCENDING,
    }
    assert all(right) is not shows[mistake]


@EVERY_ORDER
def test_the_race_build_sees_either_mistake_in_every_order(order: Order) -> None:
    assert pipelined(order, 1, race=True) == (True, True)
    assert not pipelined(order, 1, "TOO_SOON", race=True)[1]
    assert not pipelined(order, 1, "TOO_FEW", race=True)[1]


def test_what_is_not_present_is_zero() -> None:
    body = """
    char* to = arena + thread * 16;
    rf_copy<16>(to, spaces[0] + thread * 16, thread % 3 != 0);
    rf_copies_commit();
    rf_copies_wait<0>();
    for (int i = 0; i < 16; ++i) spaces[1][thread * 16 + i] = to[i];
    """
    given = np.arange(32 * 4, dtype=np.float32).reshape(32, 4) + 1
    out = np.full_like(given, np.nan)
    assert run(emulator(body), given, out, Order.RANDOM).ok
    assert np.array_equal(out, np.where(np.arange(32)[:, None] % 3 != 0, given, 0))


# As the library does it: 16-byte pieces of K, those of one row (or column) PITCH apart.
PRODUCT = """
    const rf_chunk* a = (const rf_chunk*)spaces[0];           // [2][16]
    const rf_chunk* b = (const rf_chunk*)spaces[0] + 2 * 16;  // [2][16]
    float* out = (float*)spaces[1];                           // [16][16]
    unsigned a_parts[1][4], both[4], b_parts[2][2];
    rf_load_matrices(a_parts[0], a + thread / 16 * 16 + thread % 16);
    rf_load_matrices(both, b + thread / 8 % 2 * 16 + thread / 16 * 8 + thread % 8);
    for (int i = 0; i < 4; ++i) b_parts[i / 2][i % 2] = both[i];
    float sums[1][2][4];
    for (int j = 0; j < 2; ++j)
      for (int i = 0; i < 4; ++i)
        sums[0][j][i] = out[(thread / 4 + i / 2 * 8) * 16 + j * 8 + thread % 4 * 2 + i % 2];
    rf_multiply<FACTORS>(sums, a_parts, b_parts);
    for (int j = 0; j < 2; ++j)
      for (int i = 0; i < 4; ++i)
        out[(thread / 4 + i / 2 * 8) * 16 + j * 8 + thread % 4 * 2 + i % 2] = sums[0][j][i];
"""


@pytest.mark.parametrize(
    ("factors", "dtypes"),
    [
        ("RF_TF32", (np.float32, np.float32)),
        ("RF_FLOAT16", (np.float16, np.float16)),
        ("RF_BFLOAT16", (ml_dtypes.bfloat16, ml_dtypes.bfloat16)),
        ("RF_S8_S8", (np.int8, np.int8)),
        ("RF_S8_U8", (np.int8, np.uint8)),
        ("RF_U8_S8", (np.uint8, np.int8)),
        ("RF_U8_U8", (np.uint8, np.uint8)),
    ],
)
def test_a_warp_multiplies_matrices(factors: str, dtypes: tuple[Any, Any]) -> None:
    """Whole numbers, so that every sum is exact in whatever order it is made."""
    kinds = [np.dtype(dtype) for dtype in dtypes]
    depth, is_bytes = 32 // kinds[0].itemsize, kinds[0].itemsize == 1
    total = np.dtype(np.int32 if is_bytes else np.float32)
    random = np.random.default_rng(3)
    spans = [np.iinfo(kind) if is_bytes else None for kind in kinds]
    a, b = (
        random.integers(*((span.min, span.max + 1) if span else (-8, 9)), (16, depth)).astype(total)
        for span in spans
    )
    before = random.integers(-8, 9, (16, 16)).astype(total)
    chunks = [
        array.astype(kind).reshape(16, 2, -1).transpose(1, 0, 2)
        for array, kind in zip((a, b), kinds, strict=True)
    ]
    given = np.stack([np.ascontiguousarray(each).view(np.uint8) for each in chunks]).reshape(-1)
    out = before.copy()
    chunk = "struct rf_chunk { unsigned words[4]; };\n"
    text = PRODUCT.replace("FACTORS", factors)
    loaded = emulator(chunk + (text.replace("float", "int") if is_bytes else text))
    assert run(loaded, given, out, Order.RANDOM).ok
    assert np.array_equal(out, before + a @ b.T)


def test_tf32_keeps_19_bits_and_numbers_that_are_none() -> None:
    body = "((unsigned*)spaces[1])[thread] = rf_to_tf32(((const unsigned*)spaces[0])[thread]);"
    given = np.random.default_rng(5).standard_normal(32).astype(np.float32)
    given[:4] = np.nan, np.inf, -np.inf, 0
    out = np.zeros_like(given)
    assert run(emulator(body), given, out, Order.ASCENDING).ok
    kept = np.isfinite(given)
    assert np.array_equal(out[~kept], given[~kept], equal_nan=True)
    assert not np.any(out.view(np.uint32)[kept] & 0x1FFF)
    assert np.all(np.abs(out[kept] - given[kept]) <= 2.0**-11 * np.abs(given[kept]))
