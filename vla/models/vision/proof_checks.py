"""Checks of one vision encoder: shape and scale of its tokens, and rows that do not mix."""

from __future__ import annotations

from typing import Any

import timm
import torch

_TOLERANCE = 2e-4  # of features with a standard deviation of about 1


class Failed(Exception):
    """A check that a network does not pass."""


def random_images(rows: int, height: int, width: int = 0) -> torch.Tensor:
    """Images (rows, 3, height, width) uint8, the same in every call; square without a width."""
    generator = torch.Generator().manual_seed(rows)
    shape = (rows, 3, height, width or height)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@torch.no_grad()
def token_shape(size: int, encoder: Any) -> str:
    """Two images of ``size`` px give tokens (2, N, width)."""
    tokens = encoder.eval()(random_images(2, size))
    if tokens.dim() != 3 or tokens.shape[0] != 2 or tokens.shape[2] != encoder.width:
        raise Failed(f"tokens {tuple(tokens.shape)}, expected (2, N, {encoder.width})")
    return f"{tokens.shape[1]} tokens of width {tokens.shape[2]}"


@torch.no_grad()
def separate_rows(encoder: Any) -> str:
    """Tokens of three images together and alone, if necessary in double precision.

    Deep networks of random weights amplify the rounding of single precision.
    """
    images = random_images(3, encoder.image_size)
    worst, between = _row_differences(encoder.eval(), images)
    if not worst < _TOLERANCE:
        worst, between = _row_differences(encoder.double(), images)
        encoder.float()
    if not worst < _TOLERANCE:
        raise Failed(f"relative difference {worst:.1e}")
    if between < 1e-6:
        raise Failed("two images have the same tokens")
    return f"relative difference {worst:.1e}"


def _row_differences(encoder: Any, images: torch.Tensor) -> tuple[float, float]:
    """Largest relative differences: of batch and single images, and of two images."""
    together = encoder(images)
    alone = torch.cat([encoder(images[n : n + 1]) for n in range(len(images))])
    scale = together.std().clamp(min=1e-6)
    worst = float((together - alone).abs().max() / scale)
    return worst, float((together[0] - together[1]).abs().max() / scale)


@torch.no_grad()
def normalisation(encoder: Any, model: str) -> str:
    """Pixels have the statistics of the model's configuration; tokens have a usable scale."""
    own = timm.get_pretrained_cfg(model)
    if (
        own is not None
        and own.mean
        and not torch.allclose(
            encoder.mean_C.flatten(), torch.tensor(own.mean, dtype=torch.float32)
        )
    ):
        raise Failed(f"pixels have mean {encoder.mean_C.flatten().tolist()}, not {own.mean}")
    tokens = encoder.eval()(random_images(2, encoder.image_size))
    if not tokens.isfinite().all():
        raise Failed("tokens are not finite")
    scale = float(tokens.pow(2).mean().sqrt())
    if not 1e-3 < scale < 1e2:
        raise Failed(f"root mean square of the tokens is {scale:.1e}")
    return f"root mean square {scale:.2g}"
