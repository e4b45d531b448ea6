"""WebDataset: images with texts of the same name in tar files."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.config.registry import register
from vla.data.readers.files import LFS_POINTER, SKIP_BAD, natural_key, numbering_gaps
from vla.data.web.base import WebReader, WebRecord, column_names, split_of
from vla.data.web.finder import SUFFIXES, ImageFinder
from vla.data.web.mapping import WebMapping
from vla.errors import BadSample, DataError

_IMAGES = tuple(s[1:] for s in SUFFIXES)
_PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst")
_MOST_BYTES = 1 << 28  # of one member
_SAMPLED = 20  # samples whose JSON gives the columns


@dataclass(frozen=True, slots=True)
class Place:
    """One sample in a tar."""

    tar: int  # index of the file
    key: str  # name up to the first dot
    parts: dict[str, tuple[int, int]]  # extension -> offset and bytes of its content


@register("web_reader", "webdataset")
class WebDatasetReader(WebReader):
    """A ``.tar`` file, or a folder with such files at any depth.

    Columns are ``image``, the extensions of texts (``txt``, ``cls``, ...), and the keys of
    ``.json``.

    Raises:
        DataError: compressed or unreadable tars, or no sample with an image.
    """

    format, layout, order = "webdataset", "*.tar with .jpg and .txt or .json (WebDataset)", 30

    @classmethod
    def detects(cls, path: Path) -> bool:
        """True for a tar, or a folder with one."""
        return bool(_tars(path))

    def __init__(self, path: Path, images: Path | None, mapping: WebMapping) -> None:
        self.path, self.finder = path, ImageFinder(path, None)
        self.tars = _tars(path)
        packed = [t for t in self.tars if t.name.endswith(_PACKED)]
        if packed:
            raise DataError(
                f"{packed[0]}: compressed; unpack it to a plain .tar, for random access"
            )
        names = [t.relative_to(path).as_posix() if path.is_dir() else t.name for t in self.tars]
        self.notes = numbering_gaps(names)
        self.splits = [split_of(name) for name in names]
        self.places: list[Place] = []
        bad: dict[int, str] = {}
        for number, tar in enumerate(self.tars):
            problem = self._index(number, tar)
            if problem:
                bad[max(0, len(self.places) - 1)] = problem
        self.bad = bad
        with_image = [n for n, p in enumerate(self.places) if _image_of(p)]
        if not with_image:
            found = sorted({part for p in self.places[:100] for part in p.parts})
            raise DataError(
                f"{path}: no sample has an image ({', '.join(_IMAGES[:4])}); "
                f"extensions are {', '.join(found) or 'none'}"
            )
        rows = []
        for n in with_image[:_SAMPLED]:
            try:
                rows.append(self._row(self.places[n]))
            except (DataError, OSError):
                continue  # it is a bad sample when it is read
        self.columns = column_names(rows)

    def _index(self, number: int, tar: Path) -> str:
        """Append the samples of a tar; returns what is wrong with its last sample, if anything."""
        key, parts = "", dict[str, tuple[int, int]]()
        try:
            with tarfile.open(tar, "r:") as archive:
                size = tar.stat().st_size
                while (member := archive.next()) is not None:
                    # The list would grow with the file.
                    archive.members = []  # type: ignore[attr-defined]
                    folder, _, name = member.name.rpartition("/")
                    base, _, part = name.partition(".")
                    if not member.isreg() or not base or not part:
                        continue
                    own = f"{folder}/{base}".lstrip("./")
                    if own != key or part.lower() in parts:
                        parts, key = {}, own
                        self.places.append(Place(number, key, parts))
                    parts[part.lower()] = (member.offset_data, member.size)
                    if member.offset_data + member.size > size:
                        return f"{tar}: ends within sample {key!r}; download it again"
                end = archive.offset
            with tar.open("rb") as file:
                file.seek(end)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile ends there silently
                    raise tarfile.ReadError("no header where the next one should be")
        except tarfile.TarError as error:
            with tar.open("rb") as file:
                if file.read(len(LFS_POINTER)) == LFS_POINTER:
                    raise DataError(
                        f"{tar}: a Git LFS pointer, not the data; run `git lfs pull`"
                    ) from error
            if not parts:
                raise DataError(f"{tar}: not a tar file ({error}); download it again") from error
            self.places.append(Place(number, f"{key} and those after it", {}))
            return f"{tar}: damaged after sample {key!r} ({error}); download it again"
        return ""

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> WebRecord:
        place = self.places[index]
        image = _image_of(place)
        where = f"{self.tars[place.tar]}: sample {place.key!r}"
        if not image:
            raise BadSample(f"{where} has no image; {SKIP_BAD}")
        row = self._row(place)
        return WebRecord(place.key, self._read(place, image), [row], self.splits[place.tar])

    def _row(self, place: Place) -> dict[str, Any]:
        where = f"{self.tars[place.tar]}: sample {place.key!r}"
        row: dict[str, Any] = {}
        for part in place.parts:
            if part.rpartition(".")[2] in _IMAGES:
                continue
            data = self._read(place, part)
            try:
                if part == "json":
                    found = json.loads(data)
                    row = (found if isinstance(found, dict) else {"json": found}) | row
                elif len(data) < 1 << 20:
                    row[part] = data.decode("utf-8-sig")
            except (ValueError, RecursionError) as error:
                if part in ("json", "txt"):
                    raise BadSample(
                        f"{where}: .{part} is unreadable ({error}); {SKIP_BAD}"
                    ) from error
        return row

    def _read(self, place: Place, part: str) -> bytes:
        offset, size = place.parts[part]
        if size > _MOST_BYTES:
            raise BadSample(f"{self.tars[place.tar]}: {place.key}.{part} has {size} bytes")
        with self.tars[place.tar].open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def location(self, index: int) -> str:
        """The tar of a sample."""
        return str(self.tars[self.places[index].tar])


def _tars(path: Path) -> list[Path]:
    endings = (".tar", *(f".tar{p}" for p in _PACKED), ".tgz")
    files = path.rglob("*") if path.is_dir() else [path]
    found = [p for p in files if p.name.endswith(endings) and not p.name.startswith(".")]
    return sorted(found, key=lambda p: natural_key(str(p)))


def _image_of(place: Place) -> str:
    """The extension of the sample's image; empty: it has none."""
    return next((p for p in place.parts if p.rpartition(".")[2] in _IMAGES), "")
