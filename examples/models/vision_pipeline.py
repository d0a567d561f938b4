"""Augmentation as Kornia does it on a GPU (Riba et al., 2020) and a ResNet behind it: one graph
from the photograph to the logits, so that all of it runs in one launch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import compose

from ramforge.zoo import vision
from ramforge.zoo.builder import Builder
from ramforge.zoo.resnet import resnet18, resnet_small

# The statistics of ImageNet, by which its images are made normal numbers and back.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Where augmentations lie, and how far they go: a normal number in, tanh of it, times the range.
# In no place do they leave an image as it is, so that a step that is missing shows.
_JITTER = ((1.3, 1.3, 1.2, 0.8), (0.2, 0.2, 0.4, 0.6))  # brightness, contrast, saturation, hue
_POSE = ((0.4, -0.1, 0.06, -0.04), (0.2, 0.1, 0.05, 0.05))  # angle, log of the scale, shift
_TILT = ((0.15, -0.1), (0.1, 0.1))
# Widths of the blur in radii: a simple lens is sharp in one colour.
_SIGMAS = (0.7, 0.5, 0.9)
_EDGES = 0.5


def vision_pipeline() -> onnx.ModelProto:
    """An image of 256x256, augmented to 224x224, into ResNet-18."""
    return _in_front(resnet18(), 256, 240, 224, radius=2)


def vision_pipeline_small() -> onnx.ModelProto:
    return _in_front(resnet_small(), 39, 35, 32, radius=1)


def _in_front(
    network: onnx.ModelProto, image: int, turned: int, out: int, radius: int
) -> onnx.ModelProto:
    augmented = augmentation(1, image, turned, out, radius)
    network.ir_version = augmented.ir_version
    ports = [(augmented.graph.output[0].name, network.graph.input[0].name)]
    return compose.merge_models(augmented, network, ports, name="vision_pipeline")


def augmentation(batch: int, image: int, turned: int, out: int, radius: int) -> onnx.ModelProto:
    """Normalised images in, sizes ``image``, ``turned`` behind the affine warp, and ``out``."""
    builder = Builder("augmentation", seed=61)
    x = builder.input("image", (batch, 3, image, image))
    builder.constant("mean", np.array(_MEAN, np.float32).reshape(1, 3, 1, 1))
    builder.constant("deviation", np.array(_DEVIATION, np.float32).reshape(1, 3, 1, 1))
    x = builder.node("Mul", [x, "deviation"], "/colours/scale")
    x = builder.node("Add", [x, "mean"], "/colours/shift")
    x = colour_jitter(builder, x, _ranged(builder, "jitter", batch, _JITTER), batch, "/jitter")
    pose = _ranged(builder, "pose", batch, _POSE)
    matrix = vision.affine_matrix(builder, pose, batch, "/affine/matrix")
    x = vision.affine_warp(builder, x, matrix, (batch, turned, turned), "/affine")
    tilt = _ranged(builder, "tilt", batch, _TILT)
    matrix = vision.homography(builder, tilt, batch, "/perspective/matrix")
    x = vision.perspective_warp(builder, x, matrix, (batch, out, out), "/perspective")
    x = vision.gaussian_blur(builder, x, radius, tuple(radius * s for s in _SIGMAS), "/blur")
    edges = vision.sobel(builder, x, "/sobel")
    edges = builder.node("Mul", [edges, builder.constant("edges", _EDGES)], "/edges/scale")
    x = builder.node("Add", [x, edges], "/edges")
    x = builder.node("Sub", [x, "mean"], "/normalise/centre")
    return builder.finish([builder.node("Div", [x, "deviation"], "/normalise", "augmented")])


def colour_jitter(builder: Builder, x: str, jitter: str, batch: int, name: str) -> str:
    """Brightness, contrast, saturation and hue, of which ``jitter`` (batch, 4) has the factors."""
    shape = builder.constant("jitter_shape", [batch, 4, 1, 1])
    factors = builder.node("Reshape", [jitter, shape], f"{name}/factors")
    each = builder.constant("each_factor", [1] * 4)
    names = [f"{name}/{part}_factor" for part in ("brightness", "contrast", "saturation", "hue")]
    light, apart, colour, turn = builder.nodes(
        "Split", [factors, each], f"{name}/split", names, axis=1
    )
    x = vision.brightness(builder, x, light, f"{name}/brightness")
    x = vision.contrast(builder, x, apart, f"{name}/contrast")
    return vision.saturation_and_hue(builder, x, colour, turn, f"{name}/colour")


def _ranged(builder: Builder, name: str, batch: int, bounds: Sequence[Sequence[float]]) -> str:
    """An input of normal numbers, as parameters within bounds."""
    middle, reach = (np.array([row], np.float32) for row in bounds)
    x = builder.input(name, (batch, middle.size))
    x = builder.node("Tanh", [x], f"/{name}/tanh")
    x = builder.node("Mul", [x, builder.constant(f"{name}.reach", reach)], f"/{name}/scale")
    return builder.node("Add", [x, builder.constant(f"{name}.middle", middle)], f"/{name}/shift")
