"""Shards as they are read: a tar file mapped into memory, its members as views, so that a picture is copied once, into its batch."""

from __future__ import annotations

import io
import mmap
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakSet

import webdataset as wds

from vla.data.manifest import DataError

MOST_MAPPED = 256  # every mapped file keeps a descriptor, of which a process has about a thousand; small shards in a large shuffle buffer are many
_MAPPED: WeakSet[mmap.mmap] = WeakSet()


def untarred(directory: Path, urls: Iterator[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """Samples of shards: ``__key__``, ``__url__``, and every part's bytes as a read-only view of the shard (packing writes shards under another name, so one
    that is read never changes).

    Raises:
        DataError: a shard that is missing, cut off or no tar; the message names it.
    """
    for url in urls:
        try:
            yield from wds.tariterators.group_by_keys(_members(url["url"]))
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{url['url']}: damaged shard ({error}); run `vla data verify {directory}` and copy it again"
            ) from error


def _members(path: str) -> Iterator[dict[str, Any]]:
    with Path(path).open("rb") as file:
        whole = _mapped(file) if len(_MAPPED) < MOST_MAPPED else file.read()
    view, stream = memoryview(whole), io.BytesIO(whole) if isinstance(whole, bytes) else whole
    with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]  # it reads, seeks and tells
        while member := tar.next():
            data = view[member.offset_data : member.offset_data + member.size]
            if len(data) < member.size:
                raise EOFError(f"{member.name} is cut off")
            if member.isreg():
                yield {"fname": member.name, "data": data, "__url__": path}
            tar.members = []  # type: ignore[attr-defined]  # else it keeps them all


def _mapped(file: BinaryIO) -> mmap.mmap:
    """The file, unmapped when no view of it is left."""
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.madvise(mmap.MADV_WILLNEED)  # read it now, in order: pictures are asked for in any
    _MAPPED.add(mapped)
    return mapped
