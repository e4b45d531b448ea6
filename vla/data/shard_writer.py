"""One shard of a pack, and the merge of all shards' notes into the manifest."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds

from vla.data import index
from vla.data.index import SampleRow, write_index
from vla.data.manifest import Manifest, Shard
from vla.data.quarantine import load_sample, quarantine_row
from vla.data.row_texts import label_counts, label_notes
from vla.data.source import Source
from vla.data.splits import make_split, save_split
from vla.data.statistics import column_statistics, concatenate, with_data_bounds
from vla.errors import BadSample, DataError
from vla.types import Episode, WebSample
from vla.utils.io import sha256, write_json

PARTS = ".parts"  # folder of the notes of an unfinished pack
_WORD = re.compile(r"\S+")


def _texts(item: Episode | WebSample) -> Iterator[str]:
    if isinstance(item, WebSample):
        for qa in item.qa:
            yield qa.question
            yield qa.answer
    else:
        yield from dict.fromkeys(item.instructions) or [item.instruction]
        yield from item.alternatives


def _longest(item: Episode | WebSample) -> str:
    """The longest text that a decoder reads at once, with the earlier turns of a conversation."""
    if isinstance(item, Episode):
        return max(_texts(item), key=len)
    pairs = [[*chain(*qa.turns), qa.question, qa.answer] for qa in item.qa]
    return max((" ".join(pair) for pair in pairs), key=len, default="")


def write_shard(
    source: Source,
    first: int,
    last: int,
    path: Path,
    skip_bad: bool,
    written: Callable[[], None] = lambda: None,
) -> None:
    """Write samples ``first`` to ``last - 1`` as one tar, and a note beside it.

    The tar is complete before it gets its name. The note ``.parts/<shard>.json`` has its size,
    checksum, index rows, words, tags, cameras and bad samples; arrays for the statistics are
    ``.npy`` files. ``written`` is called at every sample.

    Raises:
        BadSample: a sample is bad and ``skip_bad`` is False.
        OSError: the disk is full or read-only; no unfinished tar is left.
    """
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            numbers = range(first, last)
            note, arrays = _write_samples(file, source, numbers, path.name, skip_bad, written)
            file.flush()
            os.fsync(file.fileno())
        size, digest = temporary.stat().st_size, sha256(temporary)
        part = path.parent / PARTS / path.stem
        for field, values in arrays.items():
            np.save(f"{part}.{field}.npy", np.concatenate(values), allow_pickle=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    write_json(part.with_suffix(".json"), note | {"bytes": size, "sha256": digest})


def _write_samples(
    file: Any,
    source: Source,
    numbers: range,
    shard: str,
    skip_bad: bool,
    written: Callable[[], None],
) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """Write the samples; returns the note of the shard and the arrays for the statistics."""
    words: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    arrays: dict[str, list[np.ndarray]] = {}
    cameras: set[str] = set()
    rows: list[SampleRow] = []
    bad: list[dict[str, Any]] = []
    longest = ""
    with wds.TarWriter(file, encoder=False, mtime=0, user="vla", group="vla") as writer:
        for number in numbers:
            written()
            try:
                item, sample = load_sample(source, number)
            except BadSample as error:
                if not skip_bad:
                    raise
                bad.append(quarantine_row(number, error))
                continue
            for text in _texts(item):
                words.update(_WORD.findall(text))
            longest = max(longest, _longest(item), key=len)
            name, offset = f"{number:07d}", writer.tarstream.offset
            writer.write(sample | {"__key__": name})
            place = (name, item.key, shard, offset, writer.tarstream.offset - offset)
            if isinstance(item, WebSample):
                rows.append(SampleRow(*place, 0, "", group=item.group, split=item.split))
                continue
            arrays.setdefault("actions", []).append(item.actions)
            if item.state is not None:
                arrays.setdefault("state", []).append(item.state)
            cameras |= set(item.images)
            tags.update(item.info.get("tags", []))
            labels.update(label_counts(item.instructions))
            steps = len(item.actions)
            rows.append(SampleRow(*place, steps, item.instruction, item.group, item.split))
    return {
        "rows": [asdict(r) for r in rows],
        "words": dict(words),
        "tags": dict(tags),
        "labels": dict(labels),
        "cameras": sorted(cameras),
        "bad": bad,
        "longest_text": longest,
    }, arrays


def merge(
    source: Source,
    out: Path,
    names: list[str],
    identity: dict[str, Any],
    max_bad: float,
) -> Manifest:
    """The manifest from the shards' notes; bad samples are listed in ``quarantine.json``.

    Raises:
        DataError: more than the share ``max_bad`` of the samples is bad, or all are.
    """
    shards: list[Shard] = []
    rows: list[SampleRow] = []
    words: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    cameras: set[str] = set()
    bad: list[dict[str, Any]] = []
    arrays: dict[str, list[Path]] = {}
    longest = ""
    parts = out / PARTS
    for name in names:
        note = json.loads((parts / f"{name}.json").read_bytes())
        inside = [SampleRow(**row) for row in note["rows"]]
        bad += note["bad"]
        if not inside:
            (out / f"{name}.tar").unlink(missing_ok=True)
            continue
        rows += inside
        steps = sum(r.steps for r in inside)
        shards.append(Shard(f"{name}.tar", len(inside), steps, note["bytes"], note["sha256"]))
        words.update(note["words"])
        tags.update(note["tags"])
        labels.update(note.get("labels", {}))  # absent in an unfinished pack of an older version
        cameras |= set(note["cameras"])
        longest = max(longest, note.get("longest_text", ""), key=len)  # absent as above
        for field in ("actions", "state"):
            if (parts / f"{name}.{field}.npy").is_file():
                arrays.setdefault(field, []).append(parts / f"{name}.{field}.npy")
    if bad:
        write_json(out / "quarantine.json", bad)
        total = identity["samples"]
        if len(bad) > max_bad * total or not rows:
            most = f"more than --max-bad {max_bad:g}" if rows else "so none is left"
            raise DataError(
                f"{out / 'quarantine.json'}: {len(bad)} of {total} samples are bad, "
                f"{most}; first: {bad[0]['reason']}"
            )
    statistics = {field: column_statistics(files) for field, files in sorted(arrays.items())}
    for field, files in arrays.items():
        concatenate(files, out / f"{field}.npy")
    write_index(out / index.NAME, rows)
    save_split(out, make_split(rows, identity["val_fraction"]))
    extra = [index.NAME, *(f"{field}.npy" for field in sorted(arrays))]
    space = source.action_space
    manifest = Manifest(
        kind="web" if space is None else "episode",
        identity=identity,
        shards=tuple(shards),
        files={f: ((out / f).stat().st_size, sha256(out / f)) for f in extra},
        samples=len(rows),
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
        image_fit=source.image_fit,
        notes=(*source.notes, *label_notes(labels)),
        longest_text=longest,
    )
    return Manifest.from_dict(manifest.to_dict())  # equal to what ``load_manifest`` returns
