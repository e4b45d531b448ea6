"""Images brought to the size of a policy, the same way at packing and at use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # exported policies resize images without torch
    from vla.types import ImageFit


def fit_image(image: np.ndarray, size: tuple[int, int], fit: ImageFit) -> np.ndarray:
    """(H, W, 3) uint8 of ``size`` (height, width) pixels, resized with a Lanczos filter.

    An image that has this size already is returned as it is.

    Args:
        image: (H, W, 3) uint8.
        size: height and width of the result.
        fit: stretch: the whole image, its proportions change; crop: the largest central part with
            the proportions of ``size``; pad: the whole image, centred on black.
    """
    height, width = image.shape[:2]
    if (height, width) == tuple(size):
        return image
    frame = Image.fromarray(np.ascontiguousarray(image))
    left, top, part_width, part_height = shown_part((height, width), size, fit)
    # A part that is larger than the image is filled with black.
    if (left, top, part_width, part_height) != (0, 0, width, height):
        frame = frame.crop((left, top, left + part_width, top + part_height))
    if frame.size != (size[1], size[0]):
        frame = frame.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(frame)


def shown_part(
    image: tuple[int, int], size: tuple[int, int], fit: ImageFit
) -> tuple[int, int, int, int]:
    """Left, top, width and height of the part of an image that ``fit_image`` shows, in px.

    The part is larger than the image with ``pad``.

    Args:
        image, size: height and width of the image and of the result.
    """
    height, width = image
    if fit == "stretch":
        return 0, 0, width, height
    choose = min if fit == "crop" else max
    scale = choose(height / size[0], width / size[1])
    part_height, part_width = (max(1, round(side * scale)) for side in size)
    return int((width - part_width) / 2), int((height - part_height) / 2), part_width, part_height
