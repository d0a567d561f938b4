"""MaxRoiPool, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.helpers import check, one


def test_the_largest_in_each_part_of_each_region(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    x = generator.standard_normal((2, 3, 9, 7)).astype(np.float32)
    corners = generator.uniform(0, 14, (5, 4)).astype(np.float32)
    corners = np.concatenate([np.sort(corners[:, 0::2]), np.sort(corners[:, 1::2])], axis=1)
    regions = np.concatenate([generator.integers(0, 2, (5, 1)), corners[:, [0, 2, 1, 3]]], axis=1)
    regions[-1] = (1, 30, 30, 40, 40)  # beyond the image: nothing to see
    regions = regions.astype(np.float32)
    check(
        [
            one("MaxRoiPool", x, regions, pooled_shape=[2, 3], spatial_scale=0.5),
            one("MaxRoiPool", x, regions, pooled_shape=[5, 1]),
        ],
        tmp_path,
    )
