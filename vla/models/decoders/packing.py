"""Packing of several independent texts about one image into one sequence, separated by the mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Packed:
    """Texts after image prefixes of N tokens; L = N + S.

    ids_BS: padded token ids.
    mask_B1LL: bool, True where a position (row) may attend to another (column).
    positions_BL: position ids.
    starts_K: column in 0..S-1 at which text k begins.
    attend_image_BL: bool, True for positions that may attend to the image.
    """

    ids_BS: torch.Tensor
    mask_B1LL: torch.Tensor
    positions_BL: torch.Tensor
    starts_K: torch.Tensor
    attend_image_BL: torch.Tensor


def pack_texts(
    texts: list[list[int]],
    image_index_K: torch.Tensor,
    batch_size: int,
    prefix_positions_N: torch.Tensor,
    pad: int,
    attend_image_K: torch.Tensor | None = None,
    parallel_from: list[int] | None = None,
    causal_prefix: bool = False,
) -> Packed:
    """Append text k to the sequence of image ``image_index_K[k]``.

    A text attends to its image (unless ``attend_image_K`` is False) and to its own past, never to
    another text. Positions restart for every text, so packing changes nothing but speed.

    Args:
        prefix_positions_N: positions of the prefix; texts continue after the last one.
        parallel_from: token of text k from which on tokens attend to each other in both directions.
        causal_prefix: image tokens attend only to earlier ones.
    """
    device = image_index_K.device
    prefix = len(prefix_positions_N)
    fill = [0] * batch_size
    starts = []
    for tokens, row in zip(texts, image_index_K.tolist(), strict=True):
        starts.append(fill[row])
        fill[row] += len(tokens)
    width = max(fill)
    ids = torch.full((batch_size, width), pad)
    text = torch.full((batch_size, width), -1)  # index of the text, -1 for padding
    offset = torch.zeros((batch_size, width), dtype=torch.long)  # position within the text
    attend_image = torch.zeros((batch_size, width), dtype=torch.bool)
    parallel = torch.zeros((batch_size, width), dtype=torch.bool)
    for k, (tokens, row, start) in enumerate(
        zip(texts, image_index_K.tolist(), starts, strict=True)
    ):
        end = start + len(tokens)
        ids[row, start:end] = torch.tensor(tokens)
        text[row, start:end] = k
        offset[row, start:end] = torch.arange(len(tokens))
        attend_image[row, start:end] = attend_image_K is None or bool(attend_image_K[k])
        if parallel_from is not None:
            parallel[row, start + parallel_from[k] : end] = True
    ids, text, offset, attend_image, parallel = (
        v.to(device) for v in (ids, text, offset, attend_image, parallel)
    )
    length = prefix + width
    mask = torch.zeros((batch_size, 1, length, length), dtype=torch.bool, device=device)
    square = torch.ones((prefix, prefix), dtype=torch.bool, device=device)
    mask[:, :, :prefix, :prefix] = square.tril() if causal_prefix else square
    mask[:, 0, prefix:, :prefix] = attend_image[:, :, None]
    same_text = text[:, :, None] == text[:, None, :]
    past = torch.ones((width, width), dtype=torch.bool, device=device).tril()
    # Padding attends to its own past, so that no row of the mask is empty.
    mask[:, 0, prefix:, prefix:] = same_text & (past | (parallel[:, :, None] & parallel[:, None]))
    first = int(prefix_positions_N[-1]) + 1 if prefix else 0
    positions = torch.cat([prefix_positions_N.to(device).expand(batch_size, -1), first + offset], 1)
    of_prefix = torch.ones((batch_size, prefix), dtype=torch.bool, device=device)
    attend_image_BL = torch.cat([of_prefix, attend_image], 1)
    return Packed(ids, mask, positions, torch.tensor(starts, device=device), attend_image_BL)
