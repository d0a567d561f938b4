"""DFT, STFT, windows and the mel scale."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

import ramforge
from ramforge.compiler.errors import UnsupportedModel
from ramforge.kernels.operators.signal import factors, radices
from ramforge.kernels.operators.tables import _mel_weights
from tests.helpers import Array, Case, Known, check, expected_of, model_of, numbers, one, run_both


def parts(x: Array) -> Array:
    return np.stack([x.real, x.imag], axis=-1)


def scalar(value: int) -> Known:
    return Known(np.array(value, np.int64))


def dft(x: Array, wanted: Array, *operands: Known | None, **attributes: Any) -> Case:
    case = one("DFT", x, *operands, **attributes).giving(wanted.astype(x.dtype))
    return replace(case, tolerance=1e-6 if x.dtype == np.float32 else 1e-12)


def transforms() -> list[Case]:
    cases = []
    for size in (1, 2, 7, 36, 37, 99, 130, 1024):
        x = numbers(2, size, 2)
        both = x[..., 0] + 1j * x[..., 1]
        cases.append(dft(x, parts(np.fft.fft(both))))
        cases.append(dft(x, parts(np.fft.ifft(both)), inverse=1))
    for size in (35, 130):
        x = numbers(2, size, 1)
        half = np.fft.rfft(x[..., 0].astype(np.float64))
        cases.append(dft(x, parts(half), onesided=1))
        for length in (size, size + 5):
            shown = numbers(2, size, 2)
            wanted = np.fft.irfft(shown[..., 0] + 1j * shown[..., 1], length)[..., None]
            cases.append(dft(shown, wanted, scalar(length), onesided=1, inverse=1))
    x = numbers(3, 5, 4, 2)
    both = x[..., 0] + 1j * x[..., 1]
    wide = numbers(2, 100, 2, dtype="float64")
    return [
        *cases,
        *(dft(x, parts(np.fft.fft(both, axis=axis)), None, scalar(axis)) for axis in (0, 1, 2)),
        dft(x, parts(np.fft.fft(both, axis=1)), None, scalar(-3)),
        dft(x, parts(np.fft.fft(both, 9, axis=1)), scalar(9), scalar(1)),
        dft(x, parts(np.fft.fft(both, 3, axis=0)), scalar(3), scalar(0)),
        dft(wide, parts(np.fft.fft(wide[..., 0] + 1j * wide[..., 1]))),
        dft(wide[..., :1], parts(np.fft.ifft(wide[..., 0])), inverse=1),
    ]


def frames(x: Array, step: int, window: Array, size: int) -> Array:
    count = (x.shape[1] - size) // step + 1
    return np.stack([x[:, n * step : n * step + size] * window for n in range(count)], axis=1)


def short_transforms() -> list[Case]:
    real, window = numbers(2, 200, 1), numbers(40)
    both = numbers(1, 100, 2)
    complex_frames = frames(both[..., 0] + 1j * both[..., 1], 7, np.ones(30), 30)
    windowed = frames(real[..., 0].astype(np.float64), 16, window, 40)
    plain = frames(real[..., 0].astype(np.float64), 16, np.ones(40), 40)

    def stft(wanted: Array, *operands: Array | Known | None, **attributes: Any) -> Case:
        case = one("STFT", *operands, **attributes).giving(wanted.astype(np.float32))
        return replace(case, tolerance=1e-6)

    step = scalar(16)
    return [
        stft(parts(np.fft.rfft(windowed)), real, step, window),
        stft(parts(np.fft.rfft(windowed)), real, step, Known(window), scalar(40)),
        stft(parts(np.fft.fft(windowed)), real, step, window, onesided=0),
        stft(parts(np.fft.rfft(plain)), real, step, None, scalar(40), onesided=1),
        stft(parts(np.fft.fft(complex_frames)), both, scalar(7), None, scalar(30), onesided=0),
    ]


def large_tables() -> list[Case]:
    """Too large for the front end to fold."""
    size = 20000
    periodic, symmetric = np.arange(size) / size, np.arange(size) / (size - 1)
    kind = TensorProto.DOUBLE
    windows = [
        one("HannWindow", scalar(size)).giving(
            np.square(np.sin(np.pi * periodic)).astype(np.float32)
        ),
        one("HammingWindow", scalar(size), periodic=0, output_datatype=kind).giving(
            25 / 46 - 21 / 46 * np.cos(2 * np.pi * symmetric)
        ),
        one("BlackmanWindow", scalar(size), output_datatype=kind).giving(
            0.42 - 0.5 * np.cos(2 * np.pi * periodic) + 0.08 * np.cos(4 * np.pi * periodic)
        ),
    ]
    edges = [Known(np.array(edge, np.float32)) for edge in (0.0, 8000.0)]
    mel = one("MelWeightMatrix", scalar(80), scalar(1024), scalar(16000), *edges).reference()
    return [*(replace(case, tolerance=1e-6) for case in windows), mel]


def test_transforms_of_every_length(tmp_path: Path) -> None:
    check(transforms(), tmp_path)


def test_short_transforms_and_large_tables(tmp_path: Path) -> None:
    check([*short_transforms(), *large_tables()], tmp_path)


def test_mel_bands_are_those_of_the_reference() -> None:
    small = one(
        "MelWeightMatrix",
        *(np.array(value, np.int64) for value in (8, 16, 8192)),
        *(np.array(value, np.float32) for value in (0, 4096)),
    ).reference()
    (wanted,) = expected_of(small)
    numbers_of = [value.reshape(())[()] for value in small.inputs.values()]
    found = _mel_weights(None, *numbers_of)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_what_cancels_is_rounded_as_in_numpy(tmp_path: Path) -> None:
    rising = np.arange(100, dtype=np.complex64).reshape(10, 10)
    # at an eighth of a turn both products of a part are the same
    turned = np.zeros((1, 16), np.complex64)
    turned[0, 2] = 16.1 + 16.1j
    cases = [one("DFT", parts(x), inverse=1) for x in (rising, rising.T, turned)]
    names = [f"c{number}_{name}" for number, case in enumerate(cases) for name in case.inputs]
    given = [value for case in cases for value in case.inputs.values()]
    found = run_both(model_of(cases), dict(zip(names, given, strict=True)), tmp_path)
    for results in found.values():
        for x, result in zip((rising, rising.T, turned), results, strict=True):
            np.testing.assert_allclose(result, parts(np.fft.ifft(x)), rtol=1e-6, atol=1e-9)
    for first, *others in zip(*found.values(), strict=True):
        assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 64, 97, 360, 1024, 9409, 30030])
def test_a_length_is_the_product_of_its_factors(size: int) -> None:
    found = factors(size)
    assert math.prod(found) == size
    assert all(factor <= 32 or all(factor % n for n in range(2, factor)) for factor in found)
    assert math.prod(radices(size)) == size
    assert all(n in (4, 8) or all(n % m for m in range(2, n)) for n in radices(size))


def test_a_window_of_another_length_is_refused() -> None:
    case = one("STFT", numbers(1, 64, 1), scalar(8), numbers(16), scalar(20))
    with pytest.raises(UnsupportedModel):
        ramforge.compile(model_of([case]), target="h200")
