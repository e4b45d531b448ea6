"""Rollouts as a contact sheet (one row per episode) and as an animation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vla.benchmarks.base import EpisodeResult
from vla.evaluation.captions import caption_font, caption_height, draw_plan

_GREEN, _RED = (24, 140, 60), (200, 40, 40)
_LINE = 16  # height of a caption in px
_PLAN_SIDE = 192  # px; smallest side of an animation's frame above a plan


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
    """One row per episode: evenly spaced frames under the instruction (green: success).

    Plans stand below their frames.
    """
    text = caption_height(results)
    row = side + _LINE + 6 + text
    sheet = Image.new("RGB", (columns * (side + 2), len(videos) * row), "white")
    draw, font = ImageDraw.Draw(sheet), caption_font()
    for n, (frames, result) in enumerate(zip(videos, results, strict=False)):
        draw.text(
            (2, n * row), _caption(result), fill=_GREEN if result.success else _RED, font=font
        )
        picks = np.unique(
            np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int)
        )
        for c, index in enumerate(picks):
            x, y = c * (side + 2), n * row + _LINE
            sheet.paste(_scaled(frames[index], side), (x, y))
            if text:
                draw_plan(draw, result, int(index), x + 1, y + side + 2, side - 2)
    return sheet


def animation(
    videos: Sequence[Sequence[np.ndarray]],
    results: Sequence[EpisodeResult],
    columns: int = 4,
    side: int = 128,
    kind: str = "WEBP",
) -> bytes:
    """All episodes side by side as an animated WebP or GIF, 5 frames per second.

    A finished episode shows its last frame in a border: green for success, red for failure. Plans
    stand below their frames, which are then larger.
    """
    length, text = max(len(f) for f in videos) + 3, caption_height(results)
    side = max(side, _PLAN_SIDE) if text else side
    width, height = side + 6, side + 6 + text
    pages = []
    for t in range(length):
        canvas = Image.new("RGB", (columns * width, -(-len(videos) // columns) * height), "white")
        draw = ImageDraw.Draw(canvas)
        for n, (frames, result) in enumerate(zip(videos, results, strict=False)):
            x, y = n % columns * width, n // columns * height
            if t >= len(frames) - 1:
                draw.rectangle(
                    (x, y, x + side + 5, y + side + 5), fill=_GREEN if result.success else _RED
                )
            canvas.paste(_scaled(frames[min(t, len(frames) - 1)], side), (x + 3, y + 3))
            if text:
                draw_plan(draw, result, t, x + 4, y + side + 7, side - 2)
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
