"""Arrays in zarr 2 and 3 stores: folders and zip files."""

from __future__ import annotations

import functools
import itertools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.readers.arrays import MAX_BYTES
from vla.data.readers.base import need
from vla.data.readers.files import LFS_POINTER, SKIP_BAD, reading, refuse_pointer
from vla.errors import DataError

_METADATA = (".zarray", "zarr.json")


class ZarrStore:
    """One store. Arrays are opened when they are needed, so that a bad one hurts nobody else."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def holds(path: Path, array: str) -> bool:
        """True if the folder or zip file has this array."""
        if path.is_dir():
            return any((path / array / name).is_file() for name in _METADATA)
        try:
            return any(f"{array}/{name}" in _members(path) for name in _METADATA)
        except (OSError, zipfile.BadZipFile, DataError):
            return False

    def names(self, group: str) -> list[str]:
        """Names of the arrays in a group."""
        if self.path.is_dir():
            folder = self.path / group
            inner = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
            return [p.name for p in inner if not (p / ".zgroup").is_file() and any(p.iterdir())]
        pattern = re.compile(rf"{re.escape(group)}/([^/]+)/(?:\.zarray|zarr\.json)")
        found = (pattern.fullmatch(name) for name in _members(self.path))
        return sorted({match[1] for match in found if match})

    def array(self, name: str) -> Any:
        """One array.

        Raises:
            DataError: it is damaged, or has a codec that is not installed or not safe.
        """
        where = f"{self.path}: {name}"
        with reading(where):
            text = self._metadata(name)
        # numcodecs would run code from the file.
        if re.search(r'"(id|name)":\s*"(numcodecs\.)?pickle"', text):
            raise DataError(f"{where}: has pickled objects, which are not read; save numbers")
        if "imagecodecs" in text:
            try:
                need("imagecodecs.numcodecs").register_codecs(verbose=False)
            except DataError as error:
                raise DataError(
                    f"{where}: its images are compressed with imagecodecs; "
                    "install it: pip install imagecodecs"
                ) from error
        with reading(where):
            array = need("zarr").open_array(_store(str(self.path)), path=name, mode="r")
            if int(np.prod(array.chunks)) * array.dtype.itemsize > MAX_BYTES:
                raise DataError(f"{where}: chunks of shape {array.chunks} need more than 2 GiB")
        return array

    def _metadata(self, name: str) -> str:
        for file in _METADATA:
            if self.path.is_dir() and (self.path / name / file).is_file():
                refuse_pointer(self.path / name / file)
                return (self.path / name / file).read_text(encoding="utf-8")
            if not self.path.is_dir() and f"{name}/{file}" in _members(self.path):
                with zipfile.ZipFile(self.path) as archive:
                    return archive.read(f"{name}/{file}").decode()
        raise DataError(f"{self.path}: no array {name!r}; download the whole data set")

    def check_chunks(self, name: str, array: Any, first: int, end: int) -> None:
        """Refuse rows whose chunks are absent or cut off.

        zarr reads absent chunks as the fill value, and blosc reads past the end of a cut chunk.

        Raises:
            DataError: a chunk of the rows ``first`` to ``end - 1`` is absent or cut off.
        """
        grid = tuple(getattr(array, "shards", None) or array.chunks)  # shape of the stored blocks
        others = [range(-(-n // c)) for n, c in zip(array.shape[1:], grid[1:], strict=True)]
        is_blosc = grid == tuple(array.chunks) and '"blosc"' in self._metadata(name)
        for chunk in range(first // grid[0], -(-end // grid[0])):
            rows = f"rows {chunk * grid[0]} to {(chunk + 1) * grid[0] - 1}"
            for rest in itertools.product(*others):
                key = f"{name}/{array.metadata.encode_chunk_key((chunk, *rest))}"
                size, head = self._begin(key)
                if size == 0:
                    raise DataError(
                        f"{self.path}: {key}: this chunk ({rows}) is absent; download it again; "
                        f"if all its values are {array.fill_value}, save it with "
                        "write_empty_chunks=True"
                    )
                if head.startswith(LFS_POINTER[:16]):
                    raise DataError(
                        f"{self.path}: {key}: a Git LFS pointer, not the data; run `git lfs pull`"
                    )
                if is_blosc and int.from_bytes(head[12:16], "little") != size:
                    raise DataError(
                        f"{self.path}: {key}: this chunk ({rows}) is cut off: unreadable; "
                        f"download it again; {SKIP_BAD}"
                    )

    def _begin(self, key: str) -> tuple[int, bytes]:
        """(size, first bytes) of a stored block; size 0 if it is absent."""
        if not self.path.is_dir():
            if key not in _members(self.path):
                return 0, b""
            with zipfile.ZipFile(self.path) as archive, archive.open(key) as stream:
                return archive.getinfo(key).file_size, stream.read(16)
        file = self.path / key
        if not file.is_file():
            return 0, b""
        with file.open("rb") as stream:
            return file.stat().st_size, stream.read(16)


def read_blocks(
    array: Any, first: int, rows: list[int], where: str
) -> Iterator[tuple[int, np.ndarray]]:
    """(row, value) of some rising rows after ``first``; each chunk is read once.

    Raises:
        DataError: a damaged chunk.
    """
    size = max(1, array.chunks[0])
    for _, group in itertools.groupby(rows, key=lambda r: (first + r) // size):
        members = list(group)
        start = first + members[0]
        with reading(f"{where}, rows {members[0]} to {members[-1]}"):
            block = np.asarray(array[start : first + members[-1] + 1])
        for r in members:
            yield r, block[first + r - start]


@functools.lru_cache(maxsize=64)
def _members(path: Path) -> frozenset[str]:
    """Names of the files in a zip file.

    Raises:
        DataError: a member is implausibly large.
    """
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.file_size > MAX_BYTES:
                raise DataError(f"{path}: {info.filename} needs {info.file_size} bytes; {SKIP_BAD}")
        return frozenset(archive.namelist())


@functools.lru_cache(maxsize=64)
def _store(path: str) -> Any:
    """A zarr store, opened once in each process."""
    storage = need("zarr.storage")
    if Path(path).is_dir():
        return storage.LocalStore(path, read_only=True)
    return storage.ZipStore(path, mode="r")
