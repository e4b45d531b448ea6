"""``vla pack``: any source to shards and a manifest. Atomic, resumable; the result depends on the source alone, not on interruptions."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import webdataset as wds
from rich.progress import Progress

from vla.config import Slot, build, check, load_config, override
from vla.data.fleet import on_ray
from vla.data.manifest import NAME, DataError, load_manifest, merge, sha256, write_json
from vla.data.samples import check_episode, episode_to_sample, web_to_sample
from vla.hold import held
from vla.schema import ActionSpace, Episode, WebSample

_WORD = re.compile(r"\S+")


class Source(Protocol):
    """Anything that can be packed: ``len``, item ``i`` as an Episode or WebSample, and an action space (None for web data)."""

    action_space: ActionSpace | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Episode | WebSample: ...

    def describe(self) -> dict[str, Any]:
        """What identifies the source; a resumed pack must match it."""
        ...


def _texts(item: Episode | WebSample) -> Iterator[str]:
    if isinstance(item, WebSample):
        for qa in item.qa:
            yield qa.question
            yield qa.answer
    else:
        yield item.instruction
        yield from item.alternatives


def _write_shard(source: Source, first: int, last: int, path: Path, skip_bad: bool) -> None:
    """Write samples first..last-1 as one tar under a temporary name, rename, and note what was written (and what was bad) beside it."""
    words: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    actions, states, cameras, steps, samples = [], [], set(), 0, 0
    bad: list[dict[str, Any]] = []
    temporary = path.with_suffix(".tmp")
    with wds.TarWriter(str(temporary), encoder=False, mtime=0, user="vla", group="vla") as writer:
        for index in range(first, last):
            try:
                item = source[index]
                if isinstance(item, Episode):
                    assert source.action_space is not None
                    check_episode(item, source.action_space.dim)
            except ValueError as error:  # BadSample and DataError among them
                if not skip_bad:
                    raise
                bad.append({"index": index, "error": str(error)})
                continue
            samples += 1
            for text in _texts(item):
                words.update(_WORD.findall(text))
            if isinstance(item, Episode):
                actions.append(item.actions)
                states += [item.state] if item.state is not None else []
                cameras |= set(item.images)
                shown.update(item.info.get("art", []))
                steps += len(item.actions)
                writer.write(episode_to_sample(item))
            else:
                writer.write(web_to_sample(item))
    size, digest = temporary.stat().st_size, sha256(temporary)
    row = {"name": path.name, "samples": samples, "steps": steps, "bytes": size, "sha256": digest}
    part = path.parent / ".parts" / path.stem
    arrays: dict[str, Any] = {"actions": np.concatenate(actions)} if actions else {}
    arrays |= {"state": np.concatenate(states)} if states else {}
    for field, values in arrays.items():
        np.save(part.parent / f"{part.name}.{field}.npy", values, allow_pickle=False)  # whole before the part's .json is
    temporary.replace(path)
    write_json(
        part.with_suffix(".json"), {"row": row, "words": dict(words), "shown": dict(shown), "cameras": sorted(cameras), "bad": bad}
    )


def pack(
    source: Source, out: str | Path, shard_size: int = 200, val_fraction: float = 0.05, progress: bool = True, workers: int = 0,
    skip_bad: bool = False, max_bad: float = 0.1, ray: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write every sample of ``source`` under ``out``; finished shards are kept when an interrupted call is repeated.

    Args:
        shard_size: samples a shard. val_fraction: share of shards (evenly spread, at least one if there are two) kept for validation.
        workers: processes; 0: this one alone. ray: a Ray cluster instead, see ``vla.data.fleet``. The result depends on neither. skip_bad: leave bad samples out and list them in
        ``quarantine.json``; max_bad: the share of them above which the data set is refused all the same.

    Returns:
        The manifest.

    Raises:
        DataError: zero samples, ``out`` holds another source's shards, or too many samples are bad.
        Busy: another process packs into ``out``.
    """
    out, total = Path(out).absolute() if ray else Path(out), len(source)
    if total == 0:
        raise DataError(f"{out}: the source has zero episodes or samples; nothing to pack")
    identity = {"source": source.describe(), "shard_size": shard_size, "val_fraction": val_fraction, "samples": total}
    identity = json.loads(json.dumps(identity | ({"skip_bad": True} if skip_bad else {})))
    if (out / NAME).is_file():
        manifest = load_manifest(out)
        if manifest["identity"] != identity:
            raise DataError(f"{out}: already holds a data set packed from something else; choose another folder or delete this one")
        return manifest
    parts = out / ".parts"
    parts.mkdir(parents=True, exist_ok=True)
    starts = list(range(0, total, shard_size))
    names = [f"shard-{n:06d}" for n in range(len(starts))]
    jobs = [
        (source, first, min(first + shard_size, total), out / f"{name}.tar", skip_bad)
        for name, first in zip(names, starts, strict=True)
    ]
    with held(parts):
        plan = parts / "identity.json"
        if plan.is_file() and json.loads(plan.read_text(encoding="utf-8")) != identity:
            raise DataError(f"{out}: holds an unfinished pack of something else; choose another folder or delete this one")
        write_json(plan, identity)
        open_jobs = [j for j in jobs if not ((parts / f"{j[3].stem}.json").is_file() and j[3].is_file())]
        with Progress(*Progress.get_default_columns(), "{task.completed}/{task.total}", disable=not progress) as bar:
            task = bar.add_task(f"pack {out.name}", total=total, completed=total - sum(j[2] - j[1] for j in open_jobs))
            for job in on_ray(_write_shard, open_jobs, ray, workers) if ray else _done(open_jobs, workers):
                bar.advance(task, job[2] - job[1])
        manifest = merge(source, out, names, identity, val_fraction, max_bad)
        write_json(out / NAME, manifest)
        shutil.rmtree(parts)
    for leftover in out.glob("*.tmp"):
        leftover.unlink()
    return manifest


def _done(jobs: list[tuple[Any, ...]], workers: int) -> Iterator[tuple[Any, ...]]:
    """Each job once its shard is written, here or by ``workers`` processes."""
    if workers < 1:
        for job in jobs:
            _write_shard(*job)
            yield job
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_write_shard, *job): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True)
class PackConfig:
    """source: what to pack; shard_size: samples a shard; val_fraction: share of shards for validation."""

    source: Annotated[dict[str, Any], Slot("source")]
    shard_size: int = 200
    val_fraction: float = 0.05


def pack_from(
    source: Path, out: Path, overrides: list[str], workers: int = 0, skip_bad: bool = False, skip_missing: bool = False, max_bad: float = 0.1,
    ray: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """``vla pack``: SOURCE is a YAML that names a source, or a robot data set itself; read, validate, pack."""
    if source.suffix in (".yaml", ".yml"):
        data = load_config(source, overrides)
    else:
        mapping = {"source": {"name": "robot", "path": str(source)}, "shard_size": 20}
        data = override(mapping, overrides)
    if skip_missing and isinstance(data.get("source"), dict):
        data["source"]["skip_missing"] = True
    config = check(data, PackConfig, "")
    made = build("source", config.source)
    return pack(made, out, config.shard_size, config.val_fraction, True, workers, skip_bad, max_bad, ray)
