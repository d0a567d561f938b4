"""The networks that people run, full size and small for tests. This is the package ramforge.zoo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from ramforge.zoo.alexnet import alexnet, alexnet_small
from ramforge.zoo.bert import bert_base, bert_large, bert_small
from ramforge.zoo.convnext import convnext_small, convnext_tiny
from ramforge.zoo.deepspeech2 import deepspeech2, deepspeech2_small
from ramforge.zoo.efficientnet import efficientnet_b0, efficientnet_small
from ramforge.zoo.encoder import encoder, encoder_base, encoder_small
from ramforge.zoo.gpt2 import gpt2, gpt2_decode, gpt2_decode_small, gpt2_small
from ramforge.zoo.llama import llama_decode, llama_decode_small
from ramforge.zoo.lstm_cell import lstm_cell
from ramforge.zoo.lstm_operator import lstm_tc_operator, lstm_tc_operator_small
from ramforge.zoo.mlp import mlp
from ramforge.zoo.mobilenet_small import mobilenet_small
from ramforge.zoo.mobilenet_v2 import mobilenet_v2, mobilenet_v2_small
from ramforge.zoo.mobilenext import mobilenext, mobilenext_small
from ramforge.zoo.nasnet import nasnet_cifar, nasnet_mobile, nasnet_mobile_small, nasnet_small
from ramforge.zoo.recurrent import lstm_tc, lstm_tc_small, seq2seq, seq2seq_small
from ramforge.zoo.resnet import (
    resnet18,
    resnet18_int8,
    resnet18_int8_small,
    resnet50,
    resnet50_dnl,
    resnet50_dnl_small,
    resnet50_small,
    resnet_small,
)
from ramforge.zoo.resnext import (
    resnext29,
    resnext29_grouped,
    resnext29_grouped_small,
    resnext29_small,
    resnext101,
    resnext101_small,
)
from ramforge.zoo.unet import unet, unet_small
from ramforge.zoo.vision_pipeline import vision_pipeline, vision_pipeline_small
from ramforge.zoo.vit import vit_b16, vit_small
from ramforge.zoo.whisper import whisper_small, whisper_tiny

Build = Callable[[], onnx.ModelProto]


@dataclass(frozen=True, slots=True)
class Entry:
    """A network: what it is, in a line, as published, and the same structure small."""

    summary: str
    full: Build
    small: Build


ZOO: dict[str, Entry] = {
    # the six that the paper of RAMMER measures, as it configures them
    "resnext29": Entry("ResNeXt-29 16x64d, sixteen branches", resnext29, resnext29_small),
    "nasnet_cifar": Entry("NASNet-A of 18 cells for 32x32 images", nasnet_cifar, nasnet_small),
    "alexnet": Entry("AlexNet", alexnet, alexnet_small),
    "deepspeech2": Entry("DeepSpeech2 with seven LSTM layers", deepspeech2, deepspeech2_small),
    "lstm_tc": Entry("10 LSTM layers unrolled over 100 steps", lstm_tc, lstm_tc_small),
    "seq2seq": Entry("LSTM encoder and decoder, unrolled", seq2seq, seq2seq_small),
    # what people run today
    "resnet18": Entry("ResNet-18", resnet18, resnet_small),
    "resnet50": Entry("ResNet-50", resnet50, resnet50_small),
    "resnet18_int8": Entry("ResNet-18, quantised", resnet18_int8, resnet18_int8_small),
    "resnet50_dnl": Entry(
        "ResNet-50 with a disentangled non-local block", resnet50_dnl, resnet50_dnl_small
    ),
    "resnext29_grouped": Entry(
        "resnext29, its branches one convolution", resnext29_grouped, resnext29_grouped_small
    ),
    "resnext101": Entry("ResNeXt-101 64x4d", resnext101, resnext101_small),
    "mobilenet_v2": Entry("MobileNetV2", mobilenet_v2, mobilenet_v2_small),
    "mobilenext": Entry("MobileNeXt", mobilenext, mobilenext_small),
    "efficientnet_b0": Entry("EfficientNet-B0", efficientnet_b0, efficientnet_small),
    "nasnet_mobile": Entry("NASNet-A (4 @ 1056)", nasnet_mobile, nasnet_mobile_small),
    "convnext_tiny": Entry("ConvNeXt-T", convnext_tiny, convnext_small),
    "unet": Entry("U-Net for images of 572x572", unet, unet_small),
    "encoder_base": Entry("12 encoder layers, 768 wide, 128 tokens", encoder_base, encoder_small),
    "vit_b16": Entry("ViT-B/16", vit_b16, vit_small),
    "bert_base": Entry("BERT base, 128 tokens", bert_base, bert_small),
    "bert_large": Entry("BERT large, 128 tokens", bert_large, bert_small),
    "gpt2": Entry("GPT-2 small, 64 tokens", gpt2, gpt2_small),
    "gpt2_decode": Entry("GPT-2 small, one token behind 63", gpt2_decode, gpt2_decode_small),
    "llama_decode": Entry(
        "Llama 3.2 1B, one token behind 127, weights in float16", llama_decode, llama_decode_small
    ),
    "whisper_tiny": Entry("The encoder of Whisper tiny", whisper_tiny, whisper_small),
    "lstm_tc_operator": Entry(
        "lstm_tc, each layer one LSTM operator", lstm_tc_operator, lstm_tc_operator_small
    ),
    "vision_pipeline": Entry(
        "Augmentation in the manner of Kornia and ResNet-18", vision_pipeline, vision_pipeline_small
    ),
}

PAPER = tuple(ZOO)[:6]
BENCHMARKED = ("resnet50", *PAPER, "encoder_base")

# What tests compile often.
MODELS: dict[str, Build] = {
    "resnet18": resnet18,
    "resnet_small": resnet_small,
    "mobilenet_small": mobilenet_small,
    "encoder": encoder,
    "encoder_small": encoder_small,
    "mlp": mlp,
    "lstm_cell": lstm_cell,
}
