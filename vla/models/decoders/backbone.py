"""The forward pass of a causal language model without its output layer, with packed texts."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from vla.models.decoders.base import CrossAttentionInput
from vla.models.decoders.language import cache_argument, has_argument
from vla.models.decoders.masks import TextStructure, structured_attention
from vla.models.decoders.proof import Execution

_POSITION_TABLE = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings?)$")


def find_backbone(lm: Any) -> Any:
    """The part of ``lm`` from embeddings to hidden states."""
    backbone = lm.base_model if lm.base_model is not lm else lm.model
    if not has_argument(backbone, "inputs_embeds") and hasattr(backbone, "decoder"):
        return backbone.decoder  # the wrapper of an encoder-decoder family
    return backbone


def learned_positions(lm: Any) -> int | None:
    """Number of positions in the learned table of a model; None if it has no such table."""
    for name, module in lm.named_modules():
        if isinstance(module, nn.Embedding) and _POSITION_TABLE.search(name):
            stated = getattr(lm.config, "max_position_embeddings", None)
            return min(module.num_embeddings, stated or module.num_embeddings)
    return None


def run_backbone(
    lm: Any,
    embeds_BLD: torch.Tensor,
    structure: TextStructure,
    positions_BL: torch.Tensor,
    cache: Any,
    use_cache: bool,
    **cross_attention: CrossAttentionInput,
) -> tuple[torch.Tensor, Any]:
    """Hidden states (B, L, D) of embeddings, and the cache with these positions.

    Args:
        structure: of cached and new positions.
        cache: None for the first positions of a model that makes its own cache.
    """
    backbone = find_backbone(lm)
    name = cache_argument(backbone)
    arguments: dict[str, Any] = {"inputs_embeds": embeds_BLD, name: cache, "use_cache": use_cache}
    if has_argument(backbone, "position_ids"):
        arguments["position_ids"] = positions_BL
        # Without this mask, transformers takes a jump in the positions for the next text.
        arguments["attention_mask"] = torch.ones_like(structure.index_BT)
    with structured_attention(structure):
        out = backbone(**arguments, **cross_attention)
    return out.last_hidden_state, getattr(out, name, cache)


def new_cache(lm: Any, execution: Execution) -> Any:
    """An empty cache; None where the model makes its own."""
    if execution == "separate":
        return None
    cache = DynamicCache(config=lm.config)
    # Rows are padded: a cache of the last columns would lose tokens of short rows.
    cache.layers = [
        DynamicLayer() if type(layer) is DynamicSlidingWindowLayer else layer
        for layer in cache.layers
    ]
    return cache
