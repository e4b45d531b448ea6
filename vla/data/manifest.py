"""``manifest.json``: what a folder of shards holds, with checksums and pooled statistics. The readers trust only this file."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.schema import ActionSpace

VERSION = 1
NAME = "manifest.json"


class DataError(ValueError):
    """Bad data on disk; the message names the path, what was expected and the fix."""


class BadSample(ValueError):
    """A sample that must not be packed or trained on; the message names it, what was expected and the fix."""


def write_json(path: Path, data: Any) -> None:
    """Write whole or not at all: temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=1, ensure_ascii=False, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


LEVELS = 257  # quantiles kept: a 256-bin codec's edges


def statistics(parts: Sequence[Path]) -> dict[str, Any]:
    """True pooled statistics per column of (T, A) arrays in files: min, q01, q99, max, mean, std, and (257, A) quantiles at even levels.

    One column is in memory at a time, so that a large data set needs little more than a small one.
    """
    width = int(np.load(parts[0], mmap_mode="r").shape[1])
    rows: dict[str, list[float]] = {k: [] for k in ("min", "q01", "q99", "max", "mean", "std")}
    grid = []
    for k in range(width):
        column = np.concatenate([np.load(p, mmap_mode="r")[:, k] for p in parts]).astype(np.float64)
        column.sort()
        q01, q99 = np.quantile(column, [0.01, 0.99])
        figures = (column[0], q01, q99, column[-1], column.mean(), column.std())
        for name, value in zip(rows, figures, strict=True):
            rows[name].append(float(f"{value:.9g}"))
        grid.append([float(f"{v:.9g}") for v in np.quantile(column, np.linspace(0, 1, LEVELS))])
    return {**rows, "quantiles": [list(level) for level in zip(*grid, strict=True)]}


def merge(
    source: Any, out: Path, names: list[str], identity: dict[str, Any], val_fraction: float, max_bad: float
) -> dict[str, Any]:
    """The manifest from the shards' parts; bad samples are listed in ``quarantine.json``.

    Raises:
        DataError: more than ``max_bad`` of the samples are bad, or all.
    """
    rows: list[dict[str, Any]] = []
    words: Counter[str] = Counter()
    shown: Counter[str] = Counter()  # pictures on the tabletop, as concept:style
    cameras: set[str] = set()
    bad: list[dict[str, Any]] = []
    pools: dict[str, list[Path]] = {}
    for name in names:
        part = json.loads((out / ".parts" / f"{name}.json").read_text(encoding="utf-8"))
        rows.append(part["row"])
        words.update(part["words"])
        shown.update(part["shown"])
        cameras |= set(part["cameras"])
        bad += part["bad"]
        for field in ("actions", "state"):
            if (out / ".parts" / f"{name}.{field}.npy").is_file():
                pools.setdefault(field, []).append(out / ".parts" / f"{name}.{field}.npy")
    if bad:
        write_json(out / "quarantine.json", bad)
        total = identity["samples"]
        if len(bad) > max_bad * total or len(bad) == total:
            raise DataError(
                f"{out / 'quarantine.json'}: {len(bad)} of {total} samples are bad, more than --max-bad {max_bad:g}; first: {bad[0]['error']}"
            )
    rows = [r for r in rows if r["samples"]]
    n_val = max(1, round(len(rows) * val_fraction)) if len(rows) > 1 and val_fraction > 0 else 0
    every = len(rows) // n_val if n_val else 0
    val = {rows[every * k + every - 1]["name"] for k in range(n_val)}
    found = {field: statistics(pool) for field, pool in sorted(pools.items())}
    for field, pool in pools.items():
        join(pool, out / f"{field}.npy")
    return {
        "version": VERSION,
        "kind": "web" if source.action_space is None else "episode",
        "identity": identity,
        "shards": rows,
        "splits": {"train": [r["name"] for r in rows if r["name"] not in val], "val": sorted(val)},
        "samples": sum(r["samples"] for r in rows),
        "quarantined": len(bad),
        "steps": sum(r["steps"] for r in rows),
        "cameras": sorted(cameras),
        "action_space": bounded(source.action_space, found["actions"]).to_dict() if source.action_space else None,
        "statistics": found,
        "words": dict(sorted(words.items())),
        "shown": dict(sorted(shown.items())),
    }


def join(parts: Sequence[Path], out: Path) -> None:
    """Arrays (T, A) in files, one behind the other in one file: what data sets are pooled from later."""
    arrays = [np.load(p, mmap_mode="r") for p in parts]
    shape = (sum(len(a) for a in arrays), arrays[0].shape[1])
    temporary = out.with_suffix(".npy.tmp")
    whole = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
    first = 0
    for array in arrays:
        whole[first : first + len(array)] = array
        first += len(array)
    whole.flush()
    temporary.replace(out)


def pooled(directories: Sequence[str | Path]) -> dict[str, Any]:
    """Statistics of one data set as its manifest has them, or true pooled ones of several.

    Raises:
        DataError: several, and one was packed before its numbers were kept.
    """
    if len(directories) == 1:
        return load_manifest(directories[0])["statistics"]
    found = {}
    for field in load_manifest(directories[0])["statistics"]:
        files = [Path(d) / f"{field}.npy" for d in directories]
        missing = [f for f in files if not f.is_file()]
        if missing:
            raise DataError(f"{missing[0]}: missing, so its statistics cannot be pooled; pack this data set again")
        found[field] = statistics(files)
    return found


def widest(spaces: Sequence[ActionSpace]) -> ActionSpace:
    """The first space with bounds that hold all of them."""
    low = tuple(min(column) for column in zip(*(s.low for s in spaces), strict=True))
    high = tuple(max(column) for column in zip(*(s.high for s in spaces), strict=True))
    return replace(spaces[0], low=low, high=high)


def bounded(space: ActionSpace, seen: dict[str, Any]) -> ActionSpace:
    """An action space whose open bounds are those of the data (a dim that never moves gets a little room)."""
    low = [a if math.isfinite(a) else b for a, b in zip(space.low, seen["min"], strict=True)]
    high = [a if math.isfinite(a) else b for a, b in zip(space.high, seen["max"], strict=True)]
    room = [0.0 if a < b else max(1e-3, abs(a) * 1e-3) for a, b in zip(low, high, strict=True)]
    low, high = [a - r for a, r in zip(low, room, strict=True)], [b + r for b, r in zip(high, room, strict=True)]
    return replace(space, low=tuple(low), high=tuple(high))


def load_manifest(directory: str | Path) -> dict[str, Any]:
    """Read and check a manifest.

    Raises:
        DataError: no such folder, no manifest (packing did not finish), wrong version, zero samples, or a shard is missing.
    """
    directory = Path(directory)
    path = directory / NAME
    if not directory.is_dir():
        raise DataError(f"{directory}: no such data folder; make it with `vla pack`")
    if not path.is_file():
        raise DataError(f"{path}: missing, so packing did not finish; run the same `vla pack` again to resume it")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); pack the data again") from error
    if manifest.get("version") != VERSION:
        raise DataError(f"{path}: version {manifest.get('version')!r}, this program reads {VERSION}; pack the data again")
    if not manifest["shards"] or sum(s["samples"] for s in manifest["shards"]) == 0:
        raise DataError(f"{path}: zero samples; check the source and pack again")
    for shard in manifest["shards"]:
        if not (directory / shard["name"]).is_file():
            raise DataError(f"{directory / shard['name']}: shard is missing but listed in {path}; copy it back or pack again")
    return manifest


def action_space(manifest: dict[str, Any]) -> ActionSpace | None:
    """The robot's action space, or None for web data."""
    return ActionSpace.from_dict(manifest["action_space"]) if manifest.get("action_space") else None


def verify(directory: str | Path) -> list[str]:
    """Compare every shard with its checksum.

    Returns:
        One line a damaged shard; empty when all is whole.
    """
    directory = Path(directory)
    manifest = load_manifest(directory)
    problems = []
    for shard in manifest["shards"]:
        path = directory / shard["name"]
        size = path.stat().st_size
        if size != shard["bytes"]:
            problems.append(f"{path}: {size} bytes, the manifest says {shard['bytes']}; copy the shard again")
        elif sha256(path) != shard["sha256"]:
            problems.append(f"{path}: checksum differs from the manifest; copy the shard again")
    return problems
