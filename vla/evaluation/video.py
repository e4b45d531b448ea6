"""Rollouts as a contact sheet (one row per episode) and as an animation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vla.benchmarks.base import EpisodeResult

_GREEN, _RED = (24, 140, 60), (200, 40, 40)
_LINE = 16  # height of a caption in px


def _scaled(frame: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(frame).resize(
        (side, side),
        Image.Resampling.NEAREST if frame.shape[0] * 2 <= side else Image.Resampling.BICUBIC,
    )


def _caption(result: EpisodeResult) -> str:
    failed = "failed" if result.metrics.get("failed") else "not done"
    outcome = "done" if result.success else failed
    return f"{result.instruction}: {outcome} in {result.steps} steps"


def contact_sheet(
    videos: Sequence[Sequence[np.ndarray]],
    results: Sequence[EpisodeResult],
    columns: int = 9,
    side: int = 112,
) -> Image.Image:
    """One row per episode: evenly spaced frames under the instruction (green: success)."""
    row = side + _LINE + 6
    sheet = Image.new("RGB", (columns * (side + 2), len(videos) * row), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for n, (frames, result) in enumerate(zip(videos, results, strict=False)):
        draw.text(
            (2, n * row), _caption(result), fill=_GREEN if result.success else _RED, font=font
        )
        picks = np.unique(
            np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int)
        )
        for c, index in enumerate(picks):
            sheet.paste(_scaled(frames[index], side), (c * (side + 2), n * row + _LINE))
    return sheet


def animation(
    videos: Sequence[Sequence[np.ndarray]],
    results: Sequence[EpisodeResult],
    columns: int = 4,
    side: int = 128,
    kind: str = "WEBP",
) -> bytes:
    """All episodes side by side as an animated WebP or GIF, 5 frames per second.

    A finished episode shows its last frame in a border: green for success, red for failure.
    """
    length = max(len(f) for f in videos) + 3
    pages = []
    for t in range(length):
        canvas = Image.new(
            "RGB", (columns * (side + 6), -(-len(videos) // columns) * (side + 6)), "white"
        )
        draw = ImageDraw.Draw(canvas)
        for n, (frames, result) in enumerate(zip(videos, results, strict=False)):
            x, y = n % columns * (side + 6), n // columns * (side + 6)
            if t >= len(frames) - 1:
                draw.rectangle(
                    (x, y, x + side + 5, y + side + 5), fill=_GREEN if result.success else _RED
                )
            canvas.paste(_scaled(frames[min(t, len(frames) - 1)], side), (x + 3, y + 3))
        pages.append(canvas)
    buffer = io.BytesIO()
    pages[0].save(
        buffer, kind, save_all=True, append_images=pages[1:], duration=200, loop=0, quality=70
    )
    return buffer.getvalue()


def save_videos(
    videos: Sequence[Sequence[np.ndarray]], results: Sequence[EpisodeResult], stem: Path
) -> list[Path]:
    """``<stem>.png`` (sheet) and ``<stem>.webp`` (animation)."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    sheet, moving = stem.with_suffix(".png"), stem.with_suffix(".webp")
    contact_sheet(videos, results).save(sheet, optimize=True)
    moving.write_bytes(animation(videos, results))
    return [sheet, moving]
