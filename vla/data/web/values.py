"""Values of columns as texts, turns of conversations, and bounding boxes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vla.data.web.mapping import BoxFormat

_IMAGE_WORD = re.compile(r"\s*<(?:image|img|image_placeholder)>\s*")
_ASKS, _ANSWERS = ("human", "user", "question"), ("gpt", "assistant", "model", "bot", "answer")
_SKIPPED = ("system",)
_TEXT_KEYS = ("answer", "text", "caption", "raw", "value", "content", "label", "name")
_BOX_KEYS = ("bbox", "box", "bboxes", "boxes", "rect")
LABEL_KEYS = (
    *("category", "categories", "label", "labels", "name", "names", "class", "classes"),
    *("phrase", "text", "category_id"),
)
_CORNERS: tuple[tuple[str, ...], ...] = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
)


def plain_text(value: Any) -> str:
    """The text of one value; empty for None and NaN.

    Raises:
        ValueError: bytes, several values, or a mapping without a text.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, str):
        return _IMAGE_WORD.sub("\n", value).strip()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        for key in _TEXT_KEYS:
            if isinstance(value.get(key), str | int | float):
                return plain_text(value[key])
    if isinstance(value, list):
        parts = [v for v in value if isinstance(v, str) or _is_text(v)]
        if len(parts) == 1 or (parts and all(isinstance(v, Mapping) for v in value)):
            return "\n".join(plain_text(v) for v in parts).strip()
    raise ValueError(f"expected a text, found {_short(value)}")


def texts(value: Any) -> list[str]:
    """All texts of a value: one, or those of a list; empty ones are left out."""
    values = value if isinstance(value, list | tuple) else [value]
    found = [v for v in map(plain_text, values) if v]
    return found


def turns(value: Any) -> list[tuple[str, str]]:
    """(question, answer) pairs of a conversation.

    Known forms of a turn: ``{from, value}``, ``{role, content}``, and pairs such as ``{user,
    assistant}``. A system text, and a last question without an answer, are left out.

    Raises:
        ValueError: another form, or an answer without a question.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError(f"expected a list of turns, found {_short(value)}") from None
    if isinstance(value, Mapping) and all(isinstance(v, list) for v in value.values()):
        # ``datasets`` stores a sequence of mappings as a mapping of sequences
        value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    if not isinstance(value, list):
        raise ValueError(f"expected a list of turns, found {_short(value)}")
    pairs: list[tuple[str, str]] = []
    question = ""
    for role, text in (said for turn in value for said in _said(turn)):
        if role in _SKIPPED:
            continue
        if role in _ASKS:
            question = f"{question}\n{text}".strip()
        elif role in _ANSWERS and (question or text):
            if not question:
                raise ValueError("an answer without a question before it")
            pairs.append((question, text))
            question = ""
        else:
            raise ValueError(f"a turn of {role!r}; expected {_ASKS[0]} or {_ANSWERS[0]}")
    return pairs


def _said(turn: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(turn, Mapping):
        raise ValueError(f"expected a turn of a conversation, found {_short(turn)}")
    for role, text in (("from", "value"), ("role", "content")):
        if role in turn and text in turn:
            yield str(turn[role]).lower(), plain_text(turn[text])
            return
    asked = next((k for k in _ASKS if k in turn), None)
    answered = next((k for k in _ANSWERS if k in turn), None)
    if asked is None or answered is None:
        raise ValueError(f"a turn with {', '.join(map(str, turn))}; expected from and value")
    yield "human", plain_text(turn[asked])
    yield "gpt", plain_text(turn[answered])


def _is_text(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("type", "text") == "text"


def labelled_boxes(value: Any, labels: Any) -> list[tuple[str, list[float]]]:
    """(label, four numbers) of all boxes of a row.

    Args:
        value: one box, a list of boxes, a list of mappings with box and label, or a mapping of
            lists of both.
        labels: label or labels that are in a column of their own; None: beside the boxes.

    Raises:
        ValueError: no such form, or a box without label.
    """
    if isinstance(value, Mapping) and (key := _key(value, _BOX_KEYS)):
        inside = _key(value, LABEL_KEYS)
        return labelled_boxes(value[key], value[inside] if inside and labels is None else labels)
    if isinstance(value, Mapping) or _is_box(value):
        box, names = _numbers(value), texts(labels)
        if not names:
            raise ValueError("a box without a label; name their column in source.mapping.labels")
        return [(name, box) for name in names]
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ValueError(f"expected bounding boxes, found {_short(value)}")
    if labels is None:
        return [pair for entry in value for pair in labelled_boxes(entry, None)]
    names = labels if isinstance(labels, list) else [labels] * len(value)
    if len(names) != len(value):
        raise ValueError(f"{len(value)} boxes, but {len(names)} labels")
    pairs = zip(value, names, strict=True)
    return [pair for box, name in pairs for pair in labelled_boxes(box, name)]


def corners(
    box: Sequence[float], form: BoxFormat, width: float, height: float
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a box as shares of an image with these sides.

    Raises:
        ValueError: not finite, a negative side, or outside the image.
    """
    a, b, c, d = box
    if not all(map(math.isfinite, box)):
        raise ValueError(f"box {list(box)} is not finite")
    if form == "xywh":
        c, d = a + c, b + d
    elif form == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if c < a or d < b:
        raise ValueError(f"box {list(box)} has a negative side as {form}; check box_format")
    left, top, right, bottom = a / width, b / height, c / width, d / height
    slack = 0.02  # annotations may end a few px outside the image
    if min(left, top) < -slack or max(right, bottom) > 1 + slack:
        raise ValueError(
            f"box {list(box)} as {form} is outside its image of {width:g} x {height:g}; "
            "check box_format and box_scale"
        )
    return max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0)


def _key(value: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((n for n in names if n in value), None)


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 4
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    )


def _numbers(value: Any) -> list[float]:
    if _is_box(value):
        return [float(v) for v in value]
    for names in _CORNERS:
        if all(isinstance(value.get(n), int | float) for n in names):
            return [float(value[n]) for n in names]
    raise ValueError(f"expected a bounding box of four numbers, found {_short(value)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
