"""Any Hugging Face causal language model as the decoder: random from a configuration, or pretrained from a local folder or the hub."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from vla.config import register
from vla.decoders.tokenizer import INTEGERS

_CURVE_TURNS = 4.0  # standard deviation of the curve's turns over 0..255: numbers ten apart are nearly uncorrelated


@register("decoder", "causal")
class CausalDecoder(nn.Module):
    """``AutoModelForCausalLM`` fed with embeddings.

    Args:
        model: local folder or hub name of pretrained weights and tokenizer, or None for random weights.
        config: architecture when ``model`` is None: ``model_type`` and any field of that type's configuration class.
        vocab_size: of the BPE tokenizer trained on the data when ``model`` is None.
        ordinal_integers: start random embeddings of the integers on a smooth curve.
        tokenizer: (wired) the tokenizer; the embedding is made to fit it.
    """

    def __init__(
        self, model: str | None = None, config: dict[str, Any] | None = None, vocab_size: int = 2048, ordinal_integers: bool = True, *, tokenizer: Any = None,
        pretrained: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if (model is None) == (config is None):
            raise ValueError("decoder: give either model (pretrained) or config (random weights)")
        self.tokenizer = tokenizer
        if model is None:
            fields = dict(config or {})
            kind = fields.pop("model_type", "llama")
            built = AutoConfig.for_model(kind, vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=1, eos_token_id=1, **fields)
            self.lm = AutoModelForCausalLM.from_config(built, attn_implementation="sdpa")
            if ordinal_integers:
                self._order_integers()
        elif pretrained:
            self.lm = AutoModelForCausalLM.from_pretrained(model, attn_implementation="sdpa")
        else:
            self.lm = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model), attn_implementation="sdpa")
        self.fit_vocabulary()

    @torch.no_grad()
    def _order_integers(self) -> None:
        """Start the embeddings of 0..255 on a smooth curve: near numbers are near, as in any pretrained language model."""
        weight = self.lm.get_input_embeddings().weight
        ids = [self.tokenizer.encode(f" {n}", add_special_tokens=False) for n in range(INTEGERS)]
        if any(len(i) != 1 for i in ids):
            return
        generator = torch.Generator().manual_seed(0)
        frequency = torch.randn(weight.shape[1], generator=generator) * 2 * torch.pi * _CURVE_TURNS
        phase = torch.rand(weight.shape[1], generator=generator) * 2 * torch.pi
        curve = (torch.linspace(0, 1, INTEGERS)[:, None] * frequency + phase).cos() * 2**0.5
        weight[torch.tensor(ids).flatten()] = curve * weight.std()

    def fit_vocabulary(self) -> None:
        """Grow the embedding to the tokenizer's length (new rows start at the mean)."""
        if len(self.tokenizer) > self.lm.get_input_embeddings().num_embeddings:
            self.lm.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)

    @property
    def width(self) -> int:
        """D."""
        return self.lm.get_input_embeddings().embedding_dim

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (B, S) to embeddings (B, S, D)."""
        return self.lm.get_input_embeddings()(ids)

    def forward(
        self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache | None = None
    ) -> torch.Tensor:
        """Embeddings (B, L, D), bool mask (B, 1, L, past + L) and positions (B, L) to hidden states (B, L, D)."""
        out = self.lm.base_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=cache is not None
        )
        return out.last_hidden_state

    def logits(self, hidden: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Hidden states (..., D) to logits over the vocabulary, or over the rows ``ids`` only."""
        head = self.lm.get_output_embeddings()
        if ids is None:
            return head(hidden)
        bias = None if head.bias is None else head.bias[ids]
        return nn.functional.linear(hidden, head.weight[ids], bias)

    def new_cache(self) -> DynamicCache:
        """An empty key-value cache."""
        return DynamicCache(config=self.lm.config)
