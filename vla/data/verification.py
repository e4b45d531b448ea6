"""Checksums of packed files, compared once for each version of a file on this machine.

Files that were compared are remembered in the user's cache by size, times and inode. A new check
costs one pass of SHA-256, about one second per GB.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from hashlib import sha256 as digest
from pathlib import Path

from vla.data.manifest import Manifest, load_manifest
from vla.data.remote import as_folder, fetch, origin
from vla.errors import DataError
from vla.utils.io import sha256, write_json
from vla.utils.progress import Progress

# Bytes from which on the progress of the check is shown.
LARGE = 2_000_000_000
_FIX = "copy it again, or pack again with --force"


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare the shards, the index and the rows of a pack with the manifest.

    Raises:
        DataError: a file differs; the message names it.
    """
    known = _remembered(folder)
    expected = manifest.checksums()
    if origin(folder) is not None:  # shards are compared when they are copied
        expected = manifest.files
    new = {n: e for n, e in expected.items() if known.get(n) != _state(folder / n, e[1])}
    if not new:
        return
    total = sum(size for size, _ in new.values())
    with Progress(f"check {folder}", total >> 20, "MB", show=total >= LARGE) as progress:
        for name, (size, checksum) in new.items():
            problem = _problem(folder / name, size, checksum)
            if problem:
                raise DataError(f"{problem}; {_FIX}")
            progress.advance(size >> 20)
    remember(folder, manifest, new)


def verify(folder: str | Path) -> list[str]:
    """Compare all files with the manifest again; returns one line per damaged file."""
    folder = as_folder(folder)
    manifest = load_manifest(folder)
    for shard in manifest.shards:
        fetch(folder / shard.name)
    found = {n: _problem(folder / n, *e) for n, e in manifest.checksums().items()}
    remember(folder, manifest, [n for n, problem in found.items() if not problem])
    return [f"{problem}; {_FIX}" for problem in found.values() if problem]


def remember(folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
    """Store that files equal the manifest; nothing happens if the cache cannot be written."""
    expected = manifest.checksums()
    states = {name: _state(folder / name, expected[name][1]) for name in names}
    try:
        write_json(_cache(folder), _remembered(folder) | states)
    except (OSError, RuntimeError):  # no home, or a read-only one: every run compares the files
        return


def _problem(path: Path, size: int, checksum: str) -> str:
    """The damage of a file; empty: none."""
    try:
        found = path.stat().st_size
        if found != size:
            return f"{path}: damaged, {found} bytes, the manifest says {size}"
        return "" if sha256(path) == checksum else f"{path}: damaged, its checksum differs"
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror or error})"


def _state(path: Path, checksum: str) -> list[object]:
    """What changes whenever the file or its copy changes."""
    try:
        s = path.stat()
    except OSError:
        return []
    return [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, checksum]


def _cache(folder: Path) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "vla" / "checked" / f"{digest(os.fsencode(folder.resolve())).hexdigest()}.json"


def _remembered(folder: Path) -> dict[str, list[object]]:
    try:
        data = json.loads(_cache(folder).read_bytes())
    except (OSError, ValueError, RuntimeError):  # Path.home fails without a home
        return {}
    return data if isinstance(data, dict) else {}
