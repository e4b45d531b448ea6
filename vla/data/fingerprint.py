"""Names, sizes and times of a source's files, to notice that a data set changed on disk."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

# Files above which folders are recorded instead of files.
LISTED = 2000
# Files that mark the output of ``vla pack``, which may be inside the source's folder.
_PACKED = {"manifest.json", ".parts"}


def file_states(path: Path) -> dict[str, str]:
    """File or folder below ``path`` -> a short text that changes with its content.

    Only names, sizes and modification times are read. Hidden files are ignored. A folder stands
    for its files if there are many.
    """
    if path.is_file():
        return {path.name: _state(path.stat())}
    files: dict[str, str] = {}
    for root, folders, names in os.walk(path):
        if _PACKED & {*folders, *names}:
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(n for n in names if not n.startswith(".")):
            full = Path(root, name)
            try:
                files[full.relative_to(path).as_posix()] = _state(full.stat())
            except OSError:  # a broken link, or a file that another process deletes
                continue
    if len(files) <= LISTED:
        return files
    groups: dict[str, list[str]] = {}
    for name, state in files.items():
        groups.setdefault(f"{Path(name).parent.as_posix()}/", []).append(f"{name} {state}")
    return {name: f"{len(group)} files {_digest(group)}" for name, group in groups.items()}


def difference(before: dict[str, str], now: dict[str, str]) -> str:
    """What changed, for a message; empty: nothing."""
    kinds = {
        "changed": [n for n in now if n in before and now[n] != before[n]],
        "new": [n for n in now if n not in before],
        "missing": [n for n in before if n not in now],
    }
    texts = []
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            texts.append(f"{kind}: {', '.join(names[:3])}{more}")
    return "; ".join(texts)


def _digest(members: list[str]) -> str:
    return sha256("\n".join(members).encode(errors="backslashreplace")).hexdigest()[:16]


def _state(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns}"
