"""Memory-mapped tar reader; members are zero-copy views."""

from __future__ import annotations

import io
import mmap
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakSet

import webdataset as wds

from vla.errors import DataError

# Each mapped file keeps a file descriptor, and a process has about 1000. A large shuffle buffer can
# refer to many small shards; those above this number are read into memory instead.
MAX_MAPPED = 256
_MAPPED: WeakSet[mmap.mmap] = WeakSet()


def iter_tar_samples(directory: Path, urls: Iterator[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """Samples of shards: ``__key__``, ``__url__`` and each part's bytes as a read-only view.

    Packing writes a shard under a temporary name, so a shard that is being read never changes.

    Raises:
        DataError: a shard is missing, truncated or not a tar; the message names it.
    """
    for url in urls:
        try:
            yield from wds.tariterators.group_by_keys(_members(url["url"]))
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{url['url']}: damaged shard ({error}); "
                f"run `vla data verify {directory}` and copy it again"
            ) from error


def _members(path: str) -> Iterator[dict[str, Any]]:
    with Path(path).open("rb") as file:
        whole = _mapped(file) if len(_MAPPED) < MAX_MAPPED else file.read()
    view, stream = memoryview(whole), io.BytesIO(whole) if isinstance(whole, bytes) else whole
    with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
        while member := tar.next():
            data = view[member.offset_data : member.offset_data + member.size]
            if len(data) < member.size:
                raise EOFError(f"{member.name} is truncated")
            if member.isreg():
                yield {"fname": member.name, "data": data, "__url__": path}
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all


def _mapped(file: BinaryIO) -> mmap.mmap:
    """The mapped file; it is unmapped when no view of it is left."""
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.madvise(mmap.MADV_WILLNEED)  # read ahead in order; frames are used in any
    _MAPPED.add(mapped)
    return mapped
