"""``vla pack``: write a source as shards and a manifest.

Packing is atomic and resumable. The result depends on the source alone, not on interruptions or
the number of processes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated, Any

from vla.config import Slot, build, check, check_ranges, load_config, override
from vla.data.manifest import Manifest
from vla.data.pack_folder import FILES, finished_pack, is_written, prepare
from vla.data.pack_workers import write_shards
from vla.data.ray_backend import on_ray
from vla.data.readers import detect_reader, open_reader
from vla.data.remote import address, open_target, upload
from vla.data.shard_writer import merge, write_shard
from vla.data.source import Source
from vla.data.verification import remember
from vla.data.web import detect, layouts
from vla.errors import DataError
from vla.utils.disk import writing
from vla.utils.locking import exclusive_lock
from vla.utils.progress import Progress
from vla.utils.sealed import write_sealed


def pack(
    source: Source,
    out: str | Path,
    shard_size: int = 200,
    val_fraction: float = 0.05,
    progress: bool = True,
    workers: int = 0,
    skip_bad: bool = False,
    max_bad: float = 0.1,
    ray: str | None = None,
    force: bool = False,
) -> Manifest:
    """Write every sample of ``source`` under ``out`` and return the manifest.

    A repeated call keeps the shards that are finished. An unfinished pack of another source or
    with other settings is replaced.

    Args:
        source: the samples.
        out: a folder; or an address, see ``vla.data.remote``: packed in the cache, then copied.
        shard_size: samples per shard.
        val_fraction: share of samples kept for validation, see ``vla.data.splits.make_split``.
        workers: processes; 0: only this one.
        skip_bad: leave bad samples out and list them in ``quarantine.json``.
        max_bad: share of bad samples above which packing fails in spite of ``skip_bad``.
        ray: address of a Ray cluster, see ``vla.data.ray_backend``; None: this machine.
        force: replace a finished pack.

    Raises:
        DataError: no samples, ``out`` has another finished pack, its source changed, too many
            samples are bad, or the folder cannot be written.
        BadSample: a sample is bad and ``skip_bad`` is False.
        FolderLocked: another process packs into ``out``.
    """
    url = address(out)
    if url is not None:
        options = (shard_size, val_fraction, progress, workers, skip_bad, max_bad, ray, force)
        folder = open_target(url)
        manifest = pack(source, folder, *options)
        upload(folder, url)
        return manifest
    out, total = Path(out).absolute() if ray else Path(out), len(source)
    if total == 0:
        raise DataError(f"{out}: the source has zero episodes or samples; nothing to pack")
    if shard_size < 1 or not 0 <= val_fraction <= 1:
        raise DataError(
            f"shard_size={shard_size} val_fraction={val_fraction:g}: expected a shard_size of at "
            "least 1 and a val_fraction from 0 to 1"
        )
    if source.bad and not skip_bad:
        raise DataError(next(iter(source.bad.values())))
    plan: dict[str, Any] = {
        "source": source.describe(),
        "shard_size": shard_size,
        "val_fraction": val_fraction,
        "samples": total,
    }
    plan = json.loads(json.dumps(plan))
    files = source.files()
    finished = finished_pack(out, plan, files, force, skip_bad)
    if finished is not None:
        return finished
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(out):
            # Another process may have packed it in the meantime.
            finished = finished_pack(out, plan, files, force, skip_bad)
            if finished is not None:
                return finished
            parts = prepare(out, plan, files)
            names = [f"shard-{n:06d}" for n in range(-(-total // shard_size))]
            jobs = [
                (source, k * shard_size, min((k + 1) * shard_size, total), out / f"{name}.tar")
                for k, name in enumerate(names)
            ]
            todo = [(*j, skip_bad) for j in jobs if not is_written(j[3], parts, skip_bad)]
            left = sum(j[2] - j[1] for j in todo)
            unit = "samples" if source.action_space is None else "episodes"
            with Progress(f"pack {out}", total, unit, total - left, progress) as bar:
                if ray:
                    for job in on_ray(write_shard, todo, ray, workers):
                        bar.advance(job[2] - job[1])
                else:
                    write_shards(todo, workers, bar.advance)
            manifest = merge(source, out, names, plan, max_bad)
            write_sealed(out / FILES, {"version": 1, "files": files})
            manifest.save(out)
            shutil.rmtree(parts)
            written = {j[3].name for j in todo}
            remember(out, manifest, [s.name for s in manifest.shards if s.name in written])
    return manifest


@dataclass(frozen=True)
class PackConfig:
    """What ``vla pack`` writes."""

    # The source of the episodes or web samples.
    source: Annotated[dict[str, Any], Slot("source")]
    shard_size: int = 200  # samples per shard, at least 1
    val_fraction: float = 0.05  # share of samples kept for validation, 0 to 1

    def __post_init__(self) -> None:
        check_ranges(self, shard_size=(1, inf), val_fraction=(0, 1))


def source_name(path: Path, options: dict[str, Any]) -> str:
    """The source that reads the data set at ``path``: ``robot``, or ``web_data`` for image texts.

    Raises:
        DataError: no such path, or neither robot data nor image-text data.
    """
    if not {"format", "images"}.isdisjoint(options):
        return "web_data"
    if detect_reader(path) is not None:
        return "robot"
    if detect(path):
        return "web_data"
    try:
        open_reader(path)
    except DataError as error:
        raise DataError(f"{error}; or image-text data: {layouts()}") from error
    return "robot"


def pack_from(
    source: Path,
    out: Path,
    overrides: list[str],
    workers: int = 0,
    skip_bad: bool = False,
    skip_missing: bool = False,
    max_bad: float = 0.1,
    ray: str | None = None,
    force: bool = False,
) -> Manifest:
    """``vla pack``: pack a data set, or the source that a YAML file describes.

    Args:
        source: robot data or image-text data, or a YAML file with a ``PackConfig``.
        skip_missing: pack the available part of an incomplete download.
    """
    if source.suffix in (".yaml", ".yml"):
        data = load_config(source, overrides)
    else:
        data = override({"source": {"path": str(source)}}, overrides)
        options = data["source"]
        if isinstance(options, dict):
            if "name" not in options:
                options["name"] = source_name(source, options)
            data.setdefault("shard_size", 20 if options["name"] == "robot" else 200)
    if skip_missing and isinstance(data.get("source"), dict):
        data["source"]["skip_missing"] = True
    config = check(data, PackConfig, "")
    built = build("source", config.source)
    size, fraction = config.shard_size, config.val_fraction
    return pack(built, out, size, fraction, True, workers, skip_bad, max_bad, ray, force)
