"""Texts that may change from row to row of an episode, such as its instruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter

from vla.errors import DataError
from vla.utils.text import count

Segments = list[tuple[int, str]]


def segments(texts: Sequence[str]) -> Segments:
    """The runs of equal texts as (first row, text), in order; empty for no texts."""
    return [(n, text) for n, text in enumerate(texts) if n == 0 or text != texts[n - 1]]


def expand(found: Sequence[Sequence[int | str]], steps: int) -> list[str]:
    """Inverse of ``segments``: ``steps`` texts.

    Raises:
        ValueError: the rows do not rise from 0 to below ``steps``, or an entry has another type.
    """
    if not found and steps == 0:
        return []
    pairs = [(n, text) for n, text in found]
    starts = [n for n, _ in pairs if isinstance(n, int)]
    texts = [text for _, text in pairs if isinstance(text, str)]
    if not len(starts) == len(texts) == len(pairs):
        raise ValueError("a segment is not a pair of a row and a text")
    ends = [*starts[1:], steps]
    if starts[:1] != [0] or any(a >= b for a, b in zip(starts, ends, strict=True)):
        raise ValueError(f"segments begin at rows {starts} of {steps}; they must rise from 0")
    return [t for t, a, b in zip(texts, starts, ends, strict=True) for _ in range(b - a)]


def first_text(texts: Sequence[str]) -> str:
    """The first text that is not blank, or an empty text."""
    return next((t for t in texts if t.strip()), "")


def summary(texts: Sequence[str]) -> str:
    """One line with every text in order, for tables and figures."""
    return " -> ".join(text for _, text in segments(texts) if text.strip())


def label_counts(texts: Sequence[str]) -> dict[str, int]:
    """Of one episode's instructions: "changing" episodes and "blank" rows; 0 for no texts."""
    changing = len({text for text in texts if text.strip()}) > 1
    return {"changing": int(changing), "blank": sum(not text.strip() for text in texts)}


def label_notes(counts: Mapping[str, int]) -> list[str]:
    """What the sums of ``label_counts`` mean for training."""
    notes = []
    if changing := counts.get("changing"):
        notes.append(
            f"{count(changing, 'episode')} with an instruction that changes: every row keeps its "
            "own, and action chunks end at a change"
        )
    if blank := counts.get("blank"):
        notes.append(f"{count(blank, 'row')} without an instruction: not trained")
    return notes


def varying(texts: Sequence[str]) -> list[str]:
    """The texts if they differ; an empty list if all are equal."""
    return list(texts) if len(set(texts)) > 1 else []


def fill_template(template: str, fields: Mapping[str, Sequence[str]], steps: int) -> list[str]:
    """``steps`` texts: the template with the fields of every row.

    A row in which all fields of the template are blank has no text. So a template does not make
    an instruction from nothing.

    Raises:
        DataError: the template has an unknown field or is malformed.
    """
    try:
        used = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        rows = [{name: fields[name][r] for name in used} for r in range(steps)]
        texts = [template.format(**row) for row in rows]
    except KeyError as error:
        known = ", ".join("{" + name + "}" for name in fields)
        raise DataError(
            f"mapping.instruction={template!r}: no text field {error}; fields are {known}"
        ) from error
    except ValueError as error:
        raise DataError(
            f"mapping.instruction={template!r}: {error}; write fields as {{task}}"
        ) from error
    blank = [bool(row) and not any(v.strip() for v in row.values()) for row in rows]
    return ["" if empty else text for text, empty in zip(texts, blank, strict=True)]


def written_once(texts: Sequence[str]) -> list[str]:
    """The texts; where only the first row has one, it holds for every row.

    Tables often have the text of an episode in their first row alone.
    """
    once = any(texts) and not any(t.strip() for t in texts[1:])
    return [texts[0]] * len(texts) if once else list(texts)
