"""Pictures of robots made a little different at every look: what few recordings have too little of. Pictures of the web stay as they are (answers are places)."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class AugmentConfig:
    """crop: a square of at least this share of the side, stretched back (1: all of it); brightness, contrast, saturation: factors of 1 - x to 1 + x;
    hue: turned by at most this share of the circle. All off by default.

    Raises:
        ValueError: a value outside 0..1 (hue: 0..0.5; crop: above 0).
    """

    crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name, high in (("crop", 1.0), ("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            value = getattr(self, name)
            if not 0 <= value <= high or (name == "crop" and value == 0):
                raise ValueError(f"data.augment.{name}={value}: expected {'above ' if name == 'crop' else ''}0 to {high}")


def augmented(images_THWC: np.ndarray, config: AugmentConfig, rng: random.Random) -> np.ndarray:
    """The same change for all frames (uint8) of one camera; a function of its arguments and the state of ``rng``."""
    from torchvision.transforms.v2 import InterpolationMode, functional  # heavy, and not needed where nothing is varied

    images = torch.from_numpy(images_THWC).permute(0, 3, 1, 2).contiguous()
    if config.crop < 1:
        height, width = images.shape[-2:]
        share, down, right = rng.uniform(config.crop, 1), rng.random(), rng.random()
        h, w = round(share * height), round(share * width)
        top, left = round(down * (height - h)), round(right * (width - w))
        images = functional.resized_crop(images, top, left, h, w, [height, width], InterpolationMode.BILINEAR, antialias=True)
    for name in ("brightness", "contrast", "saturation"):
        x = getattr(config, name)
        if x:
            images = getattr(functional, f"adjust_{name}")(images, rng.uniform(1 - x, 1 + x))
    if config.hue:
        images = functional.adjust_hue(images, rng.uniform(-config.hue, config.hue))
    return images.permute(0, 2, 3, 1).numpy()
