"""Corrupted data sets end in right data, a quarantine or one line; never in silence."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corruptions import corrupt
from formats import FORMATS, write_format

from vla.data.pack import pack_from

LENGTHS = (5, 8, 6, 7, 4, 9)
FILE_PER_EPISODE = ("aloha", "ros")
CORRUPTIONS = 25  # of each format
# Bytes that no reader can check: arrays and texts that are stored without a checksum.
UNCHECKED = (".hdf5", ".csv", ".txt", ".json")
BYTE_CHANGES = ("flip_bytes", "zero_block", "truncate")
OPTIONS = ["source.mapping.size=32", "source.mapping.fps=10", "shard_size=2"]


def episodes(folder: Path) -> dict[str, dict[str, Any]]:
    """Original key -> texts, arrays and a digest of the images of every packed episode."""
    found: dict[str, dict[str, Any]] = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        for name, data in members.items():
            if not name.endswith(".json"):
                continue
            key, meta = name.removesuffix(".json"), json.loads(data)
            arrays = np.load(io.BytesIO(members[f"{key}.steps.npz"]), allow_pickle=False)
            images = [
                v
                for n, v in sorted(members.items())
                if n.startswith(f"{key}.") and n.endswith(".mjpeg")
            ]
            found[meta["key"]] = {
                "texts": (meta["instruction"], meta["plans"]),
                "arrays": {n: arrays[n].tolist() for n in ("actions", "state") if n in arrays},
                "images": hashlib.sha256(b"".join(images)).hexdigest(),
            }
    return found


def outcome(raw: Path, out: Path, clean: dict[str, dict[str, Any]]) -> str:
    """One word for what packing made of the data set: right, quarantine, line or silent."""
    try:
        manifest = pack_from(raw, out, OPTIONS, skip_bad=True, max_bad=0.9)
    except (ValueError, OSError) as error:  # what the command line reports in one line
        message = str(error)
        assert str(raw) in message or str(out) in message, f"no path in {message!r}"
        return "line"
    packed = episodes(out)
    differing = [k for k in packed if packed[k] != clean.get(k)]
    if differing:
        key = differing[0]
        changed = [n for n in packed[key] if packed[key][n] != clean.get(key, {}).get(n)]
        return f"silent: episode {key!r} differs in {', '.join(changed)}"
    lost = len(clean) - len(packed)
    if lost and manifest.quarantined < lost and not manifest.notes:
        return f"silent: {lost} episodes are gone, {manifest.quarantined} are quarantined"
    return "quarantine" if lost else "right"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_no_corruption_is_silent(name: str, tmp_path: Path) -> None:
    raw = write_format(name, tmp_path / "raw" / "d", LENGTHS)
    pack_from(raw, tmp_path / "clean", OPTIONS)
    clean = episodes(tmp_path / "clean")
    assert len(clean) == len(LENGTHS)
    wrong = []
    for seed in range(CORRUPTIONS):
        copy = tmp_path / f"case{seed}"
        what = corrupt(raw, copy, seed)
        if what is None:
            continue
        try:
            result = outcome(copy, tmp_path / f"out{seed}", clean)
        except Exception as error:  # a traceback for the user
            result = f"traceback: {type(error).__name__}: {error}"
        kind, _, place = what.partition(": ")
        unchecked = kind in BYTE_CHANGES and any(
            f"{s}:" in place or f"{s} " in place for s in UNCHECKED
        )
        if result.startswith("silent: episode") and unchecked:
            continue
        if name in FILE_PER_EPISODE and what.startswith("remove"):
            continue  # nobody knows that there was one more
        if result.startswith(("silent", "traceback")):
            wrong.append(f"seed {seed}, {what}: {result}")
    assert not wrong, "\n".join(wrong)
