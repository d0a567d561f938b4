"""What an operator cannot do is said before anything is compiled, with a reason and a fix."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ramforge.compiler.errors import UnsupportedModel
from ramforge.compiler.frontend import import_model
from tests.helpers import Case, ints, model_of, numbers, one

IMAGE = numbers(1, 3, 6, 6)
CHANNEL = [np.abs(numbers(3, seed=seed)) for seed in range(4)]
WHOLE = np.ones((3, 3), np.int32)
REFUSED = {
    "mode 'reflect'": one("Pad", IMAGE, ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect"),
    "dilations": one("AveragePool", IMAGE, kernel_shape=[2, 2], dilations=[2, 2]),
    "indices": one("MaxPool", IMAGE, kernel_shape=[2, 2], outputs=2),
    "(a statistic)": one("BatchNormalization", IMAGE, *CHANNEL, training_mode=1, outputs=3),
    "is used": one("LayerNormalization", IMAGE, numbers(6), outputs=3),
    "depends on run-time values": one("ReduceSum", IMAGE, np.array([1])),
    "fraction": one("Gemm", WHOLE, WHOLE, alpha=0.5),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals_name_the_reason_and_a_fix(reason: str) -> None:
    case: Case = REFUSED[reason]
    with pytest.raises(UnsupportedModel, match=re.escape(reason)) as caught:
        import_model(model_of([case]))
    assert "fix:" in str(caught.value)
