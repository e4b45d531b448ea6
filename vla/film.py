"""Rollouts as pictures: a sheet with one episode a row, an animation of many at once, and TensorBoard's video tensor."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vla.evaluate import Result

_GREEN, _RED = (24, 140, 60), (200, 40, 40)
_LINE = 16  # px a caption


def _scaled(frame: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(frame).resize(
        (side, side), Image.Resampling.NEAREST if frame.shape[0] * 2 <= side else Image.Resampling.BICUBIC
    )


def _caption(result: Result) -> str:
    return f"{result.instruction}: {'done' if result.success else 'wrong object' if result.failed else 'not done'} in {result.steps} steps"


def contact_sheet(
    films: Sequence[Sequence[np.ndarray]], results: Sequence[Result], columns: int = 9, side: int = 112
) -> Image.Image:
    """One row an episode: evenly spaced frames under the instruction, green when it succeeded."""
    row = side + _LINE + 6
    sheet = Image.new("RGB", (columns * (side + 2), len(films) * row), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for n, (film, result) in enumerate(zip(films, results, strict=False)):
        draw.text((2, n * row), _caption(result), fill=_GREEN if result.success else _RED, font=font)
        picks = np.unique(np.linspace(0, len(film) - 1, min(columns, len(film))).round().astype(int))
        for c, index in enumerate(picks):
            sheet.paste(_scaled(film[index], side), (c * (side + 2), n * row + _LINE))
    return sheet


def animation(
    films: Sequence[Sequence[np.ndarray]], results: Sequence[Result], columns: int = 4, side: int = 128, kind: str = "WEBP"
) -> bytes:
    """All episodes side by side as an animated WebP (or GIF) at 5 frames a second; a finished episode keeps its last frame, framed by its outcome."""
    length = max(len(f) for f in films) + 3
    frames = []
    for t in range(length):
        canvas = Image.new("RGB", (columns * (side + 6), -(-len(films) // columns) * (side + 6)), "white")
        draw = ImageDraw.Draw(canvas)
        for n, (film, result) in enumerate(zip(films, results, strict=False)):
            x, y = n % columns * (side + 6), n // columns * (side + 6)
            if t >= len(film) - 1:
                draw.rectangle((x, y, x + side + 5, y + side + 5), fill=_GREEN if result.success else _RED)
            canvas.paste(_scaled(film[min(t, len(film) - 1)], side), (x + 3, y + 3))
        frames.append(canvas)
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=200, loop=0, quality=70)
    return buffer.getvalue()


def save_films(films: Sequence[Sequence[np.ndarray]], results: Sequence[Result], stem: Path) -> list[Path]:
    """``<stem>.png`` (sheet) and ``<stem>.webp`` (animation)."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    sheet, moving = stem.with_suffix(".png"), stem.with_suffix(".webp")
    contact_sheet(films, results).save(sheet, optimize=True)
    moving.write_bytes(animation(films, results))
    return [sheet, moving]
