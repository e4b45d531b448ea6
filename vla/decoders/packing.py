"""Several texts behind one image in one sequence: K independent texts that share a prefix, told apart by the mask alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Packed:
    """Texts laid out behind image prefixes of N tokens.

    ids_BS padded token ids; mask_B1LL bool, L = N + S, True where a query (row) may look at a key (column); positions_BL; starts_K: column
    in 0..S-1 where text k begins; sees_BL bool: which columns may look at the picture.
    """

    ids_BS: torch.Tensor
    mask_B1LL: torch.Tensor
    positions_BL: torch.Tensor
    starts_K: torch.Tensor
    sees_BL: torch.Tensor


def pack_texts(
    texts: list[list[int]], owner_K: torch.Tensor, rows: int, prefix_positions: torch.Tensor, pad: int, sees_K: torch.Tensor | None = None,
    parallel_from: list[int] | None = None, causal_prefix: bool = False,
) -> Packed:  # fmt: skip
    """Lay text k behind the image of row ``owner_K[k]``.

    A text sees its image (unless ``sees_K`` is False) and its own past, never another text; from token ``parallel_from[k]`` on it also
    sees its own future. Positions start anew for every text, so packing changes nothing but speed.

    prefix_positions: (N,) of the prefix; texts begin one behind the last. causal_prefix: image tokens see only those before them.
    """
    device = owner_K.device
    prefix = len(prefix_positions)
    fill = [0] * rows
    starts = []
    for tokens, row in zip(texts, owner_K.tolist(), strict=True):
        starts.append(fill[row])
        fill[row] += len(tokens)
    width = max(fill)
    ids = torch.full((rows, width), pad)
    segment = torch.full((rows, width), -1)
    offset = torch.zeros((rows, width), dtype=torch.long)
    sees = torch.zeros((rows, width), dtype=torch.bool)
    side_by_side = torch.zeros((rows, width), dtype=torch.bool)
    for k, (tokens, row, start) in enumerate(zip(texts, owner_K.tolist(), starts, strict=True)):
        end = start + len(tokens)
        ids[row, start:end] = torch.tensor(tokens)
        segment[row, start:end] = k
        offset[row, start:end] = torch.arange(len(tokens))
        sees[row, start:end] = sees_K is None or bool(sees_K[k])
        if parallel_from is not None:
            side_by_side[row, start + parallel_from[k] : end] = True
    ids, segment, offset, sees, side_by_side = (v.to(device) for v in (ids, segment, offset, sees, side_by_side))
    length = prefix + width
    mask = torch.zeros((rows, 1, length, length), dtype=torch.bool, device=device)
    square = torch.ones((prefix, prefix), dtype=torch.bool, device=device)
    mask[:, :, :prefix, :prefix] = square.tril() if causal_prefix else square
    mask[:, 0, prefix:, :prefix] = sees[:, :, None]
    same = segment[:, :, None] == segment[:, None, :]
    before = torch.ones((width, width), dtype=torch.bool, device=device).tril()
    # padding sees its own past: harmless, and no row is empty
    mask[:, 0, prefix:, prefix:] = same & (before | (side_by_side[:, :, None] & side_by_side[:, None, :]))
    first = int(prefix_positions[-1]) + 1 if prefix else 0
    positions = torch.cat([prefix_positions.to(device).expand(rows, -1), first + offset], 1)
    shown = torch.cat([torch.ones((rows, prefix), dtype=torch.bool, device=device), sees], 1)
    return Packed(ids, mask, positions, torch.tensor(starts, device=device), shown)
