"""``vla pack``: any source to shards and a manifest. Atomic, resumable; the result depends on the source alone, not on interruptions."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import webdataset as wds
from rich.progress import Progress

from vla.config import Slot, build, load_config
from vla.data.manifest import NAME, VERSION, DataError, load_manifest, sha256, statistics, write_json
from vla.data.samples import check_episode, episode_to_sample, web_to_sample
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


def _write_shard(source: Source, first: int, last: int, path: Path, advance: Any) -> dict[str, Any]:
    """Write samples first..last-1 as one tar under a temporary name, rename, and return its row."""
    words: Counter[str] = Counter()
    actions, states, cameras, steps = [], [], set(), 0
    temporary = path.with_suffix(".tmp")
    with wds.TarWriter(str(temporary), encoder=False, mtime=0, user="vla", group="vla") as writer:
        for index in range(first, last):
            item = source[index]
            for text in _texts(item):
                words.update(_WORD.findall(text))
            if isinstance(item, Episode):
                assert source.action_space is not None
                check_episode(item, source.action_space.dim)
                actions.append(item.actions)
                states += [item.state] if item.state is not None else []
                cameras |= set(item.images)
                steps += len(item.actions)
                writer.write(episode_to_sample(item))
            else:
                writer.write(web_to_sample(item))
            advance(1)
    row = {
        "name": path.name,
        "samples": last - first,
        "steps": steps,
        "bytes": temporary.stat().st_size,
        "sha256": sha256(temporary),
    }
    part = path.parent / ".parts" / path.stem
    arrays: dict[str, Any] = {"actions": np.concatenate(actions)} if actions else {}
    arrays |= {"state": np.concatenate(states)} if states else {}
    with part.with_suffix(".npz.tmp").open("wb") as file:
        np.savez(file, **arrays)
    part.with_suffix(".npz.tmp").replace(part.with_suffix(".npz"))
    temporary.replace(path)
    write_json(part.with_suffix(".json"), {"row": row, "words": dict(words), "cameras": sorted(cameras)})
    return row


def pack(
    source: Source, out: str | Path, shard_size: int = 200, val_fraction: float = 0.05, progress: bool = True
) -> dict[str, Any]:
    """Write every sample of ``source`` under ``out``; finished shards are kept when an interrupted call is repeated.

    Args:
        shard_size: samples a shard. val_fraction: share of shards (evenly spread, at least one if there are two) kept for validation.

    Returns:
        The manifest.

    Raises:
        DataError: zero samples, or ``out`` holds another source's shards.
    """
    out, total = Path(out), len(source)
    if total == 0:
        raise DataError(f"{out}: the source has zero episodes or samples; nothing to pack")
    identity = {"source": source.describe(), "shard_size": shard_size, "val_fraction": val_fraction, "samples": total}
    identity = json.loads(json.dumps(identity))
    parts = out / ".parts"
    if (out / NAME).is_file():
        manifest = load_manifest(out)
        if manifest["identity"] != identity:
            raise DataError(f"{out}: already holds a data set packed from something else; choose another folder or delete this one")
        return manifest
    parts.mkdir(parents=True, exist_ok=True)
    plan = parts / "identity.json"
    if plan.is_file() and json.loads(plan.read_text(encoding="utf-8")) != identity:
        raise DataError(f"{out}: holds an unfinished pack of something else; choose another folder or delete this one")
    write_json(plan, identity)
    starts = list(range(0, total, shard_size))
    names = [f"shard-{n:06d}" for n in range(len(starts))]
    with Progress(*Progress.get_default_columns(), "{task.completed}/{task.total}", disable=not progress) as bar:
        job = bar.add_task(f"pack {out.name}", total=total)
        for name, first in zip(names, starts, strict=True):
            last = min(first + shard_size, total)
            if (parts / f"{name}.json").is_file() and (out / f"{name}.tar").is_file():
                bar.advance(job, last - first)
            else:
                _write_shard(source, first, last, out / f"{name}.tar", lambda n: bar.advance(job, n))
    manifest = _merge(source, out, names, identity, val_fraction)
    write_json(out / NAME, manifest)
    shutil.rmtree(parts)
    for leftover in out.glob("*.tmp"):
        leftover.unlink()
    return manifest


def _merge(source: Source, out: Path, names: list[str], identity: dict[str, Any], val_fraction: float) -> dict[str, Any]:
    """The manifest from the shards' parts."""
    rows: list[dict[str, Any]] = []
    words: Counter[str] = Counter()
    cameras: set[str] = set()
    pools: dict[str, list[np.ndarray]] = {}
    for name in names:
        part = json.loads((out / ".parts" / f"{name}.json").read_text(encoding="utf-8"))
        rows.append(part["row"])
        words.update(part["words"])
        cameras |= set(part["cameras"])
        with np.load(out / ".parts" / f"{name}.npz", allow_pickle=False) as arrays:
            for field in arrays.files:
                pools.setdefault(field, []).append(arrays[field])
    n_val = max(1, round(len(names) * val_fraction)) if len(names) > 1 and val_fraction > 0 else 0
    every = len(names) // n_val if n_val else 0
    val = {names[every * k + every - 1] + ".tar" for k in range(n_val)}
    return {
        "version": VERSION,
        "kind": "web" if source.action_space is None else "episode",
        "identity": identity,
        "shards": rows,
        "splits": {"train": [r["name"] for r in rows if r["name"] not in val], "val": sorted(val)},
        "samples": sum(r["samples"] for r in rows),
        "steps": sum(r["steps"] for r in rows),
        "cameras": sorted(cameras),
        "action_space": source.action_space.to_dict() if source.action_space else None,
        "statistics": {field: statistics(np.concatenate(pool)) for field, pool in sorted(pools.items())},
        "words": dict(sorted(words.items())),
    }


@dataclass(frozen=True)
class PackConfig:
    """source: what to pack; shard_size: samples a shard; val_fraction: share of shards for validation."""

    source: Annotated[dict[str, Any], Slot("source")]
    shard_size: int = 200
    val_fraction: float = 0.05


def pack_from_file(path: str | Path, out: str | Path, overrides: list[str], progress: bool = True) -> dict[str, Any]:
    """``vla pack``: read, validate, pack."""
    config = load_config(path, overrides, PackConfig)
    return pack(build("source", config.source), out, config.shard_size, config.val_fraction, progress)
