"""What an operator cannot do is said before anything is compiled, with a reason and a fix."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ramforge.compiler.errors import UnsupportedModel
from ramforge.compiler.frontend import import_model
from tests.helpers import Case, Known, ints, model_of, numbers, one

IMAGE = numbers(1, 3, 6, 6)
CHANNEL = [np.abs(numbers(3, seed=seed)) for seed in range(4)]
WHOLE = np.ones((3, 3), np.int32)
BEHIND = {"pads": [0, 0, 2, 2], "ceil_mode": 1}
REFUSED = {
    "nothing but padding": one("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[5, 5], **BEHIND),
    "no such norm": one("LpPool", IMAGE, kernel_shape=[2, 2], p=0),
    "knows 1 and 2": one("LpNormalization", IMAGE, p=3),
    "3 channels are not 2 equal groups": one(
        "GroupNormalization", IMAGE, *CHANNEL[:2], num_groups=2
    ),
    "the image has 30 blocks": one("Col2Im", numbers(1, 4, 8), ints(6, 7), ints(2, 2)),
    "expected (1, 8, 5, 5)": one(
        "DeformConv", IMAGE, numbers(1, 3, 2, 2), numbers(1, 16, 5, 5), offset_group=1
    ),
    "depends on run-time values": one("ReduceSum", IMAGE, np.array([1])),
    "its step is 0": one("Range", *(Known(np.array(v, np.int64)) for v in (0, 3, 0))),
    "onnx infers [2, 1]": one("Einsum", numbers(2, 1), numbers(2, 3), equation="ij,ij->ij"),
    "fraction": one("Gemm", WHOLE, WHOLE, alpha=0.5),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals_name_the_reason_and_a_fix(reason: str) -> None:
    case: Case = REFUSED[reason]
    with pytest.raises(UnsupportedModel, match=re.escape(reason)) as caught:
        import_model(model_of([case]))
    assert "fix:" in str(caught.value)


OUTSIDE = {
    "Gather": (numbers(3, 2), ints(1, -4)),
    "GatherElements": (numbers(3, 2), Known(np.array([[3, 0]]))),
    "GatherND": (numbers(3, 2), Known(np.array([[2, 1], [0, 2]]))),
    "ScatterElements": (numbers(3), ints(3), numbers(1)),
    "ScatterND": (numbers(3), Known(np.array([[-4]])), numbers(1)),
}


@pytest.mark.parametrize("op", OUTSIDE)
def test_a_constant_index_stays_inside_of_its_axis(op: str) -> None:
    with pytest.raises(UnsupportedModel, match=r"index -?\d is outside(.|\n)*fix: correct"):
        import_model(model_of([one(op, *OUTSIDE[op])]))


def test_an_axis_without_elements_has_no_index() -> None:
    with pytest.raises(UnsupportedModel, match="index 0 is outside of an axis of 0 elements"):
        import_model(model_of([one("Gather", numbers(0, 2), ints(0))]))
