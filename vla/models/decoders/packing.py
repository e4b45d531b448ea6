"""Packing of several independent texts about one image into one sequence, separated by masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vla.models.decoders.masks import TextStructure


@dataclass
class Packed:
    """Texts after image prefixes of N tokens; L = N + S.

    ids_BS: padded token ids.
    structure: which positions belong together.
    positions_BL: position ids.
    starts_K: column in 0..S-1 at which text k begins.
    attend_image_BL: bool, True for positions that may attend to the image.
    """

    ids_BS: torch.Tensor
    structure: TextStructure
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
    sizes = torch.tensor([len(tokens) for tokens in texts], dtype=torch.long)
    text_M = torch.repeat_interleave(torch.arange(len(texts)), sizes)
    offset_M = torch.arange(len(text_M)) - (sizes.cumsum(0) - sizes)[text_M]
    column_M = torch.tensor(starts, dtype=torch.long)[text_M] + offset_M
    at = image_index_K.cpu()[text_M], column_M

    def placed(values_M: torch.Tensor, empty: int = 0) -> torch.Tensor:
        """The value of each token at its place in (B, S)."""
        return values_M.new_full((batch_size, width), empty).index_put(at, values_M).to(device)

    ids = placed(torch.tensor([i for tokens in texts for i in tokens], dtype=torch.long), pad)
    text = placed(text_M, -1)  # index of the text, -1 for padding
    offset = placed(offset_M)  # position within the text
    seen_K = torch.ones_like(sizes) if attend_image_K is None else attend_image_K.cpu()
    attend_image = placed(seen_K.bool()[text_M])
    length = prefix + width
    visible = torch.zeros((batch_size, length, length), dtype=torch.bool, device=device)
    visible[:, :prefix, :prefix] = True
    visible[:, prefix:, :prefix] = attend_image[:, :, None]
    # Padding is one more text, so that no row of the mask is empty.
    visible[:, prefix:, prefix:] = text[:, :, None] == text[:, None, :]
    both = None
    if parallel_from is not None or not causal_prefix:
        both = torch.zeros_like(visible)
        both[:, :prefix, :prefix] = not causal_prefix
        if parallel_from is not None:
            parallel = placed(offset_M >= torch.tensor(parallel_from, dtype=torch.long)[text_M])
            both[:, prefix:, prefix:] = parallel[:, :, None] & parallel[:, None]
    of_prefix = torch.arange(prefix, device=device).expand(batch_size, -1)
    structure = TextStructure(torch.cat([of_prefix, prefix + offset], 1), visible, both)
    first = int(prefix_positions_N[-1]) + 1 if prefix else 0
    positions = torch.cat([prefix_positions_N.to(device).expand(batch_size, -1), first + offset], 1)
    attend_image_BL = torch.cat([torch.ones_like(of_prefix, dtype=torch.bool), attend_image], 1)
    starts_K = torch.tensor(starts, device=device)
    return Packed(ids, structure, positions, starts_K, attend_image_BL)
