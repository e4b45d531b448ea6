"""Images brought to the size of a policy, the same way at packing and at use."""

from __future__ import annotations

import numpy as np
from PIL import Image

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
    if fit == "crop":
        scale = min(height / size[0], width / size[1])
    elif fit == "pad":
        scale = max(height / size[0], width / size[1])
    if fit != "stretch":
        part_height, part_width = (max(1, round(side * scale)) for side in size)
        left, top = int((width - part_width) / 2), int((height - part_height) / 2)
        # A part that is larger than the image is filled with black.
        frame = frame.crop((left, top, left + part_width, top + part_height))
    if frame.size != (size[1], size[0]):
        frame = frame.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(frame)
