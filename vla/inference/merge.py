"""``vla merge``: a saved policy whose adapters are part of its weights."""

from __future__ import annotations

from typing import Any

import torch

from vla.models.decoders.own_forward import writing_embedding
from vla.models.lora import merge_adapters


def merge_policy(policy: Any, config: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Merge all adapters of a policy in place; its new configuration, and the number of layers.

    Separate embeddings of action tokens, which training with adapters has, become rows of the
    language model's embeddings. The merged policy can be trained as any other.

    Args:
        config: the section ``policy:``.

    Raises:
        ValueError: see ``merge_adapters``.
    """
    count, decoder = merge_adapters(policy), getattr(policy, "decoder", None)
    if decoder is not None:
        if not decoder.frozen:
            fold_embeddings(decoder)
        decoder.lora = None
    return without_adapters(config), count


@torch.no_grad()
def fold_embeddings(decoder: Any) -> None:
    """Copy separate embeddings of action tokens into the language model, and remove them."""
    rows, lm = decoder.trainable_embeddings, decoder.lm
    if rows is not None:
        target = lm.get_output_embeddings()
        for source in (lm.get_input_embeddings(), writing_embedding(lm)):
            source.weight[rows.ids] = rows.input_embeddings.to(source.weight.dtype)
        target.weight[rows.ids] = rows.output_embeddings.to(target.weight.dtype)
        decoder.trainable_embeddings = None


def without_adapters(config: Any) -> Any:
    """A configuration without ``lora`` at any depth."""
    if isinstance(config, dict):
        return {k: None if k == "lora" else without_adapters(v) for k, v in config.items()}
    return [without_adapters(v) for v in config] if isinstance(config, list) else config
