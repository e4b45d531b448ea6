"""Every preset builds offline without its weights and has the published number of parameters."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from vla.benchmarks.tabletop.layouts import LAYOUTS
from vla.config import build, presets
from vla.models.decoders.tokenizer import train_tokenizer
from vla.types import ActionSpace

# Published parameters: model cards of the hub, and timm's results table (without classifier).
PUBLISHED = {
    "decoder/smollm2_135m": 134.5e6,
    "decoder/smollm2_135m_wheel": 134.5e6,
    "decoder/smollm2_360m": 361.8e6,
    "decoder/smollm2_1_7b": 1.711e9,
    "decoder/qwen3_0_6b": 596e6,
    "decoder/qwen3_1_7b": 1.72e9,
    "decoder/qwen3_4b": 4.02e9,
    "decoder/qwen3_8b": 8.19e9,
    "decoder/gemma3_270m": 268e6,
    "decoder/gemma3_1b": 1.0e9,
    "decoder/pythia_14m": 14.07e6,
    "decoder/pythia_70m": 70.4e6,
    "decoder/pythia_160m": 162.3e6,
    "decoder/pythia_410m": 405.3e6,
    "decoder/pythia_1b": 1.012e9,
    "decoder/pythia_1_4b": 1.415e9,
    "decoder/t5_small": 60.5e6,
    "decoder/t5_base": 222.9e6,
    "decoder/paligemma2_3b": 3.03e9,
    "decoder/paligemma2_10b": 9.66e9,
    "decoder/smolvlm_256m": 256.5e6,
    "decoder/smolvlm_500m": 507.5e6,
    "decoder/smolvlm_2_2b": 2.25e9,
    "decoder/qwen3_vl_2b": 2.13e9,
    "decoder/qwen3_vl_4b": 4.44e9,
    "decoder/qwen3_vl_8b": 8.77e9,
    "vision/dinov2_s": 22.06e6 - (37**2 - 16**2) * 384,  # published with positions for 518 px
    "vision/dinov2_b": 86.6e6,
    "vision/dinov2_l": 304.4e6,
    "vision/dinov2_g": 1.136e9,
    # Without attention pooling, which only the contrastive loss uses.
    "vision/siglip_b": 92.9e6 - 7.1e6,
    "vision/siglip_l": 316.3e6 - 12.6e6,
    "vision/siglip_so400m": 428.2e6 - 15.9e6,
    "vision/dinosiglip": 304.4e6 + 428.2e6 - 15.9e6,
    "text/minilm": 22.7e6,
    "text/minilm_wheel": 22.7e6,
}
NAMES = [
    f"{slot}/{name}"
    for slot in ("vision", "connector", "decoder", "head", "text")
    for name in presets(slot)
]


class Stub:
    """A decoder with width, tokenizer and two blocks only."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.width = tokenizer, 64
        self.layers = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(2))

    def fit_vocabulary(self) -> None: ...


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_builds_offline(name: str) -> None:
    slot, preset = name.split("/")
    tokenizer = train_tokenizer(Counter({"pick": 9, "apple": 5}), 800)
    space: ActionSpace = LAYOUTS["rt2"]
    grid = torch.linspace(-1, 1, 257)[:, None].expand(-1, space.dim)
    wired: dict[str, Any] = {
        "tokenizer": tokenizer,
        "pretrained": False,
        "in_width": 64,
        "out_width": 64,
        "decoder": Stub(tokenizer),
        "action_dim": space.dim,
        "action_space": space,
        "horizon": 8,
        "quantiles": grid,
        "words": Counter(),
    }
    with torch.device("meta" if slot in ("vision", "decoder", "text") else "cpu"):
        part = build(slot, preset, **wired)
    count = sum(p.numel() for p in {id(p): p for p in part.parameters()}.values())
    if name in PUBLISHED:
        assert count == pytest.approx(PUBLISHED[name], rel=0.02)
    else:
        assert count < 12e6  # large presets need a published number


def test_every_published_size_is_asserted() -> None:
    assert set(PUBLISHED) <= set(NAMES)
