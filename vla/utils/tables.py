"""Tables on the terminal, and counts with their units."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = 3  # columns between two cells
_NAME = 12  # least width of a column of names, which are shortened
_SENTENCE = 20  # least width of a column of sentences, which are broken into lines


def terminal_width() -> int | None:
    """Columns of the terminal, or of ``COLUMNS``; None for a pipe or file, which has no limit."""
    if os.environ.get("COLUMNS", "").isdigit():
        return int(os.environ["COLUMNS"])
    return Console().width if sys.stdout.isatty() else None


def print_table(rows: Sequence[Mapping[str, str]], title: str = "", header: bool = True) -> None:
    """Print rows of texts; the keys of the first row are the header.

    On a terminal, sentences are broken into lines. Names and paths are shortened in the middle,
    never so that two of them look alike. Numbers are never shortened: if they do not fit, each row
    is printed as a list of its cells.
    """
    if title:
        print(title)
    if not rows:
        return
    limit = terminal_width()
    columns = {name: [row.get(name, "") for row in rows] for name in rows[0]}
    widths = _widths(columns, header, limit)
    if widths is None:
        return _print_lists(rows)
    table = Table(box=SIMPLE_HEAD if header else None, show_header=header, pad_edge=False)
    for name, texts in columns.items():
        side: Any = "right" if _is_numeric(texts) else "left"
        table.add_column(Text(name), justify=side, overflow="fold", width=widths[name])
    for cells in zip(*(_cells(texts, widths[n]) for n, texts in columns.items()), strict=True):
        table.add_row(*map(Text, cells))
    Console(width=limit or sum(widths.values()) + _GAP * len(widths) + 2).print(table)


def _cells(texts: list[str], width: int) -> list[str]:
    return texts if _is_prose(texts) or _is_numeric(texts) else shorten(texts, width)


def _is_numeric(texts: list[str]) -> bool:
    """True for empty cells and texts that begin with a number."""
    return all(not t or t == "-" or t.lstrip("+-.")[:1].isdigit() for t in texts)


def _is_prose(texts: list[str]) -> bool:
    return any(" " in text.strip() for text in texts)


def _widths(
    columns: dict[str, list[str]], header: bool, limit: int | None
) -> dict[str, int] | None:
    """The width of every column; None if the numbers and the shortest texts do not fit."""
    widths, least = {}, {}
    for name, texts in columns.items():
        own = cell_len(name) if header else 1
        widths[name] = max(own, *map(cell_len, texts))
        shortest = widths[name] if _is_numeric(texts) else _SENTENCE if _is_prose(texts) else _NAME
        least[name] = min(widths[name], max(own, shortest))
    while limit is not None and sum(widths.values()) + _GAP * len(widths) > limit:
        wide = [n for n in widths if widths[n] > least[n]]
        if not wide:
            return None
        widths[max(wide, key=lambda n: (_is_prose(columns[n]), widths[n]))] -= 1
    return widths


def _print_lists(rows: Sequence[Mapping[str, str]]) -> None:
    """Each row as lines ``name  value``, for a narrow terminal."""
    indent = max(cell_len(name) for name in rows[0])
    for row in rows:
        print()
        for name, value in row.items():
            print(f"  {name:{indent}}  {value}")


def shorten(texts: Sequence[str], width: int) -> list[str]:
    """Texts of at most ``width`` characters with the middle replaced by "…".

    Different texts stay different: a common beginning and end are left out first. If that does
    not suffice, the texts are returned whole and the table breaks them into lines.
    """
    cut = [_middle(text, width) for text in texts]
    if len(set(cut)) == len(set(texts)):
        return cut
    start, end = _common(texts), _common([text[::-1] for text in texts])
    end = min(end, min(map(len, texts)) - start)
    around = max(0, width - 2 - max(len(text) - start - end for text in texts))
    before = min(start, around // 2)
    after = min(end, around - before)
    cut = []
    for text in texts:
        first, last = start - before, len(text) - end + after
        kept = f"{'…' if first else ''}{text[first:last]}{'…' if last < len(text) else ''}"
        cut.append(_middle(kept, width))
    return cut if len(set(cut)) == len(set(texts)) else list(texts)


def _common(texts: Sequence[str]) -> int:
    """Number of characters with which all texts begin."""
    alike = (len(set(letters)) == 1 for letters in zip(*texts, strict=False))
    return sum(1 for _ in takewhile(bool, alike))


def _middle(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
