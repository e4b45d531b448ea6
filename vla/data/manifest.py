"""``manifest.json``: the contents of a folder of shards, with checksums and statistics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from vla.data.location import MANIFEST, check_packed
from vla.data.remote import as_folder, origin
from vla.data.statistics import column_statistics
from vla.errors import DataError
from vla.types import ActionSpace, ImageFit
from vla.utils.sealed import read_sealed, write_sealed

VERSION = 4
NAME = MANIFEST


@dataclass(frozen=True)
class Shard:
    """One tar file."""

    name: str  # file name
    samples: int  # episodes or web samples
    steps: int  # rows of all its episodes; 0 for web data
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The contents of a folder of shards."""

    kind: Literal["episode", "web"]
    identity: dict[str, Any]  # source and settings; only decides whether a pack can be resumed
    shards: tuple[Shard, ...]
    files: dict[str, tuple[int, str]]  # file name -> bytes, SHA-256: index, rows of all episodes
    samples: int  # episodes or web samples
    steps: int  # rows of all episodes
    quarantined: int  # bad samples that were left out, see quarantine.json
    cameras: tuple[str, ...]
    image_size: tuple[int, int]  # (height, width) in px; (0, 0): mixed or unknown
    action_space: ActionSpace | None  # None: web data
    state_names: tuple[str, ...]  # names of the state dimensions; empty: unknown
    delta: tuple[str, ...]  # action dimensions packed as differences to the state
    statistics: dict[str, dict[str, Any]]  # "actions", "state" -> see ``column_statistics``
    words: dict[str, int]  # word -> count in all texts
    tags: dict[str, int]  # tag -> count in ``Episode.info["tags"]``
    benchmark: dict[str, Any]  # configuration of the benchmark it was recorded in, or empty
    image_fit: ImageFit = "stretch"  # how the images were brought to ``image_size``
    notes: tuple[str, ...] = ()  # what is left out or assumed, one message each
    longest_text: str = ""  # by characters, with the earlier turns of a conversation

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Manifest:
        """Inverse of ``to_dict``."""
        space = data["action_space"]
        data = {"longest_text": ""} | data  # absent in packs of older versions
        values = {f.name: data[f.name] for f in fields(cls)} | {
            "shards": tuple(Shard(**s) for s in data["shards"]),
            "action_space": None if space is None else ActionSpace.from_dict(space),
        }
        for name in ("cameras", "image_size", "state_names", "delta", "notes"):
            values[name] = tuple(values[name])
        plain = ("identity", "statistics", "words", "tags", "benchmark")
        wrong = [name for name in plain if not isinstance(data[name], dict)]
        if wrong or data["kind"] not in ("episode", "web"):
            raise ValueError(f"unusable field {wrong[0] if wrong else 'kind'!r}")
        values["files"] = {name: (int(n), str(s)) for name, (n, s) in data["files"].items()}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        space = self.action_space
        plain = asdict(self) | {"action_space": None if space is None else space.to_dict()}
        return {"version": VERSION} | json.loads(json.dumps(plain))

    def save(self, directory: Path) -> None:
        """Write ``manifest.json``."""
        write_sealed(directory / NAME, self.to_dict())

    def checksums(self) -> dict[str, tuple[int, str]]:
        """File name -> (bytes, SHA-256) of the shards and the other packed files."""
        return self.files | {s.name: (s.bytes, s.sha256) for s in self.shards}


def load_manifest(directory: str | Path) -> Manifest:
    """The manifest of a folder of shards.

    Raises:
        DataError: no such folder, no manifest (packing did not finish), another version, no
            samples, or a missing shard.
    """
    directory = as_folder(directory)
    path = check_packed(directory)
    data = read_sealed(path, VERSION, "pack the data again")
    try:
        manifest = Manifest.from_dict(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: wrong content ({error!r}); pack the data again") from error
    if manifest.samples == 0:
        raise DataError(f"{path}: zero samples; check the source and pack again")
    for shard in manifest.shards if origin(directory) is None else ():
        if not (directory / shard.name).is_file():
            raise DataError(
                f"{directory / shard.name}: shard is missing but listed in {path}; "
                "copy it back or pack again"
            )
    return manifest


def pooled_statistics(directories: Sequence[str | Path]) -> dict[str, Any]:
    """Statistics of actions and state over all rows of several data sets.

    Raises:
        DataError: several data sets, and the rows of one are missing.
    """
    statistics = load_manifest(directories[0]).statistics
    if len(directories) == 1:
        return statistics
    pooled = {}
    for field in statistics:
        files = [as_folder(d) / f"{field}.npy" for d in directories]
        missing = [f for f in files if not f.is_file()]
        if missing:
            raise DataError(
                f"{missing[0]}: missing, so statistics cannot be pooled; pack this data set again"
            )
        pooled[field] = column_statistics(files)
    return pooled
