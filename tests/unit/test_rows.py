"""Rows: however a normalisation is spelled it is one computation, reads its elements once and is
right for rows of any length.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ramforge.compiler.device import find_target
from ramforge.compiler.expressions import computation as comp
from ramforge.compiler.expressions.computation import Computation, computation_of
from ramforge.compiler.frontend import import_model
from ramforge.compiler.ir import Graph
from ramforge.compiler.lower import lower
from ramforge.compiler.passes.fuse_rows import LONGEST_ROW
from ramforge.compiler.pipeline import optimise
from ramforge.compiler.rprogram import Body
from tests.helpers import Array, Case, check, many, model_of, numbers, one

HALF = 10  # FLOAT16 in ONNX

CENTRED = "m = ReduceMean(x, last)\nd = Sub(x, m)"
DEVIATION = "v = ReduceMean(q, last)\ne = Add(v, epsilon)\nr = Sqrt(e)"

# As the exporters of PyTorch write them: name, text, kind and number of folds
SPELLINGS = {
    "layer norm with Pow": (
        f"{CENTRED}\nq = Pow(d, two)\n{DEVIATION}\nn = Div(d, r)\nt = Mul(n, s)\ny = Add(t, b)",
        2,
    ),
    "layer norm with Mul, mean taken twice": (
        f"{CENTRED}\nm2 = ReduceMean(x, last)\nd2 = Sub(x, m2)\nq = Mul(d2, d2)\n{DEVIATION}\n"
        "n = Div(d, r)\ny = Mul(n, s)",
        2,
    ),
    "variance as a difference of means": (
        "m = ReduceMean(x, last)\np = Mul(x, x)\nw = ReduceMean(p, last)\nq = Mul(m, m)\n"
        "v = Sub(w, q)\ne = Add(v, epsilon)\nr = Sqrt(e)\nd = Sub(x, m)\ny = Div(d, r)",
        2,
    ),
    "RMS norm": (
        f"q = Pow(x, two)\n{DEVIATION}\ni = Reciprocal(r)\nn = Mul(x, i)\ny = Mul(n, s)",
        1,
    ),
    "RMS norm with a residual and a tail": (
        f"h = Neg(z)\nx = Add(h, z2)\nq = Pow(x, two)\n{DEVIATION}\ni = Div(one, r)\n"
        "n = Mul(x, i)\nt = Mul(n, s)\ny = Sigmoid(t)",
        1,
    ),
    "log-softmax": (
        "m = ReduceMax(x, last)\nd = Sub(x, m)\np = Exp(d)\nt = ReduceSum(p, last)\nl = Log(t)\n"
        "y = Sub(d, l)",
        2,
    ),
    "length one": ("q = ReduceL2(x, last)\nc = Max(q, epsilon)\ny = Div(x, c)", 1),
}
SOFTMAX = (
    "m = ReduceMax(x, last)\nd = Sub(x, m)\np = Exp(d)\nt = ReduceSum(p, last)\nu = Div(p, t)\n"
    "y = Mul(u, two)"
)


def spelled(name: str, text: str, x: Array, **named: Array) -> Case:
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    width = x.shape[-1]
    inputs = {key: value for key, value in {"x": x, "z": x, "z2": x[..., ::-1]}.items()}
    given = {
        key: np.ascontiguousarray(value)
        for key, value in inputs.items()
        if key in words and f"{key} =" not in text
    }
    constants = {
        "last": np.array([-1]),
        "two": np.array(2, np.float32),
        "one": np.array(1, np.float32),
        "epsilon": np.array(1e-5, np.float32),
        "s": numbers(width, seed=1),
        "b": numbers(width, seed=2),
        **named,
    }
    kept = {key: value for key, value in constants.items() if key in words}
    return many(f"{name} {'x'.join(map(str, x.shape))}", text, given, ("y",), **kept)


def graph_of(case: Case) -> Graph:
    return optimise(import_model(model_of([case])))


def computations(case: Case) -> list[Computation]:
    return [computation_of(node) for node in graph_of(case).nodes]


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_normalisation_is_one_row_however_it_is_spelled(name: str) -> None:
    text, folds = SPELLINGS[name]
    (row,) = computations(spelled(name, text, numbers(3, 5, 64)))
    assert (row.kind, len(row.folds)) == (comp.ROW, folds)


def test_a_spelled_softmax_has_its_name_whatever_is_done_with_it() -> None:
    (row,) = computations(spelled("softmax", SOFTMAX, numbers(3, 5, 64)))
    assert row.kind == comp.SOFTMAX and row.finish is not None and not row.folds


def test_an_instance_norm_of_images_is_one_row_of_two_axes() -> None:
    text = f"{CENTRED}\nq = Mul(d, d)\n{DEVIATION}\ny = Div(d, r)"
    case = spelled("images", text, numbers(2, 3, 4, 5), last=np.array([2, 3]))
    (row,) = computations(case)
    assert len(row.folds) == 2 and row.reduction_size == 20


def test_casts_around_a_norm_of_halves_belong_to_it() -> None:
    half = numbers(3, 64, dtype=np.float16)
    text = (
        f"x = Cast<to = 1>(h)\nq = Pow(x, two)\n{DEVIATION}\ni = Div(one, r)\nn = Mul(x, i)\n"
        f"c = Cast<to = {HALF}>(n)\ny = Mul(c, s)"
    )
    case = spelled("Llama's", text, half, s=numbers(64, dtype=np.float16))
    (row,) = computations(replace(case, inputs={"h": half}))
    assert row.kind == comp.ROW and len(row.folds) == 1


def test_a_sum_that_the_next_residual_reads_stays_and_the_norm_is_a_row() -> None:
    text = f"x = Add(z, z2)\n{SPELLINGS['RMS norm'][0]}"
    case = spelled("residual", text, numbers(3, 64))
    total, row = computations(replace(case, outputs=("y", "x")))
    assert total.is_map and row.kind == comp.ROW


def test_what_is_known_of_other_elements_than_the_row_is_no_fold_of_it() -> None:
    square = numbers(8, 8)
    across = "m = ReduceMean(x, first)\ny = Sub(x, m)"
    kinds = [c.kind for c in computations(spelled("a", across, square, first=np.array([0])))]
    assert comp.ROW not in kinds  # the columns lie apart in memory
    part = "h = Slice(x, from, to, last)\nm = ReduceMean(h, last)\ny = Sub(x, m)"
    places = {"from": np.array([0]), "to": np.array([4])}
    case = many("part of a row", part, {"x": square}, ("y",), last=np.array([-1]), **places)
    assert comp.ROW not in [c.kind for c in computations(case)]


def test_a_row_that_is_too_long_for_a_block_stays_in_parts() -> None:
    text = "m = ReduceMean(x, last)\ny = Sub(x, m)"
    long = computations(spelled("long", text, numbers(1, LONGEST_ROW + 1)))
    short = computations(spelled("short", text, numbers(1, LONGEST_ROW)))
    assert len(long) == 2 and len(short) == 1


def body(case: Case, target: str = "h200") -> Body:
    found = lower(graph_of(case), find_target(target))
    ((candidate,),) = found.candidates
    return candidate.body


@pytest.mark.parametrize("width", (7, 64, 1000, 4096))
def test_each_element_is_read_once_and_its_power_taken_once(width: int) -> None:
    text = body(one("Softmax", numbers(3, width))).text
    assert text.count("x0[") == 1 and text.count("rf_exp") == 1


def test_a_row_that_no_register_holds_is_read_again() -> None:
    case = one("Softmax", numbers(3, 5000))
    text = body(case).text
    assert text.count("x0[") == 3 and "false> elements" in text
    on_core = body(case, "host:2").text
    assert on_core.count("rf_exp") == 1 and "true> elements" in on_core  # its cache does hold them


def test_a_core_keeps_only_what_took_work() -> None:
    """The elements themselves are in its cache anyway."""
    assert "e = " not in body(one("LayerNormalization", numbers(3, 64), numbers(64)), "host:2").text


def warps(shape: tuple[int, ...], axis: int = -1) -> int:
    """How many share a row; the third number of its template."""
    (line,) = (
        line
        for line in body(one("Softmax", numbers(*shape), axis=axis)).text.splitlines()
        if "rf_each_row<" in line
    )
    return int(line.split("<")[1].split(">")[0].split(",")[2])


def test_warps_share_a_row_where_rows_are_long_or_few() -> None:
    assert warps((1, 256)) == warps((4000, 1024)) == 8
    assert warps((1, 64)) == warps((4000, 256)) == 1


def test_a_thread_has_a_row_where_it_is_short_or_its_elements_lie_apart() -> None:
    assert warps((4000, 16)) == warps((2, 33, 60, 60), axis=1) == 0
    assert warps((4000, 17)) == warps((2, 33, 60, 60), axis=-1) == 1


def value_cases() -> list[Case]:
    cases = []
    for width in (1, 7, 33, 1000, 4097):
        x = numbers(3, width) * 3
        cases += [spelled(name, text, x) for name, (text, _) in SPELLINGS.items() if width > 1]
        cases.append(spelled("softmax", SOFTMAX, x))
    return cases


def special_cases() -> list[Case]:
    masked = numbers(4, 33)
    masked[0, 5:] = -np.inf
    masked[1] = -np.inf
    masked[2, 3] = np.nan
    masked[3, 7] = np.inf
    cases = [spelled("softmax", SOFTMAX, masked).reference()]
    many_rows = [
        *(one("LayerNormalization", numbers(rows, 40), numbers(40)) for rows in (1, 700)),
        one("LayerNormalization", numbers(700, 12), numbers(12)),
        *(one("Softmax", numbers(3, width, 41, 7), axis=1) for width in (12, 37)),
    ]
    text = f"{CENTRED}\nq = Mul(d, d)\n{DEVIATION}\nn = Div(d, r)\ny = Add(n, x)"
    cases.append(spelled("what is kept and what it came from", text, numbers(3, 64) + 2))
    return [*cases, *many_rows, spelled("log-softmax", SPELLINGS["log-softmax"][0], masked * 0.5)]


def far_cases() -> list[Case]:
    """Means a thousand times the spread; two passes over what is kept lose nothing."""
    cases = []
    for width in (7, 33, 1000, 4097, 6000):
        x = numbers(2, width) + np.float32(1000)
        wide = x.astype(np.float64)
        centred = wide - wide.mean(-1, keepdims=True)
        normal = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
        plain = one("LayerNormalization", x, np.ones(width, np.float32))
        text = f"{CENTRED}\nq = Mul(d, d)\n{DEVIATION}\ny = Div(d, r)"
        for case in (plain, spelled("far", text, x)):
            cases.append(replace(case.giving(normal.astype(np.float32)), tolerance=2e-4))
    return cases


def test_rows_of_any_length_are_right(tmp_path: Path) -> None:
    check(value_cases(), tmp_path)


def test_infinities_and_nan_are_where_they_belong(tmp_path: Path) -> None:
    check(special_cases(), tmp_path)


def test_a_mean_far_from_zero_costs_no_digits(tmp_path: Path) -> None:
    check(far_cases(), tmp_path)
