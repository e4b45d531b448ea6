"""Appearance of a scene: table surface, light and camera position."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

# Table surface -> base colour. Only the generalisation suite uses those after the first seven.
TABLES = {
    "white": (244, 243, 240),
    "cream": (247, 240, 226),
    "mint": (232, 243, 236),
    "sky": (231, 239, 247),
    "rose": (247, 234, 235),
    "grey": (229, 230, 232),
    "lilac": (239, 234, 246),
    "walnut": (150, 111, 77),
    "slate": (96, 105, 118),
    "green": (66, 120, 84),
    "peach": (250, 226, 208),
    "lemon": (247, 244, 206),
    "ice": (214, 240, 244),
}
TRAIN_TABLES = tuple(TABLES)[:7]
DARK_TABLES, LIGHT_TABLES = tuple(TABLES)[7:10], tuple(TABLES)[10:]
TEXTURES = ("plain", "grain", "dots", "checks")


@dataclass(frozen=True)
class Appearance:
    """Table surface, lighting and camera position of a scene."""

    table: str = "white"  # a key of ``TABLES``
    texture: str = "plain"  # one of ``TEXTURES``
    seed: int = 0  # of the texture
    light: float = 1.0  # brightness factor
    zoom: float = 1.0  # magnification of the top camera
    shift: tuple[float, float] = (0.0, 0.0)  # m; displacement of the top camera in x and y


def sample_appearance(
    rng: np.random.Generator, tables: tuple[str, ...] = TRAIN_TABLES
) -> Appearance:
    """A random table surface and texture; by default one of the training set."""
    table = tables[int(rng.integers(len(tables)))]
    return Appearance(table, TEXTURES[int(rng.integers(len(TEXTURES)))], int(rng.integers(64)))


@lru_cache(maxsize=256)
def background(appearance: Appearance, size: int) -> Image.Image:
    """The empty table: (size, size) RGB."""
    rng = np.random.default_rng(appearance.seed)
    base = np.broadcast_to(np.array(TABLES[appearance.table], np.int16), (size, size, 3)).copy()
    if appearance.texture == "grain":
        rows = rng.integers(-7, 8, 24).astype(np.int16)
        base += np.repeat(rows, math.ceil(size / 24))[:size, None, None]
    elif appearance.texture == "dots":
        step = max(6, size // 16)
        base[step // 2 :: step, step // 2 :: step] -= 30
    elif appearance.texture == "checks":
        cells = (np.arange(size) * 8 // size)[:, None] + (np.arange(size) * 8 // size)[None, :]
        base += np.where(cells % 2 == 0, 5, -5).astype(np.int16)[:, :, None]
    return Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))
