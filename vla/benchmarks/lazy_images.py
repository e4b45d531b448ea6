"""Images that an environment renders when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np


class LazyImages(Mapping[str, np.ndarray]):
    """Camera -> image (H, W, 3) uint8, rendered at the first access.

    A policy that executes a chunk of actions reads few images. An environment with slow rendering
    gives this mapping as ``observation["images"]``, and calls ``expire`` before its state changes.

    Args:
        renderers: camera -> function that renders the present state.
    """

    def __init__(self, renderers: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self._cameras = list(renderers)
        self._renderers = dict(renderers)
        self._images: dict[str, np.ndarray] = {}

    def __getitem__(self, camera: str) -> np.ndarray:
        if camera not in self._cameras:
            raise KeyError(camera)
        if camera not in self._images:
            if camera not in self._renderers:
                raise RuntimeError(
                    f"the image of {camera!r} was not read before the next step of the environment"
                )
            self._images[camera] = self._renderers[camera]()
        return self._images[camera]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cameras)

    def __len__(self) -> int:
        return len(self._cameras)

    def expire(self) -> None:
        """Keep the images that were read; reading another one is an error from now on."""
        self._renderers = {}
