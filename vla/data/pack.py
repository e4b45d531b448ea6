"""``vla pack``: write a source as shards and a manifest.

Packing is atomic and resumable. The result depends on the source alone, not on interruptions or
the number of processes.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.progress import Progress

from vla.config import Slot, build, check, load_config, override
from vla.data.manifest import NAME, Manifest, load_manifest
from vla.data.ray_backend import on_ray
from vla.data.shard_writer import merge, write_shard
from vla.data.source import Source
from vla.errors import DataError
from vla.utils.io import write_json
from vla.utils.locking import exclusive_lock


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
) -> Manifest:
    """Write every sample of ``source`` under ``out`` and return the manifest.

    A repeated call keeps the shards that are finished.

    Args:
        shard_size: samples per shard.
        val_fraction: share of shards kept for validation, evenly spread; at least one shard if
            there are two.
        workers: processes; 0: only this one.
        skip_bad: leave bad samples out and list them in ``quarantine.json``.
        max_bad: share of bad samples above which packing fails in spite of ``skip_bad``.
        ray: address of a Ray cluster, see ``vla.data.ray_backend``; None: this machine.

    Raises:
        DataError: no samples, ``out`` has another source's shards, or too many samples are bad.
        FolderLocked: another process packs into ``out``.
    """
    out, total = Path(out).absolute() if ray else Path(out), len(source)
    if total == 0:
        raise DataError(f"{out}: the source has zero episodes or samples; nothing to pack")
    identity = {
        "source": source.describe(),
        "shard_size": shard_size,
        "val_fraction": val_fraction,
        "samples": total,
    }
    identity = json.loads(json.dumps(identity | ({"skip_bad": True} if skip_bad else {})))
    if (out / NAME).is_file():
        manifest = load_manifest(out)
        if manifest.identity != identity:
            raise DataError(
                f"{out}: has a data set that was packed from another source or with other "
                "settings; choose another folder or delete this one"
            )
        return manifest
    parts = out / ".parts"
    parts.mkdir(parents=True, exist_ok=True)
    starts = list(range(0, total, shard_size))
    names = [f"shard-{n:06d}" for n in range(len(starts))]
    jobs = [
        (source, first, min(first + shard_size, total), out / f"{name}.tar", skip_bad)
        for name, first in zip(names, starts, strict=True)
    ]
    with exclusive_lock(parts):
        plan = parts / "identity.json"
        if plan.is_file() and json.loads(plan.read_text(encoding="utf-8")) != identity:
            raise DataError(
                f"{out}: has an unfinished pack of another source or with other settings; "
                "choose another folder or delete this one"
            )
        write_json(plan, identity)
        todo = [j for j in jobs if not ((parts / f"{j[3].stem}.json").is_file() and j[3].is_file())]
        columns: tuple[Any, ...] = (
            *Progress.get_default_columns(),
            "{task.completed}/{task.total}",
        )
        with Progress(*columns, disable=not progress) as bar:
            left = sum(j[2] - j[1] for j in todo)
            task = bar.add_task(f"pack {out.name}", total=total, completed=total - left)
            done = on_ray(write_shard, todo, ray, workers) if ray else _run(todo, workers)
            for job in done:
                bar.advance(task, job[2] - job[1])
        manifest = merge(source, out, names, identity, val_fraction, max_bad)
        manifest.save(out)
        shutil.rmtree(parts)
    for leftover in out.glob("*.tmp"):
        leftover.unlink()
    return manifest


def _run(jobs: list[tuple[Any, ...]], workers: int) -> Iterator[tuple[Any, ...]]:
    """Write shards in this process or in ``workers`` processes; yields each finished job."""
    if workers < 1:
        for job in jobs:
            write_shard(*job)
            yield job
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(write_shard, *job): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True)
class PackConfig:
    """What ``vla pack`` writes."""

    # The source of the episodes or web samples.
    source: Annotated[dict[str, Any], Slot("source")]
    shard_size: int = 200  # samples per shard, at least 1
    val_fraction: float = 0.05  # share of shards kept for validation, 0 to 1


def pack_from(
    source: Path,
    out: Path,
    overrides: list[str],
    workers: int = 0,
    skip_bad: bool = False,
    skip_missing: bool = False,
    max_bad: float = 0.1,
    ray: str | None = None,
) -> Manifest:
    """``vla pack``: pack a robot data set, or the source that a YAML file describes.

    Args:
        source: folder of a robot data set, or a YAML file with a ``PackConfig``.
        skip_missing: pack the available part of an incomplete download.
    """
    if source.suffix in (".yaml", ".yml"):
        data = load_config(source, overrides)
    else:
        mapping = {"source": {"name": "robot", "path": str(source)}, "shard_size": 20}
        data = override(mapping, overrides)
    if skip_missing and isinstance(data.get("source"), dict):
        data["source"]["skip_missing"] = True
    config = check(data, PackConfig, "")
    built = build("source", config.source)
    return pack(
        built, out, config.shard_size, config.val_fraction, True, workers, skip_bad, max_bad, ray
    )
