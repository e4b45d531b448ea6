"""Random corruptions of robot data sets, one per seed: bytes, files, rows and metadata."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LFS = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 12345\n"
)
# Values that no description file has at these places.
_WRONG: tuple[Any, ...] = (None, [], {}, "§", -1, 10**12, 1.5, True, [None], {"x": [1]}, "NaN")

Corruption = Callable[[Path, random.Random], str | None]


def _files(root: Path) -> list[Path]:
    return sorted(p for p in ([root] if root.is_file() else root.rglob("*")) if p.is_file())


def _pick(root: Path, rng: random.Random) -> Path:
    """A file; every kind of file (by suffix and folder depth) is equally likely."""
    kinds: dict[tuple[str, int], list[Path]] = {}
    for file in _files(root):
        kinds.setdefault((file.suffix, len(file.parts)), []).append(file)
    return rng.choice(kinds[rng.choice(sorted(kinds))])


def truncate(root: Path, rng: random.Random) -> str:
    """A file that ends early."""
    file = _pick(root, rng)
    data = file.read_bytes()
    file.write_bytes(data[: rng.randrange(max(1, len(data)))])
    return f"{file.name} truncated"


def zero_block(root: Path, rng: random.Random) -> str:
    """A block of zeros, as a failing disk leaves it."""
    file = _pick(root, rng)
    data = bytearray(file.read_bytes())
    first = rng.randrange(max(1, len(data)))
    size = min(rng.choice((64, 512, 4096)), len(data) - first)
    data[first : first + size] = bytes(size)
    file.write_bytes(data)
    return f"{file.name}: {size} bytes from {first} are zero"


def flip_bytes(root: Path, rng: random.Random) -> str:
    """One to twenty changed bytes."""
    file = _pick(root, rng)
    data = bytearray(file.read_bytes())
    places = [rng.randrange(len(data)) for _ in range(rng.randint(1, 20))] if data else []
    for place in places:
        data[place] ^= rng.randint(1, 255)
    file.write_bytes(data)
    return f"{file.name}: bytes {places} changed"


def replace_content(root: Path, rng: random.Random) -> str:
    """A file with other content: nothing, noise, a Git LFS pointer, a page of HTML."""
    file = _pick(root, rng)
    content = rng.choice((b"", rng.randbytes(500), _LFS.encode(), b"<html>404</html>"))
    file.write_bytes(content)
    return f"{file.name} replaced by {content[:12]!r}"


def remove(root: Path, rng: random.Random) -> str:
    """A missing file."""
    file = _pick(root, rng)
    file.unlink()
    return f"{file.name} removed"


def make_folder(root: Path, rng: random.Random) -> str:
    """A folder, or a dead link, where a file is expected."""
    file = _pick(root, rng)
    file.unlink()
    if rng.random() < 0.5:
        file.mkdir()
        return f"{file.name} is a folder"
    file.symlink_to(root / "nowhere")
    return f"{file.name} is a dead link"


def litter(root: Path, rng: random.Random) -> str | None:
    """Files that do not belong there: those of an operating system, and a copy."""
    if root.is_file():
        return None
    folder = rng.choice(sorted({f.parent for f in _files(root)}))
    (folder / "._x.json").write_bytes(b"\0\5\x16\7")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (folder / "notes.txt").write_text("recorded on Monday")
    return f"litter in {folder.name}"


def _places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(data, dict):
        return [p for k, v in data.items() for p in [(*at, k), *_places(v, (*at, k))]]
    if isinstance(data, list):
        return [p for k, v in enumerate(data) for p in [(*at, k), *_places(v, (*at, k))]]
    return []


def _change(data: Any, rng: random.Random) -> str:
    places = _places(data)
    if not places:
        return "nothing"
    place = rng.choice(places)
    parent = data
    for key in place[:-1]:
        parent = parent[key]
    if rng.random() < 0.4:
        del parent[place[-1]]
        return f"{place} deleted"
    text = isinstance(parent[place[-1]], str)  # no reader can know that a text is another one
    parent[place[-1]] = rng.choice([w for w in _WRONG if not (text and isinstance(w, str))])
    return f"{place} = {parent[place[-1]]!r}"


def metadata(root: Path, rng: random.Random) -> str | None:
    """A key of a description file that is missing or has an impossible value."""
    files = [f for f in _files(root) if f.suffix == ".json" and f.name != "steps.json"]
    lists = [f for f in _files(root) if f.suffix == ".jsonl"]
    if not files + lists:
        return None
    file = rng.choice(files + lists)
    if file in files:
        data = json.loads(file.read_text())
        what = _change(data, rng)
        file.write_text(json.dumps(data))
    else:
        lines = file.read_text().splitlines()
        number = rng.randrange(len(lines))
        row = json.loads(lines[number])
        what = f"line {number}: {_change(row, rng)}"
        lines[number] = json.dumps(row)
        file.write_text("\n".join(lines) + "\n")
    return f"{file.name}: {what}"


def rows(root: Path, rng: random.Random) -> str | None:
    """A row of a table that is missing, occurs twice, or has a cell without a number."""
    kinds = {".parquet": _parquet_row, ".csv": _csv_row, ".jsonl": _jsonl_row}
    files = [f for f in _files(root) if f.suffix in kinds]
    if not files:
        return None
    file = rng.choice(files)
    return f"{file.name}: {kinds[file.suffix](file, rng)}"


def _row_change(table: list[Any], rng: random.Random) -> str | None:
    place = rng.randrange(len(table))
    kind = rng.choice(("drop", "repeat", "swap", "cell"))
    if kind == "drop":
        del table[place]
    elif kind == "repeat":
        table.insert(place, table[place])
    elif kind == "swap":
        other = (place + 1) % len(table)
        table[place], table[other] = table[other], table[place]
    else:
        return None
    return f"row {place}: {kind}"


def _csv_row(file: Path, rng: random.Random) -> str:
    with file.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.reader(stream))
    body = lines[1:]
    if not (what := _row_change(body, rng)) or "swap" in what:  # order is all a CSV has
        place, column = rng.randrange(len(body)), rng.randrange(6)
        body[place][column] = rng.choice(("", "NaN", "x", "1,5", "inf"))
        what = f"cell {place}, {column} = {body[place][column]!r}"
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([lines[0], *body])
    return what


def _jsonl_row(file: Path, rng: random.Random) -> str:
    lines = file.read_text().splitlines()
    if not (what := _row_change(lines, rng)):
        place = rng.randrange(len(lines))
        lines[place] = lines[place][: len(lines[place]) // 2]
        what = f"line {place} cut"
    file.write_text("\n".join(lines) + "\n")
    return what


def _parquet_row(file: Path, rng: random.Random) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    data = table.to_pylist()
    if not (what := _row_change(data, rng)):
        place, column = rng.randrange(len(data)), rng.choice(table.column_names)
        cell = data[place][column]
        if isinstance(cell, list) and cell and isinstance(cell[0], float):
            data[place][column] = rng.choice(
                (None, [*cell[:-1], float("nan")], cell[:-1], [*cell, 0.0], [None, *cell[1:]])
            )
        else:
            data[place][column] = None
        what = f"{column} of row {place} = {data[place][column]!r}"
    fields = [
        pa.field(f.name, pa.list_(f.type.value_type) if pa.types.is_list(f.type) else f.type)
        for f in table.schema
    ]
    pq.write_table(pa.Table.from_pylist(data, schema=pa.schema(fields)), file)
    return what


KINDS: tuple[Corruption, ...] = (
    truncate,
    zero_block,
    flip_bytes,
    replace_content,
    remove,
    make_folder,
    litter,
    metadata,
    rows,
)


def corrupt(clean: Path, copy: Path, seed: int) -> str | None:
    """Copy a data set, apply the corruption of ``seed``, and say what it is.

    Returns None if the format has nothing of the drawn kind.
    """
    rng = random.Random(seed)
    if clean.is_dir():
        shutil.copytree(clean, copy)
    else:
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clean, copy)
    kind = rng.choice(KINDS)
    what = kind(copy, rng)
    return None if what is None else f"{kind.__name__}: {what}"
