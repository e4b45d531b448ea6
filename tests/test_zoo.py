"""Every combination of vision encoder, decoder and head trains, acts and reloads."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from families import CAUSAL, SEQ2SEQ, decoder_config
from head_choices import heads, kept
from policies import (
    ACTION_HEADS,
    HEADS,
    VISION_ENCODERS,
    WORDS,
    check_policy,
    config_id,
)
from vlm_models import make_vlm

from vla.config import registered
from vla.models.decoders.tokenizer import train_tokenizer
from vla.testing import SLOTS, check_component

DECODERS = [*CAUSAL, *SEQ2SEQ]
# Default run: each decoder, and each vision encoder, with some heads. Slow run: their other heads,
# and all pairs of vision encoder and decoder, each with three heads.
GRID = [
    (v, m, ACTION_HEADS[(n + shift) % len(ACTION_HEADS)])
    for n, (v, m) in enumerate(itertools.product(VISION_ENCODERS, DECODERS))
    for shift in (0, 4, 8)
]


PAIRS = [
    kept(k, VISION_ENCODERS[(n + k) % len(VISION_ENCODERS)], m, head)
    for n, m in enumerate(DECODERS)
    for head, k in heads(n)
]
PAIRS += [
    kept(k, v, DECODERS[(n + k) % 3], head)
    for n, v in enumerate(VISION_ENCODERS)
    for head, k in heads(n)
]


@pytest.mark.parametrize(("slot", "name"), [(s, n) for s in SLOTS for n in registered(s)])
def test_every_registered_component_trains_acts_and_reloads(
    slot: str, name: str, tmp_path: Path
) -> None:
    options = {}
    if getattr(registered(slot)[name], "is_vlm", False):  # needs a folder with a processor
        options = {"model": make_vlm("llava", tmp_path / "hub", train_tokenizer(WORDS, 800))}
    check_component(slot, name, **options)


@pytest.mark.parametrize(("vision", "family", "head"), PAIRS, ids=config_id)
def test_pairs(vision: Any, family: str, head: Any, tmp_path: Path) -> None:
    check_policy(
        {
            "vision": vision,
            "connector": {"name": "mlp"},
            "decoder": decoder_config(family),
            "head": head,
        },
        tmp_path,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("vision", "family", "head"), GRID, ids=config_id)
def test_grid(vision: Any, family: str, head: Any, tmp_path: Path) -> None:
    check_policy(
        {
            "vision": vision,
            "connector": {"name": "mlp"},
            "decoder": decoder_config(family),
            "head": head,
        },
        tmp_path,
    )


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "t5"])
@pytest.mark.parametrize("connector", sorted(registered("connector")))
def test_connectors(connector: str, family: str, tmp_path: Path) -> None:
    config = {
        "vision": VISION_ENCODERS[0],
        "connector": {"name": connector},
        "decoder": decoder_config(family),
        "head": HEADS["token"][0],
    }
    check_policy(config, tmp_path)
