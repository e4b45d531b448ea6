"""Sentence embeddings from a real encoder (RT-1 used the Universal Sentence Encoder; MiniLM is the natural stand-in offline)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from vla.config import register
from vla.decoders.language import make_language_model, plain_architecture


@register("text", "sentence")
class SentenceEncoder(nn.Module):
    """The mean of a frozen encoder's last states (sentence-transformers' pooling), normalised; every sentence is encoded once.

    Args:
        model: folder, ``package:`` path or hub name. config: an architecture (random weights where ``model`` is None).
        vocab_size: of the BPE tokenizer trained on the data when ``model`` is None. tokenizer: (wired).
    """

    def __init__(
        self, model: str | None = None, config: dict[str, Any] | None = None, vocab_size: int = 2048, *, tokenizer: Any = None, pretrained: bool = True
    ) -> None:  # fmt: skip
        super().__init__()
        self.pretrained_from, self.tokenizer = model, tokenizer
        self.lm = make_language_model("encoder", model, config, tokenizer, pretrained).requires_grad_(False).eval()
        self.width = int(self.lm.config.hidden_size)
        self._known: dict[str, torch.Tensor] = {}

    def portable(self) -> dict[str, Any]:
        """See ``CausalDecoder.portable``."""
        return {"config": plain_architecture(self.lm)} if self.pretrained_from else {}

    def train(self, mode: bool = True) -> SentenceEncoder:
        """Always in evaluation mode: it never learns."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, sentences: Sequence[str]) -> torch.Tensor:
        """K sentences to (K, D)."""
        device = next(self.lm.parameters()).device
        fresh = sorted({s for s in sentences if s not in self._known})
        if fresh:
            given = self.tokenizer(fresh, return_tensors="pt", padding=True, truncation=True, max_length=128).to(device)
            states = self.lm(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).last_hidden_state
            mask = given["attention_mask"][:, :, None].to(states.dtype)
            means = nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
            self._known |= dict(zip(fresh, means.cpu(), strict=True))
        return torch.stack([self._known[s] for s in sentences]).to(device)
