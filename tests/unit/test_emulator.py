"""The emulator against kernels written by hand: right ones run, each kind of wrong one is found."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ramforge.compiler.errors import DeviceError, ShapeError, ToolchainError
from ramforge.runtime.drivers.emulator import Emulator, EmulatorReport, Order, build

ORDERS = tuple(Order)
EVERY_ORDER = pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.name.lower())
WRAPPING = 0xFFFFFFFE  # a counter that wraps within a few signals

# Each text is the body of a kernel; `arena` is its shared memory, `thread` and `block` its place.
PROLOGUE = """
static void kernel(char* const* spaces, unsigned* control) {
  const unsigned thread = threadIdx.x, block = blockIdx.x;
  float* arena = (float*)rf_emulator_arena();
  float* in = (float*)spaces[0];
  float* out = (float*)spaces[1];
  (void)thread; (void)block; (void)arena; (void)in; (void)out; (void)control;
"""
EPILOGUE = """
}
extern "C" __attribute__((visibility("default"))) int rf_emulate(
    const rf_emulator_config* config, char* const* spaces, void* control, int launch) {
  (void)launch;
  return rf_emulator_launch(config, [=] { kernel(spaces, (unsigned*)control); });
}
"""


def floats(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).standard_normal(count).astype(np.float32)


def emulator(body: str, *, race: bool = False, defines: tuple[str, ...] = ()) -> Emulator:
    return Emulator(build(PROLOGUE + body + EPILOGUE, race=race, defines=defines))


def run(
    loaded: Emulator,
    given: NDArray[Any],
    out: NDArray[Any],
    **options: Any,
) -> EmulatorReport:
    options = {"blocks": 1, "threads": 128, "arena_bytes": 4096, "spin_seconds": 1} | options
    options.setdefault("control", np.zeros(16, np.uint32))
    spaces = [array.view(np.uint8) for array in (given, out)]
    return loaded.launch(0, spaces=spaces, **options)


# Barriers, shuffles, shared memory.

REVERSE = """
  for (int round = 0; round < 3; ++round) {
    arena[thread] = in[thread] + round;
#ifndef NO_FIRST_BARRIER
    __syncthreads();
#endif
    out[round * blockDim.x + thread] = arena[blockDim.x - 1 - thread];
#ifndef NO_SECOND_BARRIER
    __syncthreads();
#endif
  }
"""


@EVERY_ORDER
@pytest.mark.parametrize("threads", [1, 32, 48, 256, 1024])
def test_a_barrier_separates_writing_from_reading(order: Order, threads: int) -> None:
    given, out = floats(threads), np.zeros(3 * threads, np.float32)
    report = run(emulator(REVERSE), given, out, threads=threads, order=order)
    assert report.ok, report.message
    expected = np.stack([given[::-1] + np.float32(k) for k in range(3)])
    np.testing.assert_array_equal(out.reshape(3, threads), expected)


def test_the_race_build_finds_nothing_in_a_right_kernel() -> None:
    given, out = floats(256), np.zeros(768, np.float32)
    report = run(emulator(REVERSE, race=True), given, out, threads=256, order=Order.RANDOM)
    assert report.ok, report.race_text
    assert report.accesses == 4 * 3 * 256


@pytest.mark.parametrize("missing", ["NO_FIRST_BARRIER", "NO_SECOND_BARRIER"])
def test_a_missing_barrier_shows_in_the_result_of_some_order(missing: str) -> None:
    loaded = emulator(REVERSE, defines=(missing,))
    right = []
    for order in ORDERS:
        given, out = floats(256), np.zeros(768, np.float32)
        assert run(loaded, given, out, threads=256, order=order).ok
        expected = np.concatenate([given[::-1] + np.float32(k) for k in range(3)])
        right.append(np.array_equal(out, expected))
    assert not all(right)


@EVERY_ORDER
@pytest.mark.parametrize(
    ("missing", "kind"),
    [("NO_FIRST_BARRIER", "read-after-write"), ("NO_SECOND_BARRIER", "write-after-read")],
)
def test_a_missing_barrier_is_a_race_in_every_order(missing: str, kind: str, order: Order) -> None:
    loaded = emulator(REVERSE, race=True, defines=(missing,))
    report = run(loaded, floats(256), np.zeros(768, np.float32), threads=256, order=order)
    assert not report.ok
    assert any(name in report.race_text for name in (kind, "uninitialised"))
    assert "shared memory of block 0+0x" in report.race_text


VOTES = """
  for (int round = 0; round < 4; ++round) {
    arena[thread] = in[thread];
    const int any = __syncthreads_or(round == 1 || (round == 2 && thread == 77 && block == 1));
    out[(block * 4 + round) * blockDim.x + thread] = any + arena[blockDim.x - 1 - thread];
    __syncthreads();
  }
"""


@EVERY_ORDER
@pytest.mark.parametrize("race", [False, True])
def test_a_barrier_that_votes_tells_every_thread_of_its_block(order: Order, race: bool) -> None:
    given, out = np.zeros(128, np.float32), np.full((2, 4, 128), 5, np.float32)
    report = run(emulator(VOTES, race=race), given, out, blocks=2, order=order)
    assert report.ok, report.message + report.race_text
    np.testing.assert_array_equal(out, np.array([[0, 1, 0, 0], [0, 1, 1, 0]])[:, :, None] + out * 0)


def test_threads_that_meet_in_different_barriers_are_told() -> None:
    body = "if (thread == 3) __syncthreads(); else __syncthreads_or(1);"
    report = run(emulator(body), floats(1), floats(1))
    assert report.status == 3
    assert "only 127 of 128 threads vote" in report.message


SHUFFLES = """
  const unsigned lane = thread % 32;
  const unsigned all = ~0u;
  int value = (int)thread;
  out[thread] = (float)__shfl_xor_sync(all, value, 5);
  out[blockDim.x + thread] = (float)__shfl_sync(all, value, (int)(lane / 4));
  out[2 * blockDim.x + thread] = (float)__shfl_down_sync(all, value, 3);
  out[3 * blockDim.x + thread] = (float)__shfl_xor_sync(all, 1e10 * thread, 1);
  double total = in[thread];
  for (int offset = 16; offset > 0; offset /= 2) total += __shfl_down_sync(all, total, offset);
  if (lane == 0) out[4 * blockDim.x + thread / 32] = (float)total;
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  if (lane < 16) value = __shfl_sync(half, value, 7); else value = __shfl_sync(half, value, 23);
  out[5 * blockDim.x + thread] = (float)value;
"""


@EVERY_ORDER
@pytest.mark.parametrize("race", [False, True])
def test_shuffles_move_what_they_say(order: Order, race: bool) -> None:
    given, out = floats(128), np.zeros((6, 128), np.float32)
    assert run(emulator(SHUFFLES, race=race), given, out, order=order).ok
    thread = np.arange(128)
    warp, lane = thread // 32 * 32, thread % 32
    np.testing.assert_array_equal(out[0], thread ^ 5)
    np.testing.assert_array_equal(out[1], warp + lane // 4)
    np.testing.assert_array_equal(out[2], np.where(lane < 29, thread + 3, thread))
    np.testing.assert_array_equal(out[3], ((thread ^ 1) * 1e10).astype(np.float32))
    np.testing.assert_allclose(out[4, :4], given.reshape(4, 32).sum(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(out[5], warp + np.where(lane < 16, 7, 23))


REDUCTION = """
  float sum = 0;
  for (unsigned i = thread; i < 5000; i += blockDim.x) sum += in[block * 5000 + i];
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
  if (thread % 32 == 0) arena[thread / 32] = sum;
  __syncthreads();
  if (thread < 32) {
    sum = thread < blockDim.x / 32 ? arena[thread] : 0;
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    if (thread == 0) out[block] = sum;
  }
"""


@EVERY_ORDER
@pytest.mark.parametrize("race", [False, True])
def test_a_reduction_through_shared_memory(order: Order, race: bool) -> None:
    given, out = floats(15000), np.zeros(3, np.float32)
    report = run(emulator(REDUCTION, race=race), given, out, blocks=3, threads=256, order=order)
    assert report.ok, report.message + report.race_text
    np.testing.assert_allclose(out, given.reshape(3, 5000).sum(axis=1), rtol=1e-4, atol=1e-4)


WITHIN_A_WARP = """
  arena[thread] = in[thread];
#ifndef NO_SYNC
  __syncwarp();
#endif
  out[thread] = arena[thread ^ 9];
#ifdef SHUFFLE
  (void)__shfl_sync(~0u, 0, 0);
#else
  __syncwarp();
#endif
  arena[thread] = 2 * in[thread];
"""


@pytest.mark.parametrize("defines", [(), ("SHUFFLE",)])
def test_warp_operations_order_the_lanes_of_a_warp(defines: tuple[str, ...]) -> None:
    given, out = floats(128), np.zeros(128, np.float32)
    report = run(emulator(WITHIN_A_WARP, race=True, defines=defines), given, out)
    assert report.ok, report.race_text
    np.testing.assert_array_equal(out, given[np.arange(128) ^ 9])


def test_a_race_is_told_with_its_line() -> None:
    body = "arena[thread] = 1;\n  out[thread] = arena[thread ^ 1];\n"
    report = run(emulator(body, race=True), floats(1), np.zeros(128, np.float32))
    line = (PROLOGUE + body).splitlines().index("  out[thread] = arena[thread ^ 1];") + 1
    assert f"code out.cu:{line}\n" in report.race_text


def test_a_missing_syncwarp_is_a_race() -> None:
    loaded = emulator(WITHIN_A_WARP, race=True, defines=("NO_SYNC",))
    assert run(loaded, floats(128), np.zeros(128, np.float32)).races > 0


def test_a_warp_operation_does_not_order_two_warps() -> None:
    body = "arena[thread] = 1; __syncwarp(); out[thread] = arena[thread ^ 32];"
    for order in ORDERS:
        report = run(emulator(body, race=True), floats(128), np.zeros(128, np.float32), order=order)
        assert "read-after-write" in report.race_text


# Counters between blocks.

# Blocks of the lower half produce, those of the upper half consume: control[1 + k] is of pair k.
PAIRS = """
  const unsigned half = gridDim.x / 2, size = blockDim.x, start = control_start;
  const unsigned pair = block % half;
  if (block < half) {
    for (int round = 0; round < 2; ++round) {
      in[(2 * pair + round) * size + thread] = pair * 1000.0f + thread + round;
      __syncthreads();
      if (thread == 0) rf_emulator_signal(&control[1 + pair], 1);
    }
  } else {
    if (thread == 0) rf_emulator_wait(&control[1 + pair], start + WAITED, &control[0]);
    __syncthreads();
    const float* pairs = in + 2 * pair * size;
    out[pair * size + thread] = pairs[thread] + pairs[2 * size - 1 - thread];
  }
"""


def run_pairs(race: bool, waited: int, start: int = 0, **options: Any) -> EmulatorReport:
    defines = (f"WAITED={waited}", f"control_start={start}u")
    control = np.full(67, start, np.uint32)
    control[0] = 0
    out = np.zeros((66, 64), np.float32)
    options = {"blocks": 132, "threads": 64, "control": control} | options
    memory = np.full(132 * 64, np.nan, np.float32)
    report = run(emulator(PAIRS, race=race, defines=defines), memory, out, **options)
    if report.ok and waited == 2:
        expected = 2000.0 * np.arange(66)[:, None] + np.full(64, 64.0)
        np.testing.assert_array_equal(out, expected)
    return report


@EVERY_ORDER
@pytest.mark.parametrize("race", [False, True])
@pytest.mark.parametrize("start", [0, WRAPPING + 1])
def test_consumers_wait_for_their_producers(order: Order, race: bool, start: int) -> None:
    report = run_pairs(race, waited=2, start=start, order=order)
    assert report.ok, report.message + report.race_text


@EVERY_ORDER
@pytest.mark.parametrize("start", [0, WRAPPING + 1])
def test_waiting_for_one_signal_too_few_is_a_race_in_every_order(order: Order, start: int) -> None:
    report = run_pairs(race=True, waited=1, start=start, order=order)
    assert "read-after-write" in report.race_text
    assert "buffer 0+0x" in report.race_text


# Every block writes its part of a wave and reads its neighbours' parts of the wave before; two
# buffers take turns, so that a missing barrier is both kinds of hazard.
WAVES = """
  const unsigned waves = 4, size = blockDim.x;
  float* buffers[2] = {in, in + gridDim.x * size};
  for (unsigned wave = 0; wave < waves; ++wave) {
    const float* from = buffers[wave % 2];
    const unsigned neighbour = (block + 1) % gridDim.x;
    buffers[1 - wave % 2][block * size + thread] = 1 + from[neighbour * size + size - 1 - thread];
    if (wave == REMOVED) continue;
    __syncthreads();
    if (thread == 0) {
#ifdef ATOMIC
      rf_emulator_add(&control[1], 1);
#else
      rf_emulator_signal(&control[1], 1);
#endif
      const unsigned done = wave + 1 - (wave > REMOVED);
      rf_emulator_wait(&control[1], START + done * gridDim.x - FEWER, &control[0]);
    }
    __syncthreads();
  }
"""


def run_waves(
    *defines: str,
    race: bool = True,
    removed: int = 9,
    start: int = 0,
    fewer: int = 0,
    **options: Any,
) -> EmulatorReport:
    every = (*defines, f"REMOVED={removed}u", f"START={start}u", f"FEWER={fewer}u")
    memory = np.tile(np.arange(64, dtype=np.float32), 2 * 20)
    control = np.zeros(16, np.uint32)
    control[1] = start
    options = {"blocks": 20, "threads": 64, "control": control} | options
    loaded = emulator(WAVES, race=race, defines=every)
    report = run(loaded, memory, np.zeros(1, np.float32), **options)
    if report.ok:
        np.testing.assert_array_equal(memory[: 20 * 64], np.tile(np.arange(64), 20) + 4)
    return report


@EVERY_ORDER
@pytest.mark.parametrize("race", [False, True])
@pytest.mark.parametrize("start", [0, WRAPPING])
def test_waves_with_a_barrier_of_all_blocks(order: Order, race: bool, start: int) -> None:
    report = run_waves(race=race, start=start, order=order)
    assert report.ok, report.message + report.race_text


def test_an_atomic_add_releases_too() -> None:
    assert run_waves("ATOMIC", order=Order.RANDOM).ok


@EVERY_ORDER
def test_a_removed_barrier_between_waves_is_a_race(order: Order) -> None:
    assert run_waves(removed=1, order=order).races > 0


@EVERY_ORDER
def test_a_barrier_that_lacks_one_block_is_a_race(order: Order) -> None:
    assert run_waves(fewer=1, order=order).races > 0


def test_counters_go_on_where_the_launch_before_left_them() -> None:
    control = np.zeros(16, np.uint32)
    for epoch in range(3):
        report = run_waves(start=int(control[1]), control=control, order=Order.RANDOM)
        assert report.ok, report.race_text
        assert control[1] == (epoch + 1) * 80


def test_a_last_block_acquires_through_its_atomic_add() -> None:
    body = """
      in[block * blockDim.x + thread] = (float)thread;
      __syncthreads();
      if (thread == 0) ((unsigned*)arena)[0] = ADD(&control[1], 1);
      __syncthreads();
      if (((unsigned*)arena)[0] != gridDim.x - 1) return;
      float sum = 0;
      for (unsigned i = 0; i < gridDim.x; ++i) sum += in[i * blockDim.x + thread];
      out[thread] = sum;
    """
    for order in ORDERS:
        out = np.zeros(64, np.float32)
        loaded = emulator(body, race=True, defines=("ADD=rf_emulator_add",))
        report = run(loaded, floats(640), out, blocks=10, threads=64, order=order)
        assert report.ok, report.race_text
        np.testing.assert_array_equal(out, 10.0 * np.arange(64))


def test_a_relaxed_store_releases_nothing() -> None:
    body = """
      if (block == 0) {
        in[thread] = 1;
        __syncthreads();
        if (thread == 0) rf_emulator_store(&control[1], 1);
      } else {
        while (rf_emulator_load(&control[1]) == 0) {}
        __syncthreads();
        out[thread] = in[thread];
      }
    """
    report = run(emulator(body, race=True), floats(128), np.zeros(128, np.float32), blocks=2)
    assert report.status == 0
    assert "read-after-write" in report.race_text


# Launches that do not end.


def test_a_divergent_barrier_is_a_deadlock() -> None:
    for body in (
        "if (thread < 96) __syncthreads();",
        "if (thread % 2) __syncthreads(); else __syncwarp();",
    ):
        report = run(emulator(body), floats(1), floats(1), blocks=2)
        assert report.status == 1
        assert "deadlock in block 0" in report.message
        assert "__syncthreads" in report.message


def test_a_wait_that_nobody_signals_is_a_livelock() -> None:
    body = "if (thread == 5) rf_emulator_wait(&control[3], 7, &control[0]); __syncthreads();"
    started = time.monotonic()
    report = run(emulator(body), floats(1), floats(1), blocks=4)
    assert report.status == 2
    assert time.monotonic() - started < 5
    assert "block 0 thread 5 waits for 7 at control word 3, which stands at 0" in report.message


def test_an_abort_word_ends_every_wait() -> None:
    body = """
      if (thread == 0) {
        if (block == 3) rf_emulator_store(&control[0], 1);
        else out[block] = rf_emulator_wait(&control[3], 7, &control[0]) ? 1 : -1;
      }
      __syncthreads();
    """
    out = np.zeros(4, np.float32)
    assert run(emulator(body), floats(1), out, blocks=4).ok
    np.testing.assert_array_equal(out, [-1, -1, -1, 0])


@EVERY_ORDER
def test_a_wait_gives_up_after_its_polls_and_not_before(order: Order) -> None:
    body = """
      if (thread == 0) {
        if (block == 3) for (int i = 0; i < 20; ++i) rf_emulator_load(&control[1]);
        if (block == 3) rf_emulator_signal(&control[1], 1);
        else out[block] = rf_emulator_wait(&control[1 + block], 1, &control[0], 100) ? 1 : -1;
      }
      __syncthreads();
    """
    out = np.zeros(4, np.float32)
    assert run(emulator(body), floats(1), out, blocks=4, order=order).ok
    np.testing.assert_array_equal(out, [1, -1, -1, 0])


def test_the_host_may_set_the_abort_word() -> None:
    body = "out[0] = rf_emulator_wait(&control[3], 7, &control[0]) ? 1 : -1;"
    control, out = np.zeros(16, np.uint32), np.zeros(1, np.float32)
    timer = threading.Timer(0.2, control.__setitem__, (0, 1))
    timer.start()
    report = run(emulator(body), floats(1), out, threads=1, control=control, spin_seconds=20)
    assert report.ok
    assert out[0] == -1


def test_a_loop_around_a_load_lets_others_run() -> None:
    body = """
      if (block == 0) while (rf_emulator_load(&control[1]) != gridDim.x - 1) {}
      else if (thread == 0) rf_emulator_add(&control[1], 1);
    """
    for order in ORDERS:
        assert run(emulator(body), floats(1), floats(1), blocks=5, order=order).ok


def test_a_wrong_mask_is_told() -> None:
    report = run(emulator("__syncwarp(1u << (thread + 1) % 32);"), floats(1), floats(1))
    assert report.status == 3
    assert "mask" in report.message


def test_a_stack_overflow_is_told() -> None:
    body = """
      volatile char large[40000];
      for (int i = 39999; i >= 38000; --i) large[i] = 1;
      __syncthreads();
      out[0] = large[39000];
    """
    report = run(emulator(body), floats(1), floats(1), threads=1)
    assert report.status == 3
    assert "stack overflow: block 0 thread 0" in report.message


# Memory.


def test_a_quick_build_does_the_same() -> None:
    text = PROLOGUE + REVERSE + EPILOGUE
    given, out, other = floats(128), np.zeros(384, np.float32), np.zeros(384, np.float32)
    paths = [build(text), build(text, quick=True)]
    assert paths[0] != paths[1]
    assert run(Emulator(paths[0]), given, out).ok and run(Emulator(paths[1]), given, other).ok
    np.testing.assert_array_equal(out, other)


@pytest.mark.parametrize("poison", [False, True])
def test_shared_memory_starts_poisoned(poison: bool) -> None:
    out = np.zeros(128, np.float32)
    assert run(emulator("out[thread] = arena[thread];"), floats(1), out, poison=poison).ok
    assert np.isnan(out).all() == poison


def test_reading_shared_memory_before_writing_it_is_reported() -> None:
    loaded = emulator("out[thread] = arena[thread];", race=True)
    report = run(loaded, floats(1), np.zeros(128, np.float32))
    assert "uninitialised shared read" in report.race_text


@pytest.mark.parametrize(
    "body",
    [
        "out[thread] = in[thread + 1];",
        "out[thread] = in[-(int)thread];",
        "struct Row { float values[12]; }; ((Row*)out)[thread % 8] = ((Row*)in)[thread % 11];",
        "if (thread == 0) memcpy(out, in + 1, 128 * 4);",
        "if (thread == 0) memset(out + 1, 0, 128 * 4);",
        "arena[arena_words + thread] = 1;",
    ],
)
def test_an_access_out_of_bounds_is_reported(body: str) -> None:
    memory = np.zeros(1024, np.float32)  # the buffers lie inside: the access itself does no harm
    loaded = emulator(body, race=True, defines=("arena_words=100",))
    report = run(loaded, memory[256:384], memory[640:768], arena_bytes=400)
    assert "access outside every buffer" in report.race_text


def test_the_shared_memory_of_another_block_is_foreign() -> None:
    body = "arena[thread] = 1; __syncthreads(); if (block == 1) out[0] = (arena - 256)[0];"
    report = run(
        emulator(body, race=True), floats(1), floats(1), blocks=2, threads=32, arena_bytes=1000
    )
    assert "foreign shared memory: block 1 thread 0 at shared memory of block 0" in report.race_text


def test_tables_of_the_file_and_arguments_may_be_read() -> None:
    body = """
      static const float table[] = {1, 2, 3, 5, 8, 13, 21, 34};
      float local[4] = {0, 1, 2, 3};
      out[thread] = table[(thread + (unsigned)in[0]) % 8] + local[(thread + (unsigned)in[0]) % 4];
    """
    out = np.zeros(128, np.float32)
    report = run(emulator(body, race=True), np.zeros(1, np.float32), out)
    assert report.ok, report.race_text


@pytest.mark.parametrize("race_free", [True, False])
def test_neighbouring_bytes_are_different_places(race_free: bool) -> None:
    index = "thread" if race_free else "thread / 2"
    body = f"out[128 + thread] = 1; ((char*)out)[{index}] = 1;"
    report = run(emulator(body, race=True), floats(1), np.zeros(512, np.float32))
    assert report.ok == race_free, report.race_text


@EVERY_ORDER
@pytest.mark.parametrize("readers", [3, 8])
def test_a_word_that_many_blocks_read_is_overwritten_after_all_of_them(
    order: Order, readers: int
) -> None:
    body = """
      if (block > 0) {
        out[block * blockDim.x + thread] = in[0];
        __syncthreads();
        if (thread == 0) rf_emulator_signal(&control[1], 1);
      } else if (thread == 0) {
        rf_emulator_wait(&control[1], gridDim.x - 1 - FEWER, &control[0]);
        in[0] = 5;
      }
    """
    for fewer in (0, 1):
        report = run(
            emulator(body, race=True, defines=(f"FEWER={fewer}",)),
            np.ones(1, np.float32),
            np.zeros(128 * (readers + 1), np.float32),
            blocks=readers + 1,
            order=order,
        )
        assert report.ok == (fewer == 0), report.race_text
        assert ("write-after-read" in report.race_text) == (fewer == 1)


def test_a_report_is_of_its_own_launch_only() -> None:
    loaded = emulator("if (in[0] > 0) in[0] = (float)thread;", race=True)
    assert run(loaded, np.ones(1, np.float32), floats(1)).races > 0
    assert run(loaded, np.zeros(1, np.float32), floats(1)).ok


# The Python side.


def test_the_largest_grid_runs() -> None:
    body = """
      __syncthreads();
      if (thread == 0) {
        rf_emulator_signal(&control[1], 1);
        rf_emulator_wait(&control[1], gridDim.x, &control[0]);
      }
      __syncthreads();
      out[block * blockDim.x + thread] = block;
    """
    out = np.zeros((1056, 128), np.float32)
    assert run(emulator(body), floats(1), out, blocks=1056, threads=128, arena_bytes=64).ok
    np.testing.assert_array_equal(out, np.repeat(np.arange(1056.0), 128).reshape(1056, 128))


@pytest.mark.parametrize("size", [{"blocks": 0}, {"blocks": 1057}, {"threads": 1025}])
def test_an_impossible_launch_is_refused(size: dict[str, int]) -> None:
    report = run(emulator(REVERSE), floats(1), floats(1), **size)
    assert report.status == 3
    assert "1056 blocks of 1024 threads" in report.message


def test_one_seed_gives_one_execution() -> None:
    body = """
      const unsigned turn = rf_emulator_add(&control[1], 1);
      out[block * blockDim.x + thread] = (float)turn;
      __syncthreads();
    """
    results = []
    for seed in (1, 1, 2):
        out = np.zeros(512, np.float32)
        assert run(emulator(body), floats(1), out, blocks=4, order=Order.RANDOM, seed=seed).ok
        results.append(out)
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_a_refused_text_is_a_toolchain_error_with_the_log() -> None:
    with pytest.raises(ToolchainError, match="no_such_name"):
        emulator("no_such_name();")


def test_a_library_without_the_entry_point_is_refused() -> None:
    with pytest.raises(DeviceError, match="rf_emulate"):
        Emulator(build("int nothing;"))
    with pytest.raises(DeviceError):
        Emulator(Path("/nonexistent.so"))


def test_memory_that_cannot_be_changed_in_place_is_refused() -> None:
    loaded, control = emulator(REVERSE), np.zeros(16, np.uint32)
    strided = np.zeros((8, 8), np.uint8)[:, ::2]
    with pytest.raises(ShapeError, match="space 0"):
        loaded.launch(0, blocks=1, threads=1, arena_bytes=0, spaces=[strided], control=control)
