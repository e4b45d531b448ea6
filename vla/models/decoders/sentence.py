"""Sentence embeddings from a frozen encoder.

RT-1 used the Universal Sentence Encoder; MiniLM replaces it offline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from vla.config import register
from vla.models.decoders.architecture import architecture_to_dict
from vla.models.decoders.loading import make_language_model


@register("text", "sentence")
class SentenceEncoder(nn.Module):
    """The normalised mean of the last hidden states, as in sentence-transformers.

    Every sentence is encoded once and then cached.
    """

    # Options of a small instance, for vla.testing.
    example: ClassVar[dict[str, Any]] = {
        "vocab_size": 800,
        "config": {
            "model_type": "bert",
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
    }

    def __init__(
        self,
        # Folder, package:NAME/PATH or hub name of pretrained weights; null: random weights.
        model: str | None = None,
        # Architecture: model_type and its fields; needed if model is null.
        config: dict[str, Any] | None = None,
        vocab_size: int = 2048,  # of the tokenizer trained on the data if model is null
        *,
        tokenizer: Any = None,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.pretrained_from, self.tokenizer = model, tokenizer
        lm = make_language_model("encoder", model, config, tokenizer, pretrained)
        self.lm = lm.requires_grad_(False).eval()
        self.width = int(self.lm.config.hidden_size)
        self._cache: dict[str, torch.Tensor] = {}

    def resolved_config(self) -> dict[str, Any]:
        """See ``LanguageModel.resolved_config``."""
        return {"config": architecture_to_dict(self.lm)} if self.pretrained_from else {}

    def train(self, mode: bool = True) -> SentenceEncoder:
        """Stays in evaluation mode: the encoder is never trained."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, sentences: Sequence[str]) -> torch.Tensor:
        """K sentences to embeddings (K, D)."""
        device = next(self.lm.parameters()).device
        new = sorted({s for s in sentences if s not in self._cache})
        if new:
            inputs = self.tokenizer(
                new, return_tensors="pt", padding=True, truncation=True, max_length=128
            ).to(device)
            states = self.lm(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).last_hidden_state
            mask = inputs["attention_mask"][:, :, None].to(states.dtype)
            means = nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
            self._cache |= dict(zip(new, means.cpu(), strict=True))
        return torch.stack([self._cache[s] for s in sentences]).to(device)
