"""Numbers that are only stored, as bits: every one of them is read, and every rounding is the
nearest.

The oracle looks for the nearest in a table of all numbers of a type, as ml_dtypes reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from ramforge.compiler import registry
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions import interpret
from ramforge.compiler.ir import DType, Graph, Node, Tensor
from tests.helpers import Array, Case, check, many, numbers, one

OPSET = 26  # the first with BitCast
FLOATS = tuple(
    dtype
    for dtype in DType
    if dtype.is_float and dtype.is_stored_only and dtype is not DType.FLOAT8E8M0
)
EIGHTS = tuple(dtype for dtype in FLOATS if dtype.label.startswith("float8"))
SMALL_INTEGERS = (DType.INT4, DType.UINT4, DType.INT2, DType.UINT2)
BITS = {DType.FLOAT4E2M1: "uint4", DType.INT4: "uint4", DType.UINT4: "uint4"}
BITS |= {DType.INT2: "uint2", DType.UINT2: "uint2"}


def onnx_type(dtype: DType) -> int:
    return helper.np_dtype_to_tensor_dtype(dtype.numpy)


def patterns(dtype: DType) -> Array:
    """Every number of a type."""
    if dtype.itemsize == 2:
        return np.arange(1 << 16).astype(np.uint16).view(dtype.numpy)
    bits = {"4": 4, "2": 2}.get(dtype.label[-1] if not dtype.is_float else "", 8)
    bits = 4 if dtype is DType.FLOAT4E2M1 else bits
    return np.arange(1 << bits).astype(np.uint8).view(dtype.numpy)


def bits_of(array: Array) -> Array:
    return array.view(np.uint16 if array.dtype.itemsize == 2 else np.uint8)


def tricky(dtype: DType, source: type[np.floating]) -> Array:
    """Numbers of a type, halfway between two, and their neighbours; then all sizes there are."""
    known = np.unique(np.abs(patterns(dtype)[:: 1 if dtype.itemsize == 1 else 37].astype(source)))
    known = known[np.isfinite(known)]
    known = np.append(known, known[-1] * 2 - known[-2])
    half = (known[1:] + known[:-1]) / 2
    exact = np.concatenate([known, half])
    near = np.concatenate([np.nextafter(exact, np.inf), np.nextafter(exact, 0)])
    words = numbers(2000, dtype=np.uint32).view(np.float32).astype(source)
    special = np.array([0, np.inf, np.nan, 1e30, 1e-30, 1e6, 1e-7], source)
    found = np.concatenate([exact, near, words, special]).astype(source)
    return np.concatenate([found, -found])


def nearest(x: Array, dtype: DType) -> Array:
    """The bits of what is nearest, of two the even; as IEEE or the type say beyond the largest."""
    table = patterns(dtype)
    size = table.astype(np.float64)
    sign = np.uint64(1 << (3 if dtype is DType.FLOAT4E2M1 else 8 * dtype.itemsize - 1))
    count = int((np.isfinite(size) & (np.arange(len(size)) < int(sign))).sum())
    finite = size[:count]
    over = 2 * finite[-1] - finite[-2]
    steps = np.append(finite, over)
    wide = np.abs(x.astype(np.float64))
    place = np.clip(np.searchsorted(steps, wide, side="right") - 1, 0, count)
    above = np.minimum(place + 1, count)
    middle = (steps[place] + steps[above]) / 2
    up = (wide > middle) | ((wide == middle) & (place % 2 == 1))
    found = np.where(up & (wide > steps[place]), above, place).astype(np.uint64)
    has_zero = not dtype.label.endswith("fnuz")
    past = {"float8e4m3fn": 0x7F, "float4e2m1": 7}.get(dtype.label, count)
    result = found + np.where(np.signbit(x), sign, np.uint64(0))
    if not has_zero:
        result = np.where(found == 0, 0, np.where(found == count, int(sign), result))
    elif past != count:
        result = np.where(found == count, past + np.where(np.signbit(x), sign, 0), result)
    return result.astype(bits_of(table).dtype)


def bits_case(x: Array, dtype: DType, options: str, wanted: Array) -> Case:
    """A cast to a type, looked at as bits; NaN has many, and stands for itself."""
    unsigned = "uint16" if dtype.itemsize == 2 else BITS.get(dtype, "uint8")
    text = f"""
        z = Cast <to = {onnx_type(dtype)}{options}> (x)
        b = BitCast <to = {onnx_type(DType.named(unsigned))}> (z)
        y = Cast <to = {TensorProto.UINT16}> (b)
    """
    case = many(f"{x.dtype} to {dtype.label}{options}", text, {"x": x}, ("y",))
    return replace(case, opset=OPSET).giving(wanted.astype(np.uint16))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """NumPy warns of every number that becomes another."""
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("source", [np.float32, np.float64])
def test_floats_become_the_nearest(source: type[np.floating], tmp_path: Path) -> None:
    cases = []
    for dtype in FLOATS:
        x = tricky(dtype, source)
        x = x[~np.isnan(x)]
        wanted = nearest(x, dtype)
        cases.append(bits_case(x, dtype, ", saturate = 0", wanted))
        if source is np.float32:
            assert np.array_equal(wanted, bits_of(x.astype(dtype.numpy))), dtype
        assert np.array_equal(bits_of(interpreted(x, dtype, saturate=0)), wanted), dtype
    check(cases, tmp_path)


def interpreted(x: Array, dtype: DType, **attributes: object) -> Array:
    tensors = {"x": Tensor("x", x.shape, DType.of(x)), "y": Tensor("y", x.shape, dtype)}
    node = Node("cast", "Cast", ("x",), ("y",), attributes)
    operator = registry.find("Cast")
    assert operator is not None
    (done,) = operator.express(node, Graph("g", ("x",), ("y",), (node,), tensors, {}))
    return interpret.run(comp.computation_of(done), [x])


def test_casts_saturate_unless_told_otherwise(tmp_path: Path) -> None:
    cases = []
    for dtype in EIGHTS:
        most = float(ml_dtypes.finfo(dtype.numpy).max)
        for source in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16):
            x = tricky(dtype, np.float32).astype(source)
            x = x[~np.isnan(x)]
            clipped = np.clip(x.astype(np.float64), -most, most)
            cases.append(bits_case(x, dtype, "", nearest(clipped, dtype)))
            assert np.array_equal(bits_of(interpreted(x, dtype)), nearest(clipped, dtype))
        whole = np.array([0, 1, -1, 3, 17, 100, -449, 2**31 - 1, -(2**31)], np.int32)
        clipped = np.clip(whole.astype(np.float64), -most, most)
        cases.append(bits_case(whole, dtype, "", nearest(clipped, dtype)))
    check(cases, tmp_path)


def test_what_is_not_a_number_stays_so(tmp_path: Path) -> None:
    x = np.array([np.nan, -np.nan, np.inf, -np.inf], np.float32)
    types = [dtype for dtype in FLOATS if dtype is not DType.FLOAT4E2M1]
    cases = []
    for dtype in types:
        for saturates in (0, 1):
            wanted = x.astype(dtype.numpy)
            if saturates and dtype in EIGHTS:
                wanted = np.clip(x, *limits(dtype)).astype(dtype.numpy)
            case = one("Cast", x, to=onnx_type(dtype), saturate=saturates)
            cases.append(case.giving(wanted))
    check([replace(case, opset=OPSET) for case in cases], tmp_path)


def limits(dtype: DType) -> tuple[float, float]:
    facts = ml_dtypes.finfo(dtype.numpy)
    return float(facts.min), float(facts.max)


def test_every_stored_number_is_read(tmp_path: Path) -> None:
    cases = []
    for dtype in (*FLOATS, DType.FLOAT8E8M0, *SMALL_INTEGERS):
        x = patterns(dtype)
        wide = x.astype(np.float32)
        cases.append(one("Cast", x, to=TensorProto.FLOAT).giving(wide))
        cases.append(one("Neg" if dtype.itemsize == 2 else "Identity", x).giving(
            -x if dtype.itemsize == 2 else x))  # fmt: skip
    check([replace(case, opset=OPSET) for case in cases], tmp_path)


def power_of_two(x: float, mode: str) -> float:
    fraction, exponent = np.frexp(np.float64(x))  # from a half to one
    is_up = {"up": fraction > 0.5, "down": False, "nearest": fraction >= 0.75}[mode]
    return float(np.ldexp(1.0, int(exponent) - (not is_up)))


def test_powers_of_two(tmp_path: Path) -> None:
    low, high = 2.0**-127, 2.0**127
    inner = np.abs(numbers(500, dtype=np.uint32).view(np.float32)).astype(np.float64)
    inner = inner[(inner > low) & (inner < high)]
    exact = 2.0 ** np.arange(-127, 128)
    between = np.concatenate([1.25 * exact[:-1], 1.5 * exact[:-1], 1.75 * exact[:-1]])
    x = np.concatenate([inner, exact, between]).astype(np.float32)
    outside = np.array([0, 2.0**-128, 3e38, np.inf, np.nan], np.float32)
    cases = []
    for mode in ("up", "down", "nearest"):
        wanted = np.array([power_of_two(value, mode) for value in x]).astype(
            ml_dtypes.float8_e8m0fnu
        )
        for saturates, edge in ((1, [0, 0, 254, 254, 255]), (0, [255] * 5)):
            options = f', round_mode = "{mode}", saturate = {saturates}'
            bits = np.concatenate([bits_of(wanted), np.array(edge, np.uint8)])
            both = np.concatenate([x, outside])
            cases.append(bits_case(both, DType.FLOAT8E8M0, options, bits))
            found = interpreted(both, DType.FLOAT8E8M0, round_mode=mode, saturate=saturates)
            assert np.array_equal(bits_of(found), bits)
    check(cases, tmp_path)


def test_small_integers_keep_the_low_bits(tmp_path: Path) -> None:
    whole = np.array([-300, -129, -17, -9, -8, -3, -1, 0, 1, 2, 3, 7, 8, 15, 16, 200], np.int32)
    cases = []
    for dtype in SMALL_INTEGERS:
        mask = 3 if dtype.label.endswith("2") else 15
        cases.append(bits_case(whole, dtype, "", whole & mask))
        cases.append(bits_case(whole.astype(np.int64), dtype, "", whole & mask))
        few = whole[np.abs(whole) < 100]
        floats = few.astype(np.float32) + np.sign(few) * np.float32(0.75)
        cases.append(bits_case(floats, dtype, "", few & mask))
        assert np.array_equal(bits_of(interpreted(floats, dtype)), few & mask)
    check(cases, tmp_path)


def test_pairs_of_types(tmp_path: Path) -> None:
    stored = [dtype for dtype in DType if dtype.is_stored_only]
    pairs = [(one, plain) for one in stored for plain in (DType.BOOL, DType.INT64)]
    pairs += [(plain, one) for one in stored for plain in (DType.BOOL, DType.UINT8)]
    pairs += [(one, stored[(place + 5) % len(stored)]) for place, one in enumerate(stored)]
    cases = []
    for source, target in pairs:
        x = np.array([1, source is DType.FLOAT8E8M0, 1]).astype(source.numpy)
        wide = x.astype(np.float32)
        if target is DType.FLOAT8E8M0:
            wide = np.maximum(wide, np.float32(2.0**-127))
        case = one("Cast", x, to=onnx_type(target)).giving(wide.astype(target.numpy))
        cases.append(replace(case, opset=OPSET))
    check(cases, tmp_path)


def test_cast_like_and_bit_cast(tmp_path: Path) -> None:
    x = np.array([1e6, -1e6, 0.3, np.inf], np.float32)
    cases = [
        one("CastLike", x, np.zeros((2, 0), ml_dtypes.float8_e4m3fn)).giving(
            np.array([448, -448, 0.3125, 448], ml_dtypes.float8_e4m3fn)
        ),
        one("CastLike", x, np.zeros(3, ml_dtypes.float8_e5m2), saturate=0).giving(
            x.astype(ml_dtypes.float8_e5m2)
        ),
        one("CastLike", x, np.array(1, np.float64)).giving(x.astype(np.float64)),
        one("Cast", np.float32(2.7), to=TensorProto.INT64).giving(np.int64(2)),
        one("Cast", np.zeros((0, 3), np.float32), to=TensorProto.BFLOAT16).giving(
            np.zeros((0, 3), ml_dtypes.bfloat16)
        ),
    ]
    words = {1: "int8 uint8", 2: "int16 uint16 float16", 4: "int32 uint32 float32"}
    words[8] = "int64 uint64 float64"
    random = np.random.default_rng(5)
    for size, names in words.items():
        kinds = [np.dtype(name) for name in names.split()]
        kinds += [np.dtype(ml_dtypes.bfloat16)] if size == 2 else []
        kinds += [np.dtype(ml_dtypes.float8_e5m2)] if size == 1 else []
        data = np.frombuffer(random.bytes(size * 40), kinds[0]).reshape(4, 10)
        for source in kinds:
            for target in kinds:
                # as integers again, so that every bit of a NaN counts
                text = f"""
                    z = BitCast <to = {helper.np_dtype_to_tensor_dtype(target)}> (x)
                    y = BitCast <to = {helper.np_dtype_to_tensor_dtype(kinds[0])}> (z)
                """
                name = f"{source} as {target}"
                cases.append(many(name, text, {"x": data.view(source)}, ("y",)).giving(data))
    four = np.arange(16, dtype=np.uint8)
    for source, target in (
        ("uint4", "int4"),
        ("int4", "float4_e2m1fn"),
        ("float4_e2m1fn", "uint4"),
    ):
        x = four.view(getattr(ml_dtypes, source))
        to = helper.np_dtype_to_tensor_dtype(np.dtype(getattr(ml_dtypes, target)))
        cases.append(one("BitCast", x, to=to).giving(four.view(getattr(ml_dtypes, target))))
    truth = np.array([True, False])
    cases.append(one("BitCast", truth, to=TensorProto.UINT8).giving(truth.astype(np.uint8)))
    cases.append(one("BitCast", truth.astype(np.int8), to=TensorProto.BOOL).giving(truth))
    check([replace(case, opset=OPSET) for case in cases], tmp_path)
