"""Finds out what was done to a photograph: how its colours were changed and how it was turned.

    python examples/fit.py

A picture is a photograph with a colour jitter (brightness, contrast, saturation, hue) and an affine
warp (angle, logarithm of the scale, shift). Given both, the eight parameters are fitted by gradient
descent. The forward graph is built with the operations of the zoo, ``with_gradients`` adds its
derivatives, and the compiled program gives loss and gradients in one launch; the update is Adam
(Kingma and Ba, 2014) in a few lines of NumPy. It ends when all parameters are close to the true
ones, and does the same each time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import ramforge
from examples.gradients import gradient_name, with_gradients
from ramforge.zoo import vision
from ramforge.zoo.builder import Builder
from ramforge.zoo.vision_pipeline import colour_jitter

Array = NDArray[Any]

PARAMETERS = ("jitter", "pose")
NAMES = (
    *("brightness", "contrast", "saturation", "hue"),
    *("angle", "log scale", "shift x", "shift y"),
)
TRUE = {"jitter": (0.8, 1.3, 0.6, 0.5), "pose": (0.3, 0.1, 0.12, -0.08)}
START = {"jitter": (1.0, 1.0, 1.0, 0.0), "pose": (0.0, 0.0, 0.0, 0.0)}
CLOSE = 0.002
STEPS = 400


def forward(size: int) -> onnx.ModelProto:
    """The picture made of a photograph, and its mean squared distance from another one."""
    builder = Builder("fit")
    photograph = builder.input("photograph", (1, 3, size, size))
    wanted = builder.input("wanted", (1, 3, size, size))
    jitter = builder.input("jitter", (1, 4))
    pose = builder.input("pose", (1, 4))
    x = colour_jitter(builder, photograph, jitter, 1, "/jitter")
    matrix = vision.affine_matrix(builder, pose, 1, "/matrix")
    x = vision.affine_warp(builder, x, matrix, (1, size, size), "/warp")
    picture = builder.node("Identity", [x], "/picture", "picture")
    gap = builder.node("Sub", [picture, wanted], "/gap")
    square = builder.node("Mul", [gap, gap], "/square")
    loss = builder.node("ReduceMean", [square], "/loss", "loss", keepdims=0)
    return builder.finish([loss, picture])


def photograph(size: int, seed: int = 0) -> Array:
    """Soft patches of colour with a finer texture on them."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    image = np.full((3, size, size), 0.45)
    for waves, strength in ((1.5, 0.1), (3.0, 0.05), (7.0, 0.015)):
        for channel in range(3):
            for _ in range(3):
                across, down = random.uniform(-waves, waves, 2)
                phase = random.uniform(0, 2 * np.pi)
                image[channel] += strength * np.sin(2 * np.pi * (across * x + down * y) + phase)
    return np.asarray(image.clip(0, 1)[None], np.float32)


class Adam:
    """Steps of a size that a coordinate's own gradients decide, smaller and smaller."""

    def __init__(self, parameters: Array, rate: float = 0.05, decay: float = 0.985) -> None:
        self.parameters, self._rate, self._decay = parameters, rate, decay
        self._mean, self._square = np.zeros_like(parameters), np.zeros_like(parameters)
        self._count = 0

    def step(self, gradient: Array) -> None:
        self._count += 1
        self._mean = 0.9 * self._mean + 0.1 * gradient
        self._square = 0.99 * self._square + 0.01 * gradient**2
        mean = self._mean / (1 - 0.9**self._count)
        square = self._square / (1 - 0.99**self._count)
        rate = self._rate * self._decay**self._count
        self.parameters = self.parameters - rate * mean / (np.sqrt(square) + 1e-12)


@dataclass(frozen=True)
class Fit:
    """Where a fit ended, and how far each parameter is from the true one."""

    steps: int
    loss: float
    found: Array

    @property
    def errors(self) -> Array:
        return np.asarray(abs(self.found - joined(TRUE)))

    @property
    def is_close(self) -> bool:
        return bool(self.errors.max() < CLOSE)


def joined(parameters: Mapping[str, tuple[float, ...]]) -> Array:
    return np.array([number for name in PARAMETERS for number in parameters[name]], np.float64)


def inputs_of(parameters: Array) -> dict[str, Array]:
    halves = np.split(parameters.astype(np.float32)[None], len(PARAMETERS), axis=1)
    return dict(zip(PARAMETERS, halves, strict=True))


def fit(size: int = 48, tell: Callable[[Fit], None] | None = None) -> Fit:
    model = with_gradients(forward(size), "loss", PARAMETERS)
    image = photograph(size)
    with ramforge.Session(ramforge.compile(model, target="host"), "host") as session:
        given = {"photograph": image, "wanted": np.zeros_like(image)}
        given["wanted"] = session.run(["picture"], {**given, **inputs_of(joined(TRUE))})[0]
        adam = Adam(joined(START))
        wanted = ["loss", *map(gradient_name, PARAMETERS)]
        for number in range(STEPS + 1):
            loss, *slopes = session.run(wanted, {**given, **inputs_of(adam.parameters)})
            state = Fit(number, float(loss), adam.parameters)
            if tell is not None and (number % 20 == 0 or state.is_close):
                tell(state)
            if state.is_close:
                break
            adam.step(np.concatenate(slopes, axis=1)[0].astype(np.float64))
    return state


def _row(state: Fit) -> None:
    values = "".join(f"{value:>11.4f}" for value in state.found)
    print(f"{state.steps:>5}{state.loss:>11.2e}{values}")


def main() -> int:
    print(" step       loss" + "".join(f"{name:>11}" for name in NAMES))
    end = fit(tell=_row)
    print(" true" + " " * 11 + "".join(f"{value:>11.4f}" for value in joined(TRUE)))
    print(f"furthest from the true ones: {end.errors.max():.4f}")
    return 0 if end.is_close else 1


if __name__ == "__main__":
    sys.exit(main())
