"""NASNet-A (Zoph et al., 2018): cells of separable convolutions and poolings found by search.

Every cell sees the two cells before it. Each of its five sums joins two small operators, so a cell
is a dozen short convolutions that could run side by side: the case the paper of RAMMER is made for.
"""

from __future__ import annotations

import onnx

from ramforge.zoo.builder import Builder
from ramforge.zoo.layers import classify

_EPSILON = 1e-3


def nasnet_cifar(
    stages: tuple[int, ...] = (6, 6, 6), filters: int = 32, image: int = 32, classes: int = 10
) -> onnx.ModelProto:
    """Three stages of so many normal cells, a reduction cell between each two."""
    network = _Network(Builder("nasnet_cifar", seed=9))
    x = network.builder.input("x", (1, 3, image, image))
    stem = network.convolution(x, "/stem", 3, 3 * filters, 3)
    network.know(stem, 3 * filters, image)
    return _stages(network, stem, stem, stages, filters, classes)


def nasnet_small() -> onnx.ModelProto:
    return nasnet_cifar(stages=(1, 1), filters=16, image=10)


def nasnet_mobile(
    stages: tuple[int, ...] = (4, 4, 4),
    filters: int = 44,
    stem: int = 32,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """NASNet-A (4 @ 1056) for ImageNet: the same behind a stem with two reduction cells."""
    network = _Network(Builder("nasnet_mobile", seed=1056))
    x = network.builder.input("x", (1, 3, image, image))
    first = network.convolution(x, "/stem", 3, stem, 3, stride=2, padding=0)
    network.know(first, stem, (image - 3) // 2 + 1)
    second = network.reduction_cell("", first, "/stem/reduction0", filters // 4)
    third = network.reduction_cell(first, second, "/stem/reduction1", filters // 2)
    return _stages(network, second, third, stages, filters, classes)


def nasnet_mobile_small() -> onnx.ModelProto:
    return nasnet_mobile(stages=(1,), filters=16, stem=8, image=29, classes=10)


def _stages(
    network: _Network,
    before: str,
    current: str,
    stages: tuple[int, ...],
    filters: int,
    classes: int,
) -> onnx.ModelProto:
    for stage, cells in enumerate(stages):
        width = filters * 2**stage
        if stage:
            reduced = network.reduction_cell(before, current, f"/reduction{stage}", width)
            before, current = current, reduced
        for number in range(cells):
            normal = network.normal_cell(before, current, f"/stage{stage}.{number}", width)
            before, current = current, normal
    builder = network.builder
    x = builder.node("Relu", [current], "/relu")
    return builder.finish([classify(builder, x, network.channels[current], classes)])


class _Network:
    """The builder, and how many channels and what size each value has."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.channels: dict[str, int] = {}
        self.sizes: dict[str, int] = {}

    def know(self, x: str, channels: int, size: int) -> str:
        self.channels[x], self.sizes[x] = channels, size
        return x

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
        return self._concat(name, parts, width, self.sizes[h])

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
        size = -(-self.sizes[h] // 2)
        return self._concat(name, [second, third, fourth, fifth], width, size)

    def _both(self, before: str, current: str, name: str, width: int) -> tuple[str, str]:
        """The two inputs of a cell, brought to its width and to the size of the newer one.

        The first cell has nothing before it; its separable convolutions read its input as it is.
        """
        h = self._fit(current, f"{name}/fit", width)
        if not before:
            return h, current
        if self.sizes[before] > self.sizes[current]:
            return h, self._halved(before, f"{name}/fit_before", width)
        return h, self._fit(before, f"{name}/fit_before", width)

    def _fit(self, x: str, name: str, width: int) -> str:
        y = self.builder.node("Relu", [x], f"{name}/relu")
        y = self.convolution(y, name, self.channels[x], width, 1)
        return self.know(y, width, self.sizes[x])

    def _halved(self, x: str, name: str, width: int) -> str:
        """Half of the channels from the even positions, the others from the odd ones."""
        builder = self.builder
        y = builder.node("Relu", [x], f"{name}/relu")
        pads = builder.constant(f"{name}.pads", [0, 0, 0, 0, 0, 0, 1, 1])
        ends = {"starts": [1, 1], "ends": [2**31 - 1] * 2, "axes": [2, 3]}
        limits = [builder.constant(f"{name}.{key}", value) for key, value in ends.items()]
        odd = builder.node("Pad", [y, pads], f"{name}/pad")
        odd = builder.node("Slice", [odd, *limits], f"{name}/slice")
        parts = []
        for part, source, channels in (("even", y, width // 2), ("odd", odd, width - width // 2)):
            at = f"{name}/{part}"
            every = builder.node(
                "AveragePool", [source], f"{at}/pool", kernel_shape=[1, 1], strides=[2, 2]
            )
            parts.append(builder.convolution(every, at, self.channels[x], channels, 1))
        y = builder.node("Concat", parts, f"{name}/concat", axis=1)
        y = builder.batch_norm(y, f"{name}/norm", width, epsilon=_EPSILON)
        return self.know(y, width, -(-self.sizes[x] // 2))

    def _separable(self, x: str, name: str, width: int, kernel: int, stride: int = 1) -> str:
        """Twice: ReLU, a depthwise convolution, a 1x1 convolution, normalisation."""
        y = x
        for turn in range(2):
            at = f"{name}/{turn}"
            channels = width if turn else self.channels.get(x, width)
            y = self.builder.node("Relu", [y], f"{at}/relu")
            y = self.builder.convolution(
                y,
                f"{at}/depthwise",
                channels,
                channels,
                kernel,
                1 if turn else stride,
                groups=channels,
            )
            y = self.convolution(y, f"{at}/pointwise", channels, width, 1)
        return y

    def convolution(
        self,
        x: str,
        name: str,
        channels: int,
        width: int,
        kernel: int,
        stride: int = 1,
        padding: int | None = None,
    ) -> str:
        """A convolution and its batch normalisation."""
        y = self.builder.convolution(
            x, f"{name}/conv", channels, width, kernel, stride, padding=padding
        )
        return self.builder.batch_norm(y, f"{name}/norm", width, epsilon=_EPSILON)

    def _pool(self, x: str, name: str, op: str, stride: int = 1) -> str:
        return self.builder.node(
            op, [x], name, kernel_shape=[3, 3], strides=[stride, stride], pads=[1, 1, 1, 1]
        )

    def _sum(self, name: str, a: str, b: str) -> str:
        return self.builder.node("Add", [a, b], f"{name}/add")

    def _concat(self, name: str, parts: list[str], width: int, size: int) -> str:
        y = self.builder.node("Concat", parts, f"{name}/concat", axis=1)
        return self.know(y, width * len(parts), size)
