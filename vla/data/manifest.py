"""``manifest.json``: what a folder of shards holds, with checksums and pooled statistics. The readers trust only this file."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from vla.schema import ActionSpace

VERSION = 1
NAME = "manifest.json"


class DataError(ValueError):
    """Bad data on disk; the message names the path, what was expected and the fix."""


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


def statistics(values: np.ndarray) -> dict[str, Any]:
    """True pooled statistics per column of (T, A): min, q01, q99, max, mean, std, and (257, A) quantiles at even levels."""
    values = values.astype(np.float64)
    q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
    rows = {"min": values.min(0), "q01": q01, "q99": q99, "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    grid = np.quantile(values, np.linspace(0, 1, LEVELS), axis=0)
    return {k: _short(row) for k, row in rows.items()} | {"quantiles": [_short(row) for row in grid]}


def _short(row: np.ndarray) -> list[float]:
    return [float(f"{v:.9g}") for v in row]


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
