"""A tiny RT-1 policy and batches for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from policies import WORDS, robot_batch

from vla.benchmarks.tabletop.layouts import LAYOUTS
from vla.config import build
from vla.models.decoders.tokenizer import train_tokenizer
from vla.policies.spec import RobotSpec
from vla.types import RobotBatch

_BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
RT1 = {
    "name": "rt1",
    "text": {"name": "sentence", "config": _BERT, "vocab_size": 800},
    "model": "efficientnet_lite0",
    "image_size": 32,
    "stages": 3,
    "tokens": 4,
    "width": 32,
    "layers": 2,
    "heads": 2,
}


def make_rt1() -> Any:
    """A tiny RT-1 with 6 frames for the robot ``arm``."""
    torch.manual_seed(0)
    specs = {"arm": RobotSpec(LAYOUTS["rt1"], ("top",), (32, 32), history=6)}
    return build("policy", RT1, specs=specs, tokenizer=train_tokenizer(WORDS, 800))


def rt1_batch() -> RobotBatch:
    """2 rows of 6 frames with 2 instructions each."""
    batch = replace(robot_batch(2), robot="arm")
    batch.images_BVTCHW = torch.randint(0, 256, (2, 1, 6, 3, 32, 32), dtype=torch.uint8)
    low, high = torch.tensor(LAYOUTS["rt1"].low), torch.tensor(LAYOUTS["rt1"].high)
    batch.actions_KHA = low + torch.rand(4, 1, len(low)) * (high - low)
    return batch
