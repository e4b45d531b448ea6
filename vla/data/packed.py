"""A packed data set: manifest, index, split, and its samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vla.data import index
from vla.data.index import SampleRow, read_index
from vla.data.manifest import Manifest, load_manifest
from vla.data.remote import as_folder
from vla.data.shards import read_samples
from vla.data.splits import Split, load_split
from vla.data.verification import check_files
from vla.errors import DataError

SPLITS = ("train", "val", "all")


@dataclass(frozen=True)
class PackedFolder:
    """A folder that ``vla pack`` wrote."""

    folder: Path
    manifest: Manifest
    index: tuple[SampleRow, ...]  # all samples, in the order of the source
    split: Split

    @cached_property
    def val(self) -> frozenset[str]:
        """Ids of the validation samples."""
        return frozenset(self.split.val)

    def split_of(self, row: SampleRow) -> str:
        """``train`` or ``val``."""
        return "val" if row.id in self.val else "train"

    def rows(self, split: str = "all") -> list[SampleRow]:
        """Index rows of ``train``, ``val`` or ``all`` samples, in the order of the source.

        Raises:
            DataError: an unknown split.
        """
        if split not in SPLITS:
            raise DataError(f"{self.folder}: no split {split!r}; choose {', '.join(SPLITS)}")
        return [r for r in self.index if split in ("all", self.split_of(r))]

    def samples(self, split: str = "all") -> Iterator[dict[str, Any]]:
        """Samples of a split, see ``vla.data.samples`` for their content.

        Raises:
            DataError: the split is empty, or a shard is damaged.
        """
        rows = self.rows(split)
        if not rows:
            raise DataError(f"{self.folder}: its {split} split is empty; {advice(self.folder)}")
        return read_samples(self.folder, rows)

    def table(self) -> list[tuple[str, int, int]]:
        """(task, training samples, validation samples), the most frequent task first."""
        counts: dict[str, list[int]] = {}
        for row in self.index:
            counts.setdefault(row.task, [0, 0])[self.split_of(row) == "val"] += 1
        ordered = sorted(counts.items(), key=lambda item: (-sum(item[1]), item[0]))
        return [(task, train, val) for task, (train, val) in ordered]


def open_packed(folder: str | Path) -> PackedFolder:
    """A packed data set whose files equal the manifest's checksums; ``folder`` may be an address.

    Raises:
        DataError: not packed, not complete, or damaged.
    """
    folder = as_folder(folder)
    manifest = load_manifest(folder)
    check_files(folder, manifest)
    rows, split = read_index(folder / index.NAME), load_split(folder)
    known = {r.id for r in rows}
    unknown = [i for i in split.val if i not in known]
    if unknown:
        raise DataError(
            f"{folder}: the split names sample {unknown[0]!r}, which this data set does not have; "
            f"{advice(folder)}"
        )
    return PackedFolder(folder, manifest, rows, split)


def iter_samples(folder: str | Path, split: str = "all") -> Iterator[dict[str, Any]]:
    """Samples of one split of a packed data set; see ``PackedFolder.samples``."""
    return open_packed(folder).samples(split)


def advice(folder: Path) -> str:
    """The fix for an empty split, for the end of messages."""
    return f"draw another one with `vla data split {folder} --val-fraction 0.2`"
