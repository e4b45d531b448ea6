"""Texts under the frames of rollouts: the plan of every step."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import ImageDraw, ImageFont

from vla.benchmarks.base import EpisodeResult

_LINES = 3  # of one plan
_PITCH = 14  # px from line to line
_TEXT, _NO_PLAN = (30, 30, 30), (150, 150, 150)
HEIGHT = _LINES * _PITCH + 4  # px below a frame


@cache
def caption_font() -> Any:
    """A small font with Latin, Greek and Cyrillic letters; Pillow's own has few accents."""
    package = importlib.util.find_spec("matplotlib")
    path = (
        Path(package.origin or "").parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if package else None
    )
    return ImageFont.truetype(path, 11) if path and path.is_file() else ImageFont.load_default(12)


def caption_height(results: Sequence[EpisodeResult]) -> int:
    """Height in px of the space below every frame; 0 if no episode has plans."""
    return HEIGHT if any(result.plans for result in results) else 0


def draw_plan(
    draw: ImageDraw.ImageDraw, result: EpisodeResult, step: int, x: int, y: int, width: int
) -> None:
    """Write the plan of a step below its frame; the frame after the last step repeats its plan.

    Args:
        x, y: top left corner of the text, px.
        width: largest width of a line, px; a longer plan ends with "...".
    """
    plan = result.plans[min(step, len(result.plans) - 1)] if result.plans else ""
    font = caption_font()
    lines = wrapped(plan or "no plan", lambda text: draw.textlength(text, font=font), width)
    for n, line in enumerate(lines):
        draw.text((x, y + n * _PITCH), line, fill=_TEXT if plan else _NO_PLAN, font=font)


def wrapped(text: str, length: Callable[[str], float], width: float) -> list[str]:
    """At most three lines of the text; words that are too wide are broken."""
    lines, line = [], ""
    for word in text.split():
        joined = f"{line} {word}".strip()
        if length(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while length(word) > width and len(word) > 1:
            cut = next(
                n for n in range(len(word) - 1, 0, -1) if n == 1 or length(word[:n]) <= width
            )
            lines.append(word[:cut])
            word = word[cut:]
        line = word
    lines.append(line)
    if len(lines) <= _LINES:
        return lines
    last = lines[_LINES - 1]
    while last and length(f"{last}...") > width:
        last = last[:-1]
    return [*lines[: _LINES - 1], f"{last.rstrip()}..."]
