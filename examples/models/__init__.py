"""The networks that tests, examples and benchmarks run, each a function of a few numbers."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from examples.models.encoder import encoder, encoder_small
from examples.models.lstm_cell import lstm_cell
from examples.models.mlp import mlp
from examples.models.mobilenet_small import mobilenet_small
from examples.models.resnet import resnet18, resnet_small

MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnet18": resnet18,
    "resnet_small": resnet_small,
    "mobilenet_small": mobilenet_small,
    "encoder": encoder,
    "encoder_small": encoder_small,
    "mlp": mlp,
    "lstm_cell": lstm_cell,
}
