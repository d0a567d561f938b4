"""NASNet-A (Zoph et al., 2018): cells of separable convolutions and poolings found by search.

Every cell sees the two cells before it. Each of its five sums joins two small operators, so a cell
is a dozen short convolutions that could run side by side: the case the paper of RAMMER is made for.
"""

from __future__ import annotations

import onnx

from ramforge.zoo.builder import Builder


def nasnet_cifar(
    cells: int = 18, filters: int = 32, image: int = 32, classes: int = 10
) -> onnx.ModelProto:
    """Three stages of normal cells, a reduction cell after the first and the second."""
    network = _Network(Builder("nasnet_cifar", seed=9), image)
    builder = network.builder
    x = builder.input("x", (1, 3, image, image))
    stem = network.convolution(x, "/stem", 3, 3 * filters, 3)
    network.channels[stem] = 3 * filters
    before, current = stem, stem
    per_stage = cells // 3
    for stage in range(3):
        width = filters * 2**stage
        if stage:
            reduced = network.reduction_cell(before, current, f"/reduction{stage}", width)
            before, current = current, reduced
        for number in range(per_stage):
            normal = network.normal_cell(before, current, f"/stage{stage}.{number}", width)
            before, current = current, normal
    x = builder.node("Relu", [current], "/relu")
    x = builder.node("GlobalAveragePool", [x], "/pool")
    x = builder.node("Flatten", [x], "/flatten", axis=1)
    features = network.channels[current]
    weight = builder.weight("fc.weight", (classes, features), features)
    bias = builder.bias("fc.bias", classes)
    return builder.finish([builder.node("Gemm", [x, weight, bias], "/fc", "logits", transB=1)])


def nasnet_small() -> onnx.ModelProto:
    return nasnet_cifar(cells=3, filters=8, image=16)


class _Network:
    """The builder, and how many channels and what size each value has."""

    def __init__(self, builder: Builder, image: int) -> None:
        self.builder = builder
        self.channels: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._image = image

    def size(self, x: str) -> int:
        return self._sizes.get(x, self._image)

    def normal_cell(self, before: str, current: str, name: str, width: int) -> str:
        h, p = self._both(before, current, name, width)
        parts = [
            self._sum(f"{name}/0", self._separable(h, f"{name}/0/a", width, 3), h),
            self._sum(
                f"{name}/1",
                self._separable(p, f"{name}/1/a", width, 3),
                self._separable(h, f"{name}/1/b", width, 5),
            ),
            self._sum(f"{name}/2", self._pool(h, f"{name}/2/a", "AveragePool"), p),
            self._sum(
                f"{name}/3",
                self._pool(p, f"{name}/3/a", "AveragePool"),
                self._pool(p, f"{name}/3/b", "AveragePool"),
            ),
            self._sum(
                f"{name}/4",
                self._separable(p, f"{name}/4/a", width, 5),
                self._separable(p, f"{name}/4/b", width, 3),
            ),
            p,
        ]
        return self._concat(name, parts, width, self.size(h))

    def reduction_cell(self, before: str, current: str, name: str, width: int) -> str:
        h, p = self._both(before, current, name, width)
        first = self._sum(
            f"{name}/0",
            self._separable(h, f"{name}/0/a", width, 5, stride=2),
            self._separable(p, f"{name}/0/b", width, 7, stride=2),
        )
        second = self._sum(
            f"{name}/1",
            self._pool(h, f"{name}/1/a", "MaxPool", stride=2),
            self._separable(p, f"{name}/1/b", width, 7, stride=2),
        )
        third = self._sum(
            f"{name}/2",
            self._pool(h, f"{name}/2/a", "AveragePool", stride=2),
            self._separable(p, f"{name}/2/b", width, 5, stride=2),
        )
        fourth = self._sum(
            f"{name}/3",
            self._pool(h, f"{name}/3/a", "MaxPool", stride=2),
            self._separable(first, f"{name}/3/b", width, 3),
        )
        fifth = self._sum(f"{name}/4", self._pool(first, f"{name}/4/a", "AveragePool"), second)
        return self._concat(name, [second, third, fourth, fifth], width, (self.size(h) + 1) // 2)

    def _both(self, before: str, current: str, name: str, width: int) -> tuple[str, str]:
        """The two inputs of a cell, brought to its width and to the size of the newer one."""
        stride = 2 if self.size(before) > self.size(current) else 1
        h = self._fit(current, f"{name}/fit", width, 1)
        p = self._fit(before, f"{name}/fit_before", width, stride)
        return h, p

    def _fit(self, x: str, name: str, width: int, stride: int) -> str:
        size = self.size(x)
        y = self.builder.node("Relu", [x], f"{name}/relu")
        y = self.convolution(y, name, self.channels[x], width, 1, stride)
        self._sizes[y] = -(-size // stride)
        return y

    def _separable(self, x: str, name: str, width: int, kernel: int, stride: int = 1) -> str:
        """Twice: ReLU, a depthwise convolution, a 1x1 convolution, normalisation."""
        y = x
        for turn in range(2):
            at = f"{name}/{turn}"
            y = self.builder.node("Relu", [y], f"{at}/relu")
            step = stride if turn == 0 else 1
            y = self.builder.convolution(
                y, f"{at}/depthwise", width, width, kernel, step, groups=width
            )
            y = self.convolution(y, f"{at}/pointwise", width, width, 1)
        return y

    def convolution(
        self, x: str, name: str, channels: int, width: int, kernel: int, stride: int = 1
    ) -> str:
        """A convolution and its batch normalisation."""
        y = self.builder.convolution(x, f"{name}/conv", channels, width, kernel, stride)
        return self.builder.batch_norm(y, f"{name}/norm", width, epsilon=1e-3)

    def _pool(self, x: str, name: str, op: str, stride: int = 1) -> str:
        return self.builder.node(
            op, [x], name, kernel_shape=[3, 3], strides=[stride, stride], pads=[1, 1, 1, 1]
        )

    def _sum(self, name: str, a: str, b: str) -> str:
        return self.builder.node("Add", [a, b], f"{name}/add")

    def _concat(self, name: str, parts: list[str], width: int, size: int) -> str:
        y = self.builder.node("Concat", parts, f"{name}/concat", axis=1)
        self.channels[y] = width * len(parts)
        self._sizes[y] = size
        return y
