"""Every whole vision-language model trains, acts and reloads with every head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from head_choices import heads, kept
from policies import WORDS, check_policy, config_id
from vlm_models import VLM, make_vlm

from vla.models.decoders.tokenizer import load_tokenizer, train_tokenizer

PAIRS = [kept(k, m, head) for n, m in enumerate(VLM) for head, k in heads(n)]


@pytest.mark.parametrize(("family", "head"), PAIRS, ids=config_id)
def test_vlm_decoders(family: str, head: Any, tmp_path: Path) -> None:
    folder = make_vlm(family, tmp_path / "hub", train_tokenizer(WORDS, 800))
    check_policy(
        {"decoder": {"name": "vlm", "model": folder}, "head": head},
        tmp_path,
        load_tokenizer(folder),
    )
