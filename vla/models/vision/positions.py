"""Fixed 2-D position embeddings of image tokens."""

from __future__ import annotations

import math

import numpy as np
import torch

# timm.layers.build_sincos2d_pos_embed is no replacement: its frequencies are powers of a
# temperature (10,000). These are octaves of the grid's side, which separate the cells of the small
# grids that are used here, and existing policies start from them.


def sincos_2d(side: int, width: int) -> torch.Tensor:
    """Sine-cosine position embedding (side * side, width) of a square grid, in [-1, 1].

    Source: MAE, arXiv 2111.06377, with octave frequencies.
    """
    pairs = width // 4
    frequency = np.pi / side * 2.0 ** np.linspace(-1.0, math.log2(side), pairs)
    angle = (np.arange(side) + 0.5)[:, None] * frequency
    one = np.concatenate([np.sin(angle), np.cos(angle)], 1)
    code = np.zeros((side, side, width), np.float32)
    code[:, :, : 2 * pairs], code[:, :, 2 * pairs : 4 * pairs] = one[:, None], one[None]
    return torch.tensor(code.reshape(side * side, width))
