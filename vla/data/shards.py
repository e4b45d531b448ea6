"""Memory-mapped reader of shards; the parts of a sample are zero-copy views."""

from __future__ import annotations

import mmap
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

from vla.data.index import SampleRow
from vla.data.remote import fetch
from vla.errors import DataError

# Each mapped file keeps a file descriptor, and a process has about 1000. A large shuffle buffer can
# refer to many small shards; those above this number are read into memory instead.
MAX_MAPPED = 256
_MAPPED: WeakSet[mmap.mmap] = WeakSet()


def read_samples(folder: Path, rows: Iterable[SampleRow]) -> Iterator[dict[str, Any]]:
    """Samples of an index: ``__key__`` (as in the source) and each part's bytes as a view.

    Only the bytes of these samples are read. Packing writes a shard under a temporary name, so a
    shard that is being read never changes.

    Raises:
        DataError: a shard is missing, truncated or not a tar; the message names it.
    """
    shard: str | None = None
    for row in rows:
        path = folder / row.shard
        try:
            if row.shard != shard:
                whole, shard = _open(path), row.shard
            if isinstance(whole, mmap.mmap):  # read ahead in order; frames are used in any
                start = row.offset // mmap.PAGESIZE * mmap.PAGESIZE
                whole.madvise(mmap.MADV_WILLNEED, start, row.offset + row.size - start)
            sample = {"__key__": row.key} | dict(_parts(memoryview(whole), row))
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path}: damaged shard ({error}); run `vla data verify {folder}` and copy it again"
            ) from error
        yield sample


def _parts(view: memoryview, row: SampleRow) -> Iterator[tuple[str, memoryview]]:
    """(name without the key, bytes) of every file of a sample."""
    position, end = row.offset, row.offset + row.size
    if end > len(view):
        raise EOFError(f"sample {row.id} ends at byte {end} of {len(view)}")
    while position < end:
        head = bytes(view[position : position + tarfile.BLOCKSIZE])
        member = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        first = position + tarfile.BLOCKSIZE
        key, _, part = member.name.partition(".")
        if key != row.id or not member.isreg() or not 0 <= member.size <= end - first:
            raise ValueError(f"{member.name!r} is not a file of sample {row.id}")
        yield part, view[first : first + member.size]
        position = first + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _open(path: Path) -> mmap.mmap | bytes:
    """The mapped file, unmapped when no view of it is left; or its bytes if many are mapped."""
    fetch(path)
    try:
        file = path.open("rb")
    except FileNotFoundError:  # another process made room in the cache
        fetch(path)
        file = path.open("rb")
    with file:
        if len(_MAPPED) >= MAX_MAPPED:
            return file.read()
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _MAPPED.add(mapped)
    return mapped
