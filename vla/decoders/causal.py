"""Any Hugging Face causal language model as the decoder: random from a configuration, or pretrained from a local folder or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from transformers import DynamicCache

from vla.config import register
from vla.decoders.base import Decoding, Prefix, behind_ids, states_of, tail_ids
from vla.decoders.language import LanguageModel, attention_mask, with_cache
from vla.decoders.packing import pack_texts
from vla.decoders.text import encode
from vla.tuning import LoraConfig


@register("decoder", "causal")
class CausalDecoder(LanguageModel):
    """``AutoModelForCausalLM`` fed with embeddings; several texts share their image in one sequence.

    Args:
        model: local folder, ``package:`` path or hub name of pretrained weights and tokenizer, or None for random weights.
        config: architecture: ``model_type`` and any field of that type's configuration class; required when ``model`` is None, and beside a
        ``model`` it is what is built where the weights are not to be loaded (tests, ``vla zoo``).
        vocab_size: of the BPE tokenizer trained on the data when ``model`` is None.
        ordinal_integers: start random embeddings of the integers on a smooth curve.
        image_positions: ``shared``: all image tokens at one position (where they lie in the picture is told by the encoder's 2-D code), or
        ``each``: one after another, as pretrained models have seen texts.
        image_attention: image tokens see each other both ways (``full``), or only backwards (``causal``).
        frozen, lora: what is trained, see ``vla.tuning``. checkpointing: trade time for memory in training. quantize: hold the model's own weights in 4 bits (with
        ``lora``: QLoRA); saved policies have them in full again.
        tokenizer: (wired) the tokenizer; the embedding is made to fit it.
    """

    whole = False  # no eyes of its own

    def __init__(
        self, model: str | None = None, config: dict[str, Any] | None = None, vocab_size: int = 2048, ordinal_integers: bool = True,
        image_positions: Literal["shared", "each"] = "shared", image_attention: Literal["full", "causal"] = "full", frozen: bool = False,
        lora: LoraConfig | None = None, checkpointing: bool = False,
        quantize: Literal["4bit"] | None = None, *, tokenizer: Any = None, pretrained: bool = True,
    ) -> None:  # fmt: skip
        super().__init__("causal", model, config, tokenizer, pretrained, frozen, lora, checkpointing, quantize, ordinal_integers)
        self.image_positions, self.image_attention = image_positions, image_attention
        self.bos = tokenizer.bos_token_id if model is not None else None  # pretrained models expect it first

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer's blocks, in order."""
        lists = [m for m in self.lm.base_model.modules() if isinstance(m, nn.ModuleList)]
        return max(lists, key=len)

    def forward(
        self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache | None = None
    ) -> torch.Tensor:
        """Embeddings (B, L, D), bool mask (B, 1, L, past + L) and positions (B, L) to hidden states (B, L, D)."""
        out = self.lm.base_model(
            inputs_embeds=embeds, attention_mask=attention_mask(self.lm, mask), position_ids=positions,
            **with_cache(self.lm.base_model, cache),
        )  # fmt: skip
        return out.last_hidden_state

    def _prefix(self, prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, N, D) what stands before the texts, and its positions (N,)."""
        tokens = prefix.tokens_BND
        count = tokens.shape[1]
        each = torch.arange(count) if self.image_positions == "each" else torch.zeros(count, dtype=torch.long)
        if self.bos is None:
            return tokens, each
        bos = self.embed(torch.full((len(tokens), 1), self.bos, device=tokens.device)).to(tokens.dtype)
        return torch.cat([bos, tokens], 1), torch.cat([torch.zeros(1, dtype=torch.long), each + 1])

    def read(
        self, prefix: Prefix, owner_K: torch.Tensor, prompts: Sequence[str], tails: Sequence[Sequence[int]], sees_K: torch.Tensor | None = None,
        queries_KQD: torch.Tensor | None = None, parallel: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """See ``Decoder.read``: all K texts in B sequences."""
        before, positions = self._prefix(prefix)
        heads = [encode(self.tokenizer, p) for p in prompts]
        ids = tail_ids(tails, queries_KQD, self.tokenizer.pad_token_id)
        starts_in = [len(h) for h in heads]
        packed = pack_texts(
            [h + t for h, t in zip(heads, ids, strict=True)], owner_K, prefix.rows, positions, self.tokenizer.pad_token_id, sees_K,
            [n + len(t) for n, t in zip(starts_in, tails, strict=True)] if parallel else None, self.image_attention == "causal",
        )  # fmt: skip
        embeds = self.embed(packed.ids_BS).to(before.dtype)
        text_M, item_M = states_of([len(t) for t in ids], owner_K.device)
        row_M = owner_K[text_M]
        column_M = packed.starts_K[text_M] + torch.tensor(starts_in, device=owner_K.device)[text_M] - 1 + item_M
        if queries_KQD is not None:
            inside = behind_ids(tails, text_M, item_M)
            embeds = embeds.index_put((row_M[inside], column_M[inside]), queries_KQD.flatten(0, 1).to(embeds.dtype))
        with self.looking(prefix.memory_BMD, packed.sees_BL):
            hidden = self(torch.cat([before, embeds], 1), packed.mask_B1LL, packed.positions_BL)
        return hidden[:, before.shape[1] :][row_M, column_M]

    def start(self, prefix: Prefix, prompts: Sequence[str]) -> tuple[Decoding, torch.Tensor]:
        """See ``Decoder.start``."""
        before, positions = self._prefix(prefix)
        device, n = before.device, before.shape[1]
        owner = torch.arange(prefix.rows, device=device)
        texts = [encode(self.tokenizer, p) for p in prompts]
        causal = self.image_attention == "causal"
        packed = pack_texts(texts, owner, prefix.rows, positions, self.tokenizer.pad_token_id, causal_prefix=causal)
        embeds = torch.cat([before, self.embed(packed.ids_BS).to(before.dtype)], 1)
        cache = DynamicCache(config=self.lm.config)
        with self.looking(prefix.memory_BMD, packed.sees_BL):
            hidden = self(embeds, packed.mask_B1LL, packed.positions_BL, cache)
        lengths = torch.tensor([len(t) for t in texts], device=device)
        keys = torch.cat([torch.ones((prefix.rows, n), dtype=torch.bool, device=device), packed.sees_BL[:, n:]], 1)
        last = n + lengths - 1
        return Decoding(cache, keys, packed.positions_BL[owner, last] + 1, prefix), hidden[owner, last]

    def step(self, state: Decoding, ids_B: torch.Tensor) -> torch.Tensor:
        """See ``Decoder.step``."""
        one = torch.ones((len(ids_B), 1), dtype=torch.bool, device=ids_B.device)
        state.keys_BL = torch.cat([state.keys_BL, one], 1)
        embeds = self.embed(ids_B[:, None]).to(state.prefix.tokens_BND.dtype)
        with self.looking(state.prefix.memory_BMD, one):
            hidden = self(embeds, state.keys_BL[:, None, None, :], state.next_B[:, None], state.cache)
        state.next_B = state.next_B + 1
        return hidden[:, -1]
