"""Several prompts behind one image in one sequence: K independent texts that share a prefix, told apart by the mask alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# All image tokens share position 0 and every text starts at 1: where a token lies in the picture is told by the encoder's 2-D code, and
# attention from text to picture then depends on content alone.
TEXT_START = 1


@dataclass
class Packed:
    """Texts laid out behind image prefixes of N tokens.

    ids_BS padded token ids; mask_B1LL bool, L = N + S, True where a query (row) may look at a key (column); positions_BL;
    rows_K and starts_K: where text k begins (column in 0..S-1).
    """

    ids_BS: torch.Tensor
    mask_B1LL: torch.Tensor
    positions_BL: torch.Tensor
    rows_K: torch.Tensor
    starts_K: torch.Tensor


def pack_texts(
    texts: list[list[int]], owner_K: torch.Tensor, rows: int, prefix: int, pad: int, sees_K: torch.Tensor | None = None
) -> Packed:
    """Lay text k behind the image of row ``owner_K[k]``.

    Image tokens see each other (both ways); a text sees its image (unless ``sees_K`` is False) and its own past, never another
    text. Positions start anew for every text, so packing changes nothing but speed.
    """
    device = owner_K.device
    fill = [0] * rows
    starts = []
    for tokens, row in zip(texts, owner_K.tolist(), strict=True):
        starts.append(fill[row])
        fill[row] += len(tokens)
    width = max(fill)
    ids = torch.full((rows, width), pad)
    segment = torch.full((rows, width), -1)
    offset = torch.zeros((rows, width), dtype=torch.long)
    blind = torch.zeros((rows, width), dtype=torch.bool)
    for k, (tokens, row, start) in enumerate(zip(texts, owner_K.tolist(), starts, strict=True)):
        end = start + len(tokens)
        ids[row, start:end] = torch.tensor(tokens)
        segment[row, start:end] = k
        offset[row, start:end] = torch.arange(len(tokens))
        if sees_K is not None and not sees_K[k]:
            blind[row, start:end] = True
    ids, segment, offset, blind = (v.to(device) for v in (ids, segment, offset, blind))
    length = prefix + width
    mask = torch.zeros((rows, 1, length, length), dtype=torch.bool, device=device)
    mask[:, :, :prefix, :prefix] = True
    mask[:, 0, prefix:, :prefix] = ((segment >= 0) & ~blind)[:, :, None]
    same = segment[:, :, None] == segment[:, None, :]
    causal = torch.ones((width, width), dtype=torch.bool, device=device).tril()
    mask[:, 0, prefix:, prefix:] = same & causal  # padding sees its own past: harmless, and no row is empty
    positions = torch.cat([torch.zeros((rows, prefix), dtype=torch.long, device=device), TEXT_START + offset], 1)
    return Packed(ids, mask, positions, owner_K, torch.tensor(starts, device=device))
