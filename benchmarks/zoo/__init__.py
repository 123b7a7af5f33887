"""Published architectures as ONNX models with seeded random weights, built offline.

Speed does not depend on what the weights are, so the figures hold for trained models too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx

from harness.feeds import Ranges
from zoo import (
    bert,
    convnext,
    densenet,
    efficientnet,
    gpt2,
    mlp,
    mobilenet_v2,
    recurrent,
    resnet,
    unet,
    vit,
    yolo,
)


@dataclass(frozen=True)
class Entry:
    """A model of the zoo: its builder and the inputs that it is measured with."""

    build: Callable[[], onnx.ModelProto]
    dims: Mapping[str, int] = field(default_factory=dict)  # sizes of the symbols
    ints: Ranges = field(default_factory=dict)  # ranges of integer inputs, where not 0 and 1


BERT_INTS: Ranges = {"input_ids": (0, 30522), "attention_mask": (1, 2)}

ZOO: dict[str, Entry] = {
    "mlp": Entry(mlp.mlp),
    "mlp_small": Entry(mlp.mlp_small),
    "gru_step": Entry(recurrent.gru_step),
    "lstm_tagger": Entry(recurrent.lstm_tagger, ints={"ids": (0, 20000)}),
    "resnet18": Entry(resnet.resnet18),
    "resnet50": Entry(resnet.resnet50),
    "mobilenet_v2": Entry(mobilenet_v2.mobilenet_v2),
    "efficientnet_b0": Entry(efficientnet.efficientnet_b0),
    "convnext_tiny": Entry(convnext.convnext_tiny),
    "densenet121": Entry(densenet.densenet121),
    "unet": Entry(unet.unet),
    "yolo": Entry(yolo.yolo),
    "vit_base": Entry(vit.vit_base),
    "bert_base": Entry(bert.bert_base, ints=BERT_INTS),
    "bert_base_dyn": Entry(bert.bert_base_dyn, {"batch": 1, "seq": 128}, BERT_INTS),
    "gpt2_prefill": Entry(gpt2.gpt2_prefill, ints={"input_ids": (0, gpt2.VOCABULARY)}),
    "gpt2_decode": Entry(
        gpt2.gpt2_decode,
        {"batch": 1, "past_len": 64},
        {"input_ids": (0, gpt2.VOCABULARY), "position_ids": (64, 65)},
    ),
}
