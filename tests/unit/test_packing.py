"""Offsets: what lives at once lies apart, little is wasted, and nobody waits who need not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramforge.compiler import packing
from ramforge.compiler.packing import ALIGNMENT, Buffer, live_peak, pack

KB = 1024
NO_LIMIT = 1 << 40


def buffer(kilobytes: int, first: int, last: int) -> Buffer:
    return Buffer(("t",), kilobytes * KB, first, last)


lifetimes = st.builds(
    lambda nbytes, first, length: Buffer((f"{nbytes}",), nbytes, first, first + length),
    st.integers(0, 5000),
    st.integers(0, 12),
    st.integers(0, 6),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(lifetimes, max_size=24), st.integers(0, 30), st.integers(0, 2**32))
def test_buffers_that_live_at_the_same_time_lie_apart(
    buffers: list[Buffer], spare: int, seed: int
) -> None:
    """Whatever the limit is, and whatever delays are to be avoided."""
    waits = np.random.default_rng(seed).choice([0.0, 1.0, 2.0], (len(buffers), len(buffers)))
    limit = live_peak(buffers) * (10 + spare) // 10 - ALIGNMENT
    for delay in (None, lambda a, b: float(waits[a, b])):
        packed = pack(buffers, limit, delay)
        for step in range(20):
            owner = np.full(max(1, packed.size), -1)
            for number, (each, offset) in enumerate(zip(buffers, packed.offsets, strict=True)):
                assert offset % ALIGNMENT == 0
                assert offset >= 0 and offset + each.nbytes <= packed.size
                if each.first_step <= step <= each.last_step:
                    own = owner[offset : offset + each.nbytes]
                    assert (own == -1).all()
                    own[:] = number
        ends = [at + each.size for at, each in zip(packed.offsets, buffers, strict=True)]
        assert packed.size == max(ends, default=0) >= live_peak(buffers)


@given(st.lists(lifetimes, max_size=12))
def test_the_peak_is_the_most_that_lives_in_one_step(buffers: list[Buffer]) -> None:
    live = [
        sum(-(-b.nbytes // ALIGNMENT) for b in buffers if b.first_step <= step <= b.last_step)
        for step in range(20)
    ]
    assert live_peak(buffers) == max(live) * ALIGNMENT


# By size alone the first lies at 0, the next two at 0 and 3 KB, and the last beyond all of them.
AWKWARD = (buffer(5, 5, 5), buffer(3, 0, 2), buffer(3, 2, 4), buffer(3, 3, 5))


def test_what_did_not_fit_comes_first_in_the_next_round(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = live_peak(AWKWARD) * 11 // 10
    assert pack(AWKWARD, limit).size <= limit
    monkeypatch.setattr(packing, "ROUNDS", 0)
    assert pack(AWKWARD, limit).size > limit


def delays(*pairs: tuple[int, int, float]) -> packing.Delay:
    found = {(a, b): delay for a, b, delay in pairs}
    return lambda a, b: found.get((a, b), 0.0)


CHAIN = (buffer(4, 0, 1), buffer(4, 1, 2), buffer(4, 2, 3))


def test_a_place_that_makes_nobody_wait_is_preferred_below_the_limit() -> None:
    waits = delays((0, 2, 5.0))
    assert pack(CHAIN, NO_LIMIT).offsets == (0, 4 * KB, 0)
    assert pack(CHAIN, 12 * KB, waits).offsets == (0, 4 * KB, 8 * KB)
    assert pack(CHAIN, 12 * KB - 1, waits).offsets == (0, 4 * KB, 0)
    assert pack(CHAIN, 12 * KB, delays((2, 0, 5.0))).offsets == (0, 4 * KB, 0)


def test_somebody_who_has_to_wait_waits_for_the_shortest_time() -> None:
    buffers = (buffer(4, 0, 1), buffer(4, 0, 1), buffer(3, 2, 3))
    for first, second, place in ((5.0, 2.0, 4 * KB), (2.0, 5.0, 0), (2.0, 0.0, 4 * KB)):
        waits = delays((0, 2, first), (1, 2, second))
        assert pack(buffers, 8 * KB, waits).offsets[2] == place


@pytest.mark.parametrize("rounds", [0, 1, packing.ROUNDS])
def test_the_limit_goes_before_waiting(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain avoids a delay, which leaves no room for what lives beside all of it."""
    monkeypatch.setattr(packing, "ROUNDS", rounds)
    buffers = (*CHAIN, buffer(1, 0, 3))
    assert pack(buffers, 12 * KB, delays((0, 2, 5.0))).size <= 12 * KB
    assert pack(buffers, 13 * KB, delays((0, 2, 5.0))).size == 13 * KB


def test_nothing_takes_nothing() -> None:
    assert (pack((), 0).size, live_peak(())) == (0, 0)
    empty: Sequence[Buffer] = (Buffer(("t",), 0, 0, 3), Buffer(("u",), 0, 1, 2))
    assert (pack(empty, 0).size, live_peak(empty)) == (0, 0)
