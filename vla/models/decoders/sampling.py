"""Random choice of the next token: temperature, top-k and a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Sampling:
    """How generated tokens are chosen among the allowed ones.

    Raises:
        ValueError: an option is outside its range, or ``top_k`` is given without a temperature.
    """

    # Divisor of the logits before the softmax, at least 0; 0: the most likely token (greedy).
    temperature: float = 0.0
    # Sample among this many most likely tokens, at least 0; 0: among all allowed tokens.
    top_k: int = 0
    # Seed of the random numbers, at least 0; an equal seed gives equal episodes.
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: expected a number of at least 0")
        for name in ("top_k", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 0")
        if self.top_k and not self.temperature:
            raise ValueError(
                f"top_k={self.top_k}: temperature 0 is greedy decoding; set temperature above 0"
            )


GREEDY = Sampling()


class TokenSampler:
    """Draws tokens for the rows of a batch.

    Every row has its own random numbers, so its tokens do not depend on the rows beside it.

    Args:
        sampling: a temperature above 0.
        row_seeds: one number per row, at least 0; it is combined with ``sampling.seed``.
    """

    def __init__(self, sampling: Sampling, row_seeds: Sequence[int]) -> None:
        self.sampling = sampling
        self._random = [np.random.default_rng([sampling.seed, seed]) for seed in row_seeds]

    def __call__(self, logits_BV: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """(B,) indices into the V logits of the rows ``rows``."""
        ranked, index = logits_BV.float().sort(dim=-1, descending=True, stable=True)
        if self.sampling.top_k:
            ranked = ranked[:, : self.sampling.top_k]
        cumulative = (ranked / self.sampling.temperature).double().softmax(-1).cumsum(-1)
        draws = [self._random[row].random() for row in rows]
        share = torch.tensor(draws, dtype=torch.float64, device=ranked.device)[:, None]
        drawn = torch.searchsorted(cumulative, share * cumulative[:, -1:], right=True)
        return index.gather(-1, drawn.clamp(max=ranked.shape[-1] - 1))[:, 0]


def token_sampler(sampling: Sampling, row_seeds: Sequence[int]) -> TokenSampler | None:
    """The sampler of a batch, or None for greedy decoding."""
    return TokenSampler(sampling, row_seeds) if sampling.temperature else None
