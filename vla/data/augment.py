"""Random augmentation of robot images. Web images stay unchanged: their answers name places."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

_MAXIMA = {"crop": 1.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of robot images, the same for all frames of a camera in one sample."""

    # Smallest share of the image's sides that a random crop keeps, above 0 to 1; the crop is
    # resized to the full size. 1: no crop.
    crop: float = 1.0
    brightness: float = 0.0  # factor between 1 - x and 1 + x, 0 to 1; 0: off
    contrast: float = 0.0  # factor between 1 - x and 1 + x, 0 to 1; 0: off
    saturation: float = 0.0  # factor between 1 - x and 1 + x, 0 to 1; 0: off
    hue: float = 0.0  # largest rotation of the hue, as a share of the full circle, 0 to 0.5; 0: off

    def __post_init__(self) -> None:
        for name, high in _MAXIMA.items():
            value = getattr(self, name)
            if not 0 <= value <= high or (name == "crop" and value == 0):
                low = "above 0" if name == "crop" else "0"
                raise ValueError(f"data.augment.{name}={value}: expected {low} to {high}")


def augmented(images_THWC: np.ndarray, config: AugmentConfig, rng: random.Random) -> np.ndarray:
    """uint8 frames of one camera, all changed in the same random way.

    The result depends on the arguments and the state of ``rng`` alone.
    """
    # Imported here because it is slow to import and only needed with augmentation.
    import torch
    from torchvision.transforms.v2 import InterpolationMode, functional

    images = torch.from_numpy(images_THWC).permute(0, 3, 1, 2).contiguous()
    if config.crop < 1:
        height, width = images.shape[-2:]
        share, down, right = rng.uniform(config.crop, 1), rng.random(), rng.random()
        h, w = round(share * height), round(share * width)
        top, left = round(down * (height - h)), round(right * (width - w))
        images = functional.resized_crop(
            images, top, left, h, w, [height, width], InterpolationMode.BILINEAR, antialias=True
        )
    for name in ("brightness", "contrast", "saturation"):
        x = getattr(config, name)
        if x:
            images = getattr(functional, f"adjust_{name}")(images, rng.uniform(1 - x, 1 + x))
    if config.hue:
        images = functional.adjust_hue(images, rng.uniform(-config.hue, config.hue))
    return images.permute(0, 2, 3, 1).numpy()
