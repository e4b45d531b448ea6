"""A model's own forward pass with embeddings in place of tokens, up to its output layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache

from vla.models.decoders.masks import both_directions
from vla.models.decoders.trainable_embeddings import TrainableEmbeddings


@dataclass
class Pass:
    """Result of one forward pass.

    hidden_KLD: hidden states before the output layer.
    output: what the model returns; its logits are those of the last position only.
    positions: positions (K, L) or (axes, K, L) that the model gave its tokens; None if it gave
        none to its language model.
    """

    hidden_KLD: torch.Tensor
    output: Any
    positions: torch.Tensor | None


def new_cache(lm: Any) -> Any:
    """An empty key-value cache of the stack that writes."""
    cache = DynamicCache(config=lm.config)
    if not lm.config.is_encoder_decoder:
        return cache
    # Cross-attention has no sliding window, although layers of T5Gemma may have one.
    return EncoderDecoderCache(cache, DynamicCache())


def drop_last_columns(cache: Any, count: int) -> None:
    """Remove the last ``count`` tokens from the key-value cache of the stack that writes."""
    if count:
        getattr(cache, "self_attention_cache", cache).crop(-count)


def next_positions(seen: torch.Tensor | None, shape: torch.Size, last_K: torch.Tensor) -> Any:
    """Positions (K, 1) or (axes, K, 1) of the tokens after column ``last_K``.

    Args:
        seen: ``Pass.positions``.
        shape: (K, L).
        last_K: the last column of each text.
    """
    columns = torch.arange(shape[1], device=last_K.device)[None]
    positions = columns if seen is None else seen
    positions = positions.expand(*positions.shape[:-2], *shape)
    return positions[..., torch.arange(shape[0]), last_K][..., None] + 1


def own_forward(
    lm: Any,
    arguments: dict[str, Any],
    ids_KL: torch.Tensor,
    trainable: TrainableEmbeddings | None,
    values_KND: torch.Tensor | None = None,
    columns_KN: torch.Tensor | None = None,
    parallel_KL: torch.Tensor | None = None,
) -> Pass:
    """One pass of the whole model, which creates its masks and positions itself.

    Args:
        lm: the model.
        arguments: of its forward pass.
        ids_KL: token ids of the stack that writes.
        trainable: embeddings that replace those of some token ids.
        values_KND: embeddings in place of the tokens in ``columns_KN``.
        columns_KN: columns of ``ids_KL``.
        parallel_KL: bool, positions that attend to each other in both directions.

    Raises:
        ValueError: the model does not use its output layer.
    """
    hidden: list[torch.Tensor] = []
    positions: list[torch.Tensor | None] = []

    def embed(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        ids = args[0]
        found = output if trainable is None else trainable.embed(ids, output)
        written = not lm.config.is_encoder_decoder or torch.equal(ids, ids_KL)
        if values_KND is None or columns_KN is None or ids.shape != ids_KL.shape or not written:
            return found
        row_KN = torch.arange(len(ids), device=ids.device)[:, None].expand_as(columns_KN)
        return found.index_put((row_KN, columns_KN), values_KND.to(found.dtype))

    def see_positions(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        positions.append(kwargs.get("position_ids"))

    def see_hidden(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden.append(args[0])
        return (args[0][:, -1:], *args[1:])

    embeddings = {id(m): m for m in (lm.get_input_embeddings(), writing_embedding(lm))}
    handles = [m.register_forward_hook(embed) for m in embeddings.values()]
    handles.append(lm.get_decoder().register_forward_pre_hook(see_positions, with_kwargs=True))
    handles.append(lm.get_output_embeddings().register_forward_pre_hook(see_hidden))
    try:
        with both_directions(parallel_KL):
            out = lm(**arguments)
    finally:
        for handle in handles:
            handle.remove()
    if len(hidden) != 1 or hidden[0].shape[:2] != ids_KL.shape:
        raise ValueError(f"{type(lm).__name__} has no hidden state before its output layer")
    return Pass(hidden[0], out, positions[0] if positions else None)


def writing_embedding(lm: Any) -> Any:
    """The module that embeds the tokens of the stack that writes."""
    stack = lm
    if lm.config.is_encoder_decoder:
        stack, outer = lm.get_decoder(), lm
        while stack is not outer and hasattr(stack, "get_decoder"):  # Florence-2 wraps BART
            stack, outer = stack.get_decoder(), stack
    return stack.get_input_embeddings()


def start_token(lm: Any, tokenizer: Any) -> int | None:
    """First token of the decoder of an encoder-decoder model; None for one stack."""
    if not lm.config.is_encoder_decoder:
        return None
    inner = getattr(lm.config, "text_config", None)
    places = (lm.config, inner, lm.generation_config)
    found = [getattr(place, "decoder_start_token_id", None) for place in places]
    found.append(getattr(getattr(lm.config, "decoder", None), "bos_token_id", None))  # T5Gemma
    return next((i for i in found if i is not None), tokenizer.pad_token_id)
