"""Next-token loss and greedy decoding behind an image prefix: what every token of this project goes through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from vla.decoders.packing import TEXT_START, pack_texts

PROMPT = "Q: {question} A:"
ACTION_QUESTION = "what action should the robot take to {instruction}?"  # RT-2, arXiv 2307.15818 section 3.2


def robot_prompt(instruction: str) -> str:
    """The paper's prompt for an instruction."""
    return PROMPT.format(question=ACTION_QUESTION.format(instruction=instruction))


@dataclass
class TextLoss:
    """Per target token, M of them in order of text: loss_M, whether the argmax is right_M, text_M (which text), hidden_MD."""

    loss_M: torch.Tensor
    right_M: torch.Tensor
    text_M: torch.Tensor
    hidden_MD: torch.Tensor


def text_loss(
    decoder: Any, prefix_BND: torch.Tensor, owner_K: torch.Tensor, prompts: list[list[int]], targets: list[list[int]],
    sees_K: torch.Tensor | None = None,
) -> TextLoss:  # fmt: skip
    """Cross-entropy of every target token given its image, its prompt and the targets before it (whole vocabulary)."""
    rows, prefix = prefix_BND.shape[:2]
    texts = [p + t for p, t in zip(prompts, targets, strict=True)]
    packed = pack_texts(texts, owner_K, rows, prefix, decoder.tokenizer.pad_token_id, sees_K)
    embeds = torch.cat([prefix_BND, decoder.embed(packed.ids_BS).to(prefix_BND.dtype)], 1)
    hidden = decoder(embeds, packed.mask_B1LL, packed.positions_BL)[:, prefix:]
    starts = packed.starts_K.tolist()
    columns = [s + len(p) - 1 + i for s, p, t in zip(starts, prompts, targets, strict=True) for i in range(len(t))]
    text_M = torch.repeat_interleave(torch.arange(len(texts)), torch.tensor([len(t) for t in targets])).to(owner_K.device)
    column_M = torch.tensor(columns, device=owner_K.device)
    hidden_MD = hidden[owner_K[text_M], column_M]
    target_M = packed.ids_BS[owner_K[text_M], column_M + 1]
    logits = decoder.logits(hidden_MD).float()
    return TextLoss(functional.cross_entropy(logits, target_M, reduction="none"), logits.argmax(-1) == target_M, text_M, hidden_MD)


@torch.no_grad()
def generate(
    decoder: Any,
    prefix_BND: torch.Tensor,
    prompts: list[list[int]],
    steps: int,
    legal: torch.Tensor | None = None,
    cached: bool = True,
    stop: int | None = None,
) -> torch.Tensor:
    """Greedy decoding of ``steps`` tokens behind one prompt a row.

    legal: the only ids allowed (robot prompts), or None for the whole vocabulary (web prompts; rows that have said <eos>, or ``stop``,
    go on with it). Returns (B, steps) ids.
    """
    rows, prefix = prefix_BND.shape[:2]
    device = prefix_BND.device
    owner = torch.arange(rows, device=device)
    pad = decoder.tokenizer.pad_token_id
    eos = decoder.tokenizer.eos_token_id if stop is None else stop
    packed = pack_texts(prompts, owner, rows, prefix, pad)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    embeds = torch.cat([prefix_BND, decoder.embed(packed.ids_BS).to(prefix_BND.dtype)], 1)
    cache = decoder.new_cache() if cached else None
    hidden = decoder(embeds, packed.mask_B1LL, packed.positions_BL, cache)
    last = hidden[owner, prefix + lengths - 1]
    keys = torch.ones((rows, embeds.shape[1]), dtype=torch.bool, device=device)
    keys[:, prefix:] = torch.arange(packed.ids_BS.shape[1], device=device) < lengths[:, None]
    out: list[torch.Tensor] = []
    mask, positions = packed.mask_B1LL, packed.positions_BL
    for step in range(steps):
        best = decoder.logits(last, legal).argmax(-1)
        token = legal[best] if legal is not None else best
        if legal is None and out:
            token = torch.where(out[-1] == eos, torch.full_like(token, eos), token)
        out.append(token)
        if step == steps - 1 or (legal is None and bool((token == eos).all())):
            break
        embed = decoder.embed(token[:, None]).to(prefix_BND.dtype)
        position = (TEXT_START + lengths + step)[:, None]
        keys = torch.cat([keys, torch.ones((rows, 1), dtype=torch.bool, device=device)], 1)
        if cache is not None:
            last = decoder(embed, keys[:, None, None, :], position, cache)[:, -1]
        else:
            embeds, positions = torch.cat([embeds, embed], 1), torch.cat([positions, position], 1)
            mask = torch.nn.functional.pad(mask, (0, 1, 0, 1))
            mask[:, 0, -1] = keys
            last = decoder(embeds, mask, positions)[:, -1]
    filled = out + [torch.full_like(out[-1], eos)] * (steps - len(out))
    return torch.stack(filled, 1)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids without special tokens."""
    return tokenizer.encode(text, add_special_tokens=False)
