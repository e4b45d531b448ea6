"""Any Hugging Face causal language model as the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from transformers import DynamicCache

from vla.config import register
from vla.models.decoders.base import (
    CrossAttentionInput,
    DecodingState,
    Prefix,
    hidden_state_index,
    is_query_state,
    pad_targets,
)
from vla.models.decoders.language import LanguageModel, attention_mask, cache_arguments
from vla.models.decoders.packing import pack_texts
from vla.models.decoders.text import encode
from vla.models.lora import LoraConfig


@register("decoder", "causal")
class CausalDecoder(LanguageModel):
    """``AutoModelForCausalLM`` on embeddings; several texts share their image in one sequence.

    Raises:
        ValueError: neither model nor config is given, or ``quantize`` is set without ``lora``.
    """

    # Options of a small instance, for vla.testing.
    example: ClassVar[dict[str, Any]] = {
        "vocab_size": 800,
        "config": {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2},
    }

    def __init__(
        self,
        # Folder, package:NAME/PATH or hub name of pretrained weights and tokenizer; null: random
        # weights.
        model: str | None = None,
        # Architecture: model_type and the fields of its configuration class. Required if model is
        # null; otherwise used where weights are not loaded (tests, vla zoo).
        config: dict[str, Any] | None = None,
        vocab_size: int = 2048,  # of the BPE tokenizer trained on the data if model is null
        ordinal_integers: bool = True,  # initialise random embeddings of integers on a curve
        # shared: all image tokens have one position (the vision encoder adds 2-D positions);
        # each: consecutive positions, as pretrained language models expect.
        image_positions: Literal["shared", "each"] = "shared",
        # full: image tokens attend to each other; causal: only to earlier ones.
        image_attention: Literal["full", "causal"] = "full",
        frozen: bool = False,  # do not train the language model
        lora: LoraConfig | None = None,  # train low-rank adapters instead of the weights
        checkpointing: bool = False,  # recompute activations in training: less memory, slower
        # 4bit: keep the model's weights in 4 bits (QLoRA; needs model and lora). Saved policies
        # contain them in full precision.
        quantize: Literal["4bit"] | None = None,
        *,
        tokenizer: Any = None,
        pretrained: bool = True,
    ) -> None:
        super().__init__(
            "causal",
            model,
            config,
            tokenizer,
            pretrained,
            frozen,
            lora,
            checkpointing,
            quantize,
            ordinal_integers,
        )
        self.image_positions, self.image_attention = image_positions, image_attention
        # Pretrained models expect this token first.
        self.bos = tokenizer.bos_token_id if model is not None else None

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer blocks, in order."""
        lists = [m for m in self.lm.base_model.modules() if isinstance(m, nn.ModuleList)]
        return max(lists, key=len)

    def forward(
        self,
        embeds_BLD: torch.Tensor,
        mask_B1LL: torch.Tensor,
        positions_BL: torch.Tensor,
        cache: DynamicCache | None = None,
        **cross_attention: CrossAttentionInput,
    ) -> torch.Tensor:
        """Embeddings to hidden states (B, L, D); the bool mask is (B, 1, L, past + L)."""
        out = self.lm.base_model(
            inputs_embeds=embeds_BLD,
            attention_mask=attention_mask(self.lm, mask_B1LL),
            position_ids=positions_BL,
            **cache_arguments(self.lm.base_model, cache),
            **cross_attention,
        )
        return out.last_hidden_state

    def _embed_prefix(self, prefix: Prefix) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (B, N, D) before the texts, and their positions (N,)."""
        tokens = prefix.tokens_BND
        count = tokens.shape[1]
        if self.image_positions == "each":
            positions = torch.arange(count)
        else:
            positions = torch.zeros(count, dtype=torch.long)
        if self.bos is None:
            return tokens, positions
        bos = self.embed(torch.full((len(tokens), 1), self.bos, device=tokens.device))
        first = torch.zeros(1, dtype=torch.long)
        return torch.cat([bos.to(tokens.dtype), tokens], 1), torch.cat([first, positions + 1])

    def encode_texts(
        self,
        prefix: Prefix,
        image_index_K: torch.Tensor,
        prompts: Sequence[str],
        target_ids: Sequence[Sequence[int]],
        attend_image_K: torch.Tensor | None = None,
        queries_KQD: torch.Tensor | None = None,
        parallel: bool = False,
    ) -> torch.Tensor:
        """See ``Decoder.encode_texts``: K texts in B sequences."""
        before, positions = self._embed_prefix(prefix)
        prompt_ids = [encode(self.tokenizer, p) for p in prompts]
        items = pad_targets(target_ids, queries_KQD, self.tokenizer.pad_token_id)
        lengths = [len(p) for p in prompt_ids]
        queries_from = [n + len(t) for n, t in zip(lengths, target_ids, strict=True)]
        packed = pack_texts(
            [p + i for p, i in zip(prompt_ids, items, strict=True)],
            image_index_K,
            prefix.batch_size,
            positions,
            self.tokenizer.pad_token_id,
            attend_image_K,
            queries_from if parallel else None,
            self.image_attention == "causal",
        )
        embeds = self.embed(packed.ids_BS).to(before.dtype)
        text_M, item_M = hidden_state_index([len(i) for i in items], image_index_K.device)
        row_M = image_index_K[text_M]
        targets_from_K = packed.starts_K + torch.tensor(lengths, device=image_index_K.device)
        column_M = targets_from_K[text_M] - 1 + item_M
        if queries_KQD is not None:
            at_query = is_query_state(target_ids, text_M, item_M)
            embeds = embeds.index_put(
                (row_M[at_query], column_M[at_query]), queries_KQD.flatten(0, 1).to(embeds.dtype)
            )
        hidden = self(
            torch.cat([before, embeds], 1),
            packed.mask_B1LL,
            packed.positions_BL,
            **CrossAttentionInput.keywords(prefix.cross_attention_BND, packed.attend_image_BL),
        )
        return hidden[:, before.shape[1] :][row_M, column_M]

    def prefill(self, prefix: Prefix, prompts: Sequence[str]) -> tuple[DecodingState, torch.Tensor]:
        """See ``Decoder.prefill``."""
        before, positions = self._embed_prefix(prefix)
        device, n = before.device, before.shape[1]
        rows = torch.arange(prefix.batch_size, device=device)
        texts = [encode(self.tokenizer, p) for p in prompts]
        packed = pack_texts(
            texts,
            rows,
            prefix.batch_size,
            positions,
            self.tokenizer.pad_token_id,
            causal_prefix=self.image_attention == "causal",
        )
        embeds = torch.cat([before, self.embed(packed.ids_BS).to(before.dtype)], 1)
        cache = DynamicCache(config=self.lm.config)
        hidden = self(
            embeds,
            packed.mask_B1LL,
            packed.positions_BL,
            cache,
            **CrossAttentionInput.keywords(prefix.cross_attention_BND, packed.attend_image_BL),
        )
        of_prefix = torch.ones((prefix.batch_size, n), dtype=torch.bool, device=device)
        # Without attend_image_K, True marks all positions that are not padding.
        key_mask = torch.cat([of_prefix, packed.attend_image_BL[:, n:]], 1)
        last = n + torch.tensor([len(t) for t in texts], device=device) - 1
        state = DecodingState(cache, key_mask, packed.positions_BL[rows, last] + 1, prefix)
        return state, hidden[rows, last]

    def decode_step(self, state: DecodingState, ids_B: torch.Tensor) -> torch.Tensor:
        """See ``Decoder.decode_step``."""
        one = torch.ones((len(ids_B), 1), dtype=torch.bool, device=ids_B.device)
        state.key_mask_BL = torch.cat([state.key_mask_BL, one], 1)
        hidden = self(
            self.embed(ids_B[:, None]).to(state.prefix.tokens_BND.dtype),
            state.key_mask_BL[:, None, None, :],
            state.next_position_B[:, None],
            state.cache,
            **CrossAttentionInput.keywords(state.prefix.cross_attention_BND, one),
        )
        state.next_position_B = state.next_position_B + 1
        return hidden[:, -1]
