"""The target folder of ``vla pack``: a finished pack, an unfinished one, or none."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from vla.data.fingerprint import difference
from vla.data.manifest import NAME, Manifest, load_manifest
from vla.data.shard_writer import PARTS
from vla.errors import DataError
from vla.utils.io import write_json
from vla.utils.sealed import read_sealed
from vla.utils.text import count, flat

FILES = "source_files.json"  # states of the source's files, see ``vla.data.fingerprint``


def finished_pack(
    out: Path, plan: dict[str, Any], files: dict[str, str], force: bool, skip_bad: bool
) -> Manifest | None:
    """The manifest of a finished pack of this source; None: there is none, or ``force``.

    Raises:
        DataError: a finished pack of another source, with other settings, without bad samples
            that ``skip_bad`` would leave out, or of a data set that changed since.
    """
    if force or not (out / NAME).is_file():
        return None
    again = "pack again with --force, or choose another folder"
    try:
        manifest = load_manifest(out)
        before = read_sealed(out / FILES, 1, "pack again")["files"]
    except DataError as error:
        raise DataError(f"{error} with --force, or choose another folder") from error
    if manifest.quarantined and not skip_bad:
        raise DataError(
            f"{out}: packed without {count(manifest.quarantined, 'bad sample')}, see "
            "quarantine.json; keep it with --skip-bad, or pack again with --force"
        )
    if (manifest.identity, before) == (plan, files):
        return manifest
    same = {"val_fraction": plan["val_fraction"]}
    if (manifest.identity | same, before) == (plan, files):
        raise DataError(
            f"{out}: packed with val_fraction={manifest.identity['val_fraction']:g}; change the "
            f"split without packing: vla data split {out} --val-fraction {plan['val_fraction']:g}"
        )
    if manifest.identity != plan:
        raise DataError(
            f"{out}: has a data set that was packed from another source or with other settings "
            f"({_changes(manifest.identity, plan)}); {again}"
        )
    raise DataError(
        f"{out}: the source changed on disk since it was packed ({difference(before, files)}); "
        f"{again}"
    )


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings that differ, for a message."""
    old, new = flat(before), flat(now)
    keys = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    texts = [f"{k}: {old.get(k)!r}, now {new.get(k)!r}" for k in keys[:3]]
    return "; ".join(texts) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")


def prepare(out: Path, plan: dict[str, Any], files: dict[str, str]) -> Path:
    """The folder of notes. Shards of another pack are deleted; those of this one are kept."""
    plan = {key: value for key, value in plan.items() if key != "val_fraction"}
    parts = out / PARTS
    note = parts / "plan.json"
    try:
        before = json.loads(note.read_bytes())
    except (OSError, ValueError):
        before = None
    if before != {"plan": plan, "files": files}:
        (out / NAME).unlink(missing_ok=True)
        shards = [*out.glob("shard-*.tar")]
        if shards:
            print(
                f"{out}: {count(len(shards), 'shard')} of another source or other settings "
                "replaced",
                file=sys.stderr,
            )
        for path in (*shards, *out.glob("*.tmp")):
            path.unlink()
        shutil.rmtree(parts, ignore_errors=True)
        (out / "quarantine.json").unlink(missing_ok=True)
        write_json(note, {"plan": plan, "files": files})
    return parts


def is_written(shard: Path, parts: Path, skip_bad: bool) -> bool:
    """True if an earlier call finished the shard, without bad samples unless ``skip_bad``."""
    try:
        note = json.loads((parts / f"{shard.stem}.json").read_bytes())
        if note["bad"] and not skip_bad:
            return False
        if not note["rows"]:  # only bad samples
            return True
        return bool(shard.stat().st_size == note["bytes"])
    except (OSError, ValueError, KeyError):
        return False
