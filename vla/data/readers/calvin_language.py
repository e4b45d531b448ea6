"""CALVIN's lists of episodes and annotated parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vla.data.readers.files import read_json_file, reading
from vla.errors import DataError
from vla.utils.npz import open_npz

ENDS = "ep_start_end_ids.npy"
_LANGUAGE = "auto_lang_ann"
_CONVERT = (
    "python -c \"import json, pathlib, numpy as np; a = np.load('auto_lang_ann.npy', "
    "allow_pickle=True).item(); pathlib.Path('auto_lang_ann.json').write_text(json.dumps("
    "{'language': a['language']['ann'], 'indx': [[int(n) for n in p] for p in "
    "a['info']['indx']]}))\""
)


def row_ranges(folder: Path) -> list[tuple[int, int]]:
    """First and last row of every episode, from ``ep_start_end_ids.npy``."""
    path = folder / ENDS
    if not path.is_file():
        raise DataError(f"{path}: missing; it has the first and last row of every episode")
    with reading(str(path)):
        values = np.load(path, allow_pickle=False)
    return _pairs(values, str(path))


def _pairs(values: Any, where: str) -> list[tuple[int, int]]:
    """Checked (first, last) pairs.

    Raises:
        DataError: not pairs of rising row numbers.
    """
    try:
        table = np.asarray(values)
        if table.ndim != 2 or table.shape[1] != 2 or table.dtype.kind not in "iu":
            raise ValueError(f"{table.dtype} of shape {table.shape}")
    except ValueError as error:
        raise DataError(f"{where}: expected first and last rows, found {error}") from error
    wrong = [n for n, (a, b) in enumerate(table) if not 0 <= a <= b]
    if wrong:
        raise DataError(
            f"{where}: entry {wrong[0]} goes from row {table[wrong[0]][0]} to "
            f"{table[wrong[0]][1]}; repair it or download the file again"
        )
    return [(int(a), int(b)) for a, b in table]


def annotated_parts(folder: Path, notes: list[str]) -> list[tuple[str, int, int]]:
    """(instruction, first row, last row) of every annotated part; empty without annotations.

    ``auto_lang_ann.json`` or ``.npz`` has ``language`` (texts) and ``indx`` (pairs of rows).
    """
    for kind in ("json", "npz"):
        for path in sorted(
            [*folder.glob(f"{_LANGUAGE}.{kind}"), *folder.glob(f"*/{_LANGUAGE}.{kind}")]
        ):
            if kind == "json":
                found: Any = read_json_file(path)
            else:
                with open_npz(path) as arrays:
                    found = dict(arrays)
            texts, spans = found.get("language"), found.get("indx")
            if isinstance(texts, dict):
                texts = texts.get("ann")
            if spans is None and isinstance(found.get("info"), dict):
                spans = found["info"].get("indx")
            if texts is None or spans is None or len(texts) != len(spans):
                raise DataError(f"{path}: expected `language` and `indx` with equally many entries")
            pairs = _pairs(spans, str(path))
            return [(str(t).strip(), a, b) for t, (a, b) in zip(texts, pairs, strict=True)]
    pickled = _files(folder, "npy")
    if pickled:
        notes.append(
            f"{pickled[0]}: a pickle, which can run any program and is not read; to get the "
            f"instructions, convert it in its folder, if you trust its origin: {_CONVERT}"
        )
    return []


def _files(folder: Path, kind: str) -> list[Path]:
    """Annotation files in the folder, and in folders such as ``lang_annotations``."""
    patterns = (f"{_LANGUAGE}.{kind}", f"lang*/{_LANGUAGE}.{kind}")
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]
