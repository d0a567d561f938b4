"""DeepSpeech2 (Amodei et al., 2016) as the paper of RAMMER runs it: two convolutions over a
spectrogram, seven recurrent layers over 75 steps, and a character for each step.
"""

from __future__ import annotations

import math

import onnx

from ramforge.zoo.builder import Builder
from ramforge.zoo.recurrent import make_cell, unroll, zero_state

_CONVOLUTIONS = (("/conv1", (41, 11), (20, 5)), ("/conv2", (21, 11), (10, 5)))


def deepspeech2(
    frames: int = 300,
    bins: int = 171,
    filters: int = 32,
    layers: int = 7,
    hidden: int = 256,
    classes: int = 29,
) -> onnx.ModelProto:
    builder = Builder("deepspeech2", seed=7)
    x = builder.input("spectrogram", (1, 1, bins, frames))
    channels, height, steps = 1, bins, frames
    for name, kernel, padding in _CONVOLUTIONS:
        shape = (filters, channels, *kernel)
        fan_in = channels * kernel[0] * kernel[1]
        weight = builder.weight(f"{name}.weight", shape, fan_in, math.sqrt(2))
        x = builder.node(
            "Conv",
            [x, weight, builder.bias(f"{name}.bias", filters)],
            name,
            kernel_shape=list(kernel),
            strides=[2, 2],
            pads=[*padding, *padding],
        )
        x = builder.node("Clip", [x, *_bounds(builder)], f"{name}/clip")
        channels, height, steps = filters, (height + 1) // 2, (steps + 1) // 2
    x = builder.node("Transpose", [x], "/frames/transpose", perm=[3, 0, 1, 2])
    shape_of_frames = builder.constant("frames_shape", [steps, channels * height])
    x = builder.node("Reshape", [x, shape_of_frames], "/frames/reshape")
    sizes = builder.constant("step_sizes", [1] * steps)
    names = [f"frame_{i}" for i in range(steps)]
    sequence = list(builder.nodes("Split", [x, sizes], "/frames/split", names, axis=0))
    zero = zero_state(builder, 1, hidden)
    width = channels * height
    for layer in range(layers):
        cell = make_cell(builder, f"/lstm{layer}", width, hidden)
        sequence, _ = unroll(builder, cell, sequence, (zero, zero))
        width = hidden
    x = builder.node("Concat", sequence, "/steps", axis=0)
    weight = builder.weight("fc.weight", (hidden, classes), hidden, gain=6.0)
    x = builder.node("MatMul", [x, weight], "/fc/matmul")
    x = builder.node("Add", [x, builder.bias("fc.bias", classes)], "/fc/bias")
    return builder.finish([builder.node("LogSoftmax", [x], "/characters", "characters", axis=1)])


def deepspeech2_small() -> onnx.ModelProto:
    return deepspeech2(frames=20, bins=31, filters=4, layers=2, hidden=32)


def _bounds(builder: Builder) -> tuple[str, str]:
    """The clipped ReLU of the paper."""
    return builder.constant("clip_low", 0.0), builder.constant("clip_high", 20.0)
