"""One shard of a pack, and the merge of all shards' notes into the manifest."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds

from vla.data.manifest import Manifest, Shard
from vla.data.samples import check_episode, episode_to_sample, web_to_sample
from vla.data.source import Source
from vla.data.statistics import column_statistics, concatenate, with_data_bounds
from vla.errors import DataError
from vla.types import Episode, WebSample
from vla.utils.io import sha256, write_json

_WORD = re.compile(r"\S+")


def _texts(item: Episode | WebSample) -> Iterator[str]:
    if isinstance(item, WebSample):
        for qa in item.qa:
            yield qa.question
            yield qa.answer
    else:
        yield item.instruction
        yield from item.alternatives


def write_shard(source: Source, first: int, last: int, path: Path, skip_bad: bool) -> None:
    """Write samples ``first`` to ``last - 1`` as one tar, and a note beside it.

    The tar is complete before it gets its name. The note ``.parts/<shard>.json`` has its size,
    checksum, words, tags, cameras and bad samples; arrays for the statistics are ``.npy`` files.
    """
    words: Counter[str] = Counter()
    tags: Counter[str] = Counter()
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
            except ValueError as error:  # includes BadSample and DataError
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
                tags.update(item.info.get("tags", []))
                steps += len(item.actions)
                writer.write(episode_to_sample(item))
            else:
                writer.write(web_to_sample(item))
    size, digest = temporary.stat().st_size, sha256(temporary)
    part = path.parent / ".parts" / path.stem
    for field, values in {"actions": actions, "state": states}.items():
        if values:  # complete before the note is written
            np.save(f"{part}.{field}.npy", np.concatenate(values), allow_pickle=False)
    temporary.replace(path)
    note = {
        "shard": {
            "name": path.name,
            "samples": samples,
            "steps": steps,
            "bytes": size,
            "sha256": digest,
        },
        "words": dict(words),
        "tags": dict(tags),
        "cameras": sorted(cameras),
        "bad": bad,
    }
    write_json(part.with_suffix(".json"), note)


def merge(
    source: Source,
    out: Path,
    names: list[str],
    identity: dict[str, Any],
    val_fraction: float,
    max_bad: float,
) -> Manifest:
    """The manifest from the shards' notes; bad samples are listed in ``quarantine.json``.

    Raises:
        DataError: more than the share ``max_bad`` of the samples is bad, or all are.
    """
    shards: list[Shard] = []
    words: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    cameras: set[str] = set()
    bad: list[dict[str, Any]] = []
    arrays: dict[str, list[Path]] = {}
    parts = out / ".parts"
    for name in names:
        note = json.loads((parts / f"{name}.json").read_text(encoding="utf-8"))
        shards.append(Shard(**note["shard"]))
        words.update(note["words"])
        tags.update(note["tags"])
        cameras |= set(note["cameras"])
        bad += note["bad"]
        for field in ("actions", "state"):
            if (parts / f"{name}.{field}.npy").is_file():
                arrays.setdefault(field, []).append(parts / f"{name}.{field}.npy")
    if bad:
        write_json(out / "quarantine.json", bad)
        total = identity["samples"]
        if len(bad) > max_bad * total or len(bad) == total:
            raise DataError(
                f"{out / 'quarantine.json'}: {len(bad)} of {total} samples are bad, "
                f"more than --max-bad {max_bad:g}; first: {bad[0]['error']}"
            )
    shards = [s for s in shards if s.samples]
    statistics = {field: column_statistics(files) for field, files in sorted(arrays.items())}
    for field, files in arrays.items():
        concatenate(files, out / f"{field}.npy")
    space = source.action_space
    manifest = Manifest(
        kind="web" if space is None else "episode",
        identity=identity,
        shards=tuple(shards),
        splits=_splits([s.name for s in shards], val_fraction),
        samples=sum(s.samples for s in shards),
        steps=sum(s.steps for s in shards),
        quarantined=len(bad),
        cameras=tuple(sorted(cameras)),
        image_size=source.image_size,
        action_space=None if space is None else with_data_bounds(space, statistics["actions"]),
        state_names=tuple(source.state_names),
        delta=tuple(source.delta),
        statistics=statistics,
        words=dict(sorted(words.items())),
        tags=dict(sorted(tags.items())),
        benchmark=source.benchmark(),
    )
    return Manifest.from_dict(manifest.to_dict())  # equal to what ``load_manifest`` returns


def _splits(names: list[str], val_fraction: float) -> dict[str, list[str]]:
    """Evenly spread validation shards; at least one if there are two shards."""
    n_val = max(1, round(len(names) * val_fraction)) if len(names) > 1 and val_fraction > 0 else 0
    every = len(names) // n_val if n_val else 0
    val = {names[every * k + every - 1] for k in range(n_val)}
    return {"train": [n for n in names if n not in val], "val": sorted(val)}
