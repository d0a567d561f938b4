"""The networks that tests, examples and benchmarks run, each a function of a few numbers."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from examples.models.alexnet import alexnet, alexnet_small
from examples.models.deepspeech2 import deepspeech2, deepspeech2_small
from examples.models.encoder import encoder, encoder_base, encoder_small
from examples.models.lstm_cell import lstm_cell
from examples.models.mlp import mlp
from examples.models.mobilenet_small import mobilenet_small
from examples.models.nasnet import nasnet_cifar, nasnet_small
from examples.models.recurrent import lstm_tc, lstm_tc_small, seq2seq, seq2seq_small
from examples.models.resnet import resnet18, resnet50, resnet50_small, resnet_small
from examples.models.resnext import resnext29, resnext29_small

MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnet18": resnet18,
    "resnet_small": resnet_small,
    "mobilenet_small": mobilenet_small,
    "encoder": encoder,
    "encoder_small": encoder_small,
    "mlp": mlp,
    "lstm_cell": lstm_cell,
}

# The six networks that the paper of RAMMER measures, as it configures them ...
PAPER: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnext29": resnext29,
    "nasnet_cifar": nasnet_cifar,
    "alexnet": alexnet,
    "deepspeech2": deepspeech2,
    "lstm_tc": lstm_tc,
    "seq2seq": seq2seq,
}

# ... and the same structures at a size for tests.
PAPER_SMALL: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnext29": resnext29_small,
    "nasnet_cifar": nasnet_small,
    "alexnet": alexnet_small,
    "deepspeech2": deepspeech2_small,
    "lstm_tc": lstm_tc_small,
    "seq2seq": seq2seq_small,
}

# What the benchmarks run, and the same structures at a size for tests.
BENCHMARKED: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnet50": resnet50,
    **PAPER,
    "encoder_base": encoder_base,
}

BENCHMARKED_SMALL: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnet50": resnet50_small,
    **PAPER_SMALL,
    "encoder_base": encoder_small,
}
