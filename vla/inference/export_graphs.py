"""The parts of a policy as modules with tensors in and out, which ``torch.onnx`` can trace.

Rows of a batch have prompts of equal length, so no graph has padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import DynamicLayer

from vla.errors import ConfigError
from vla.models.decoders.backbone import new_cache, run_backbone
from vla.models.decoders.base import CrossAttentionInput
from vla.models.decoders.masks import TextStructure
from vla.models.heads.flow import FlowHead


@dataclass
class _OnlyStructure(TextStructure):
    """The structure of the only text model in a graph: every mask is one of its masks."""

    def fits(self, **options: Any) -> bool:
        """True."""
        return True


def text_structure(
    decoder: Any, rows: int, past: Any, new: Any, prefix: Any, queries: Any, device: torch.device
) -> TextStructure:
    """Attention of ``new`` positions after ``past`` ones, for rows without padding.

    Args:
        prefix: number of first positions that are image tokens.
        queries: number of last positions that attend to each other in both directions.
    """
    key = torch.arange(past + new, device=device)
    query = key[past:]
    both = (query[:, None] < prefix) & (key < prefix)
    if decoder.image_attention == "causal":
        both = torch.zeros_like(both)
    first = past + new - queries
    both = both | ((query[:, None] >= first) & (key >= first))
    visible = torch.ones_like(both).expand(rows, -1, -1)
    return _OnlyStructure(key.expand(rows, -1), visible, both.expand(rows, -1, -1))


class PrefixGraph(nn.Module):
    """Images and state to the embeddings before the text, and to the tokens of cross-attention."""

    def __init__(self, policy: Any, robot: str) -> None:
        super().__init__()
        self.policy, self.robot = policy, robot

    def forward(
        self, images_BVTCHW: torch.Tensor, state_BTP: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """(prefix_BND,) or (prefix_BND, cross_BMD)."""
        prefix = self.policy.prefix(images_BVTCHW, self.robot, state_BTP)
        before, _ = self.policy.decoder._embed_prefix(prefix)
        crossed = prefix.cross_attention_BND
        return (before,) if crossed is None else (before, crossed)


class TextGraph(nn.Module):
    """Prefill and decode step: the same graph, in the first case with an empty cache."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        prefix_BND: torch.Tensor,
        ids_BS: torch.Tensor,
        positions_BL: torch.Tensor,
        past: list[torch.Tensor],
        cross_BMD: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Hidden states (B, S, D) of the ids, then keys and values of all positions by layer.

        Args:
            past: keys and values (B, heads, P, d) of every layer in turn.
        """
        decoder = self.decoder
        embeds = torch.cat([prefix_BND, decoder.embed(ids_BS).to(prefix_BND.dtype)], 1)
        count, before = prefix_BND.shape[1], past[0].shape[2]
        structure = text_structure(
            decoder, embeds.shape[0], before, embeds.shape[1], count, 0, embeds.device
        )
        cache = filled_cache(decoder.lm, past)
        attend = torch.ones_like(positions_BL, dtype=torch.bool)
        crossed = CrossAttentionInput.keywords(cross_BMD, attend)
        hidden, cache = run_backbone(
            decoder.lm, embeds, structure, positions_BL, cache, True, **crossed
        )
        present = [t for layer in cache.layers for t in (layer.keys, layer.values)]
        return hidden[:, count:], *present


def filled_cache(lm: Any, past: list[torch.Tensor]) -> Any:
    """A cache with these keys and values."""
    cache = new_cache(lm, "packed")
    while len(cache.layers) * 2 < len(past):  # some families add layers while they run
        cache.layers.append(DynamicLayer())
    for layer, keys, values in zip(cache.layers, past[::2], past[1::2], strict=True):
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
    return cache


def example_cache(
    decoder: Any, prefix_BND: torch.Tensor, cross_BMD: torch.Tensor | None
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Keys and values of every layer in turn after a prefix, and hidden states (B, D).

    Raises:
        ConfigError: the model's cache has other state than keys and values.
    """
    rows, count = prefix_BND.shape[:2]
    structure = text_structure(decoder, rows, 0, count, count, 0, prefix_BND.device)
    positions = torch.zeros(rows, count, dtype=torch.long)
    attend = torch.ones_like(positions, dtype=torch.bool)
    crossed = CrossAttentionInput.keywords(cross_BMD, attend)
    cache = new_cache(decoder.lm, "packed")
    hidden, cache = run_backbone(
        decoder.lm, prefix_BND, structure, positions, cache, True, **crossed
    )
    layers = getattr(cache, "layers", [])
    other = [type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer]
    if other or not layers:
        raise ConfigError(
            f"export: the decoder {decoder.lm.config.model_type} keeps state other than keys and "
            f"values ({', '.join(sorted(set(other))) or 'no layers'}); "
            "serve the saved policy with vla serve"
        )
    return [t for layer in layers for t in (layer.keys, layer.values)], hidden[:, -1]


class LogitsGraph(nn.Module):
    """Hidden states (M, D) to logits (M, V) of all tokens, or of some ids."""

    def __init__(self, decoder: Any, ids: list[int] | None = None) -> None:
        super().__init__()
        self.decoder = decoder
        self.ids = None if ids is None else torch.tensor(ids)

    def forward(self, hidden_MD: torch.Tensor) -> tuple[torch.Tensor]:
        """(logits,)."""
        ids = None if self.ids is None else self.ids.to(hidden_MD.device)
        return (self.decoder.logits(hidden_MD, ids).float(),)


class ActionGraph(nn.Module):
    """Prompt ids after the prefix to a chunk of normalised actions, in one pass.

    ``positions`` are those of the prefix. ``first`` is the position of the first id.
    """

    def __init__(self, decoder: Any, head: Any, positions: list[int], first: int) -> None:
        super().__init__()
        self.decoder, self.head, self.first = decoder, head, first
        self.positions = torch.tensor(positions, dtype=torch.long)

    def forward(
        self,
        prefix_BND: torch.Tensor,
        ids_BS: torch.Tensor,
        start_BHA: torch.Tensor | None = None,
        cross_BMD: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor]:
        """(actions (B, H, A) in [-1, 1],); ``start_BHA`` is the noise of a flow head."""
        decoder = self.decoder
        rows, count = prefix_BND.shape[:2]
        query_HD = self.head.queries.query_HD
        queries = query_HD.expand(rows, -1, -1).to(prefix_BND.dtype)
        text = decoder.embed(ids_BS).to(prefix_BND.dtype)
        embeds = torch.cat([prefix_BND, text, queries], 1)
        structure = text_structure(
            decoder,
            rows,
            0,
            embeds.shape[1],
            count,
            len(query_HD) if self.head.queries.parallel else 0,
            embeds.device,
        )
        after = torch.arange(ids_BS.shape[1] + len(query_HD), device=embeds.device) + self.first
        positions = torch.cat([self.positions.to(embeds.device), after]).expand(rows, -1)
        attend = torch.ones_like(positions, dtype=torch.bool)
        crossed = CrossAttentionInput.keywords(cross_BMD, attend)
        hidden, _ = run_backbone(decoder.lm, embeds, structure, positions, None, False, **crossed)
        states = self.head.norm(hidden[:, -len(query_HD) :].float())
        if isinstance(self.head, FlowHead):
            return (self.head.actions_from_states(states, start_BHA),)
        return (self.head.actions_from_states(states),)


class PolicyGraph(nn.Module):
    """Images, state and prompt ids to a chunk of normalised actions."""

    def __init__(self, prefix: PrefixGraph, action: ActionGraph) -> None:
        super().__init__()
        self.prefix, self.action = prefix, action

    def forward(
        self,
        images_BVTCHW: torch.Tensor,
        ids_BS: torch.Tensor,
        state_BTP: torch.Tensor | None = None,
        start_BHA: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor]:
        """(actions (B, H, A) in [-1, 1],)."""
        found = self.prefix(images_BVTCHW, state_BTP)
        return self.action(found[0], ids_BS, start_BHA, *found[1:])
