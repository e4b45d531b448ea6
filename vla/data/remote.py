"""Packed data on object stores and web servers, read through a local cache.

A data set may be an address that fsspec knows: ``s3://bucket/folder``, ``gs://...``,
``hf://datasets/owner/name``, ``https://...``. The small files are copied when it is opened, a shard
when it is first read; a shard whose checksum differs is an error. Several processes may share the
cache. It is in ``VLA_CACHE`` (default: ``vla/data`` in the user's cache). If the shards of all data
sets need more than ``VLA_CACHE_GB`` (default 100), those not used for longest are deleted.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256 as digest
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from vla.data.location import MANIFEST
from vla.errors import DataError
from vla.utils.io import sha256, write_json
from vla.utils.notes import note

MARK = "remote.json"  # in a cached folder: where it comes from
SPLITS = "splits.json"
SOURCE = "source_files.json"  # absent in recordings of old versions
ATTEMPTS = 4
WAIT = 0.5  # seconds before the second attempt; doubled before each further one
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}([^/].*)")  # Path merges slashes
_opened: set[str] = set()  # addresses whose small files this process has compared

_T = TypeVar("_T")


def address(path: str | Path) -> str | None:
    """The address that a path stands for; None: a path of this machine."""
    found = _URL.fullmatch(str(path))
    return f"{found[1]}://{found[2].rstrip('/')}" if found else None


def as_folder(path: str | Path) -> Path:
    """The folder itself, or the cached folder of an address, with its small files.

    Raises:
        DataError: there is no packed data at the address, or it cannot be read.
    """
    url = address(path)
    if url is None:
        return Path(path)
    folder = cached(url)
    if url not in _opened:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            _copy_small_files(url, folder)
        _opened.add(url)
    return folder


def open_target(url: str) -> Path:
    """The cached folder in which a pack for an address is made, with what is there already."""
    return as_folder(url) if _exists(url, MANIFEST) else cached(url)


def cached(url: str) -> Path:
    """The folder of the cache for an address."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", url.rpartition("/")[2])
    return cache() / f"{name}_{digest(url.encode()).hexdigest()[:16]}"


def cache() -> Path:
    """The folder of the cache."""
    own = os.environ.get("VLA_CACHE")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else user / "vla" / "data"


def origin(folder: Path) -> str | None:
    """The address of a cached folder; None: the folder is no cache."""
    try:
        return str(json.loads((folder / MARK).read_bytes())["url"])
    except (OSError, ValueError, KeyError):
        return None


def _copy_small_files(url: str, folder: Path) -> None:
    """Bring the small files up to date; shards of another version are deleted."""
    try:
        manifest = _read(url, MANIFEST)
    except DataError as error:
        if not (folder / MANIFEST).is_file():
            raise
        note(f"{error}; the cache {folder} is used")
        return
    names = _file_names(manifest, f"{url}/{MANIFEST}")
    present = folder / MANIFEST
    if not present.is_file() or present.read_bytes() != manifest:
        for path in folder.glob("shard-*.tar*"):
            path.unlink()
        for name in names:
            _write(folder / name, _read(url, name))
        if _exists(url, SOURCE):
            _write(folder / SOURCE, _read(url, SOURCE))
    _write(folder / SPLITS, _read(url, SPLITS))
    write_json(folder / MARK, {"url": url})
    _write(present, manifest)


def _file_names(manifest: bytes, place: str) -> list[str]:
    """Names of the small files; a server must not write outside the cached folder."""
    try:
        names = [str(name) for name in json.loads(manifest)["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place}: not the manifest of packed data") from error
    for name in names:
        if Path(name).name != name or name == "..":
            raise DataError(
                f"{place}: files: expected names of files in the folder, got {name!r}; "
                "do not use this data"
            )
    return names


def fetch(path: Path) -> None:
    """Copy a missing shard of a cached folder, and note that it is used.

    Raises:
        DataError: it cannot be read, or differs from the manifest.
    """
    url = origin(path.parent)
    if url is None:
        return
    if not path.is_file():
        with FileLock(path.with_name(path.name + ".lock")):
            if not path.is_file():
                _copy_shard(url, path)
    os.utime(path)


def _copy_shard(url: str, path: Path) -> None:
    shards = json.loads((path.parent / MANIFEST).read_bytes())["shards"]
    shard = next(s for s in shards if s["name"] == path.name)
    _make_room(shard["bytes"])
    part = path.with_name(path.name + ".part")
    with _reported(f"{url}/{path.name}"):
        _retried(lambda fs, root: fs.get_file(f"{root}/{path.name}", str(part)), url)
    if part.stat().st_size != shard["bytes"] or sha256(part) != shard["sha256"]:
        part.unlink()
        raise DataError(f"{url}/{path.name}: damaged, its checksum differs; upload it again")
    part.replace(path)


def _make_room(needed: int) -> None:
    """Delete the shards that were not used for longest; open ones stay readable."""
    limit = float(os.environ.get("VLA_CACHE_GB") or 100) * 1e9
    states = []
    for path in cache().glob("*/shard-*.tar"):
        try:
            states.append((path.stat().st_mtime, path.stat().st_size, path))
        except FileNotFoundError:  # another process deleted it
            continue
    excess = sum(size for _, size, _ in states) + needed - limit
    for _, size, path in sorted(states):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size


def upload(folder: Path, url: str) -> None:
    """Copy a finished pack to an address; its manifest comes last. Equal files are skipped.

    Raises:
        DataError: the address cannot be written.
    """
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    names = [n for n in names if n not in (MANIFEST, MARK) and not n.endswith((".lock", ".part"))]

    def put(fs: Any, root: str) -> None:
        fs.makedirs(root, exist_ok=True)
        for name in [*names, MANIFEST]:
            target, size = f"{root}/{name}", (folder / name).stat().st_size
            shard = name.endswith(".tar")
            if not (shard and fs.exists(target) and fs.size(target) == size):
                fs.put_file(str(folder / name), target)

    with _reported(url):
        _retried(put, url)
    write_json(folder / MARK, {"url": url})


def _read(url: str, name: str) -> bytes:
    with _reported(f"{url}/{name}"):
        return _retried(lambda fs, root: bytes(fs.cat_file(f"{root}/{name}")), url)


def _exists(url: str, name: str) -> bool:
    with _reported(f"{url}/{name}"):
        return _retried(lambda fs, root: bool(fs.exists(f"{root}/{name}")), url)


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def _retried(call: Callable[[Any, str], _T], url: str) -> _T:
    """The result of ``call(file system, path)``; attempts are repeated if the network fails."""
    from fsspec.core import url_to_fs

    for attempt in range(ATTEMPTS):
        try:
            return call(*url_to_fs(url))
        except (FileNotFoundError, PermissionError, ImportError, ValueError):
            raise
        except Exception:  # each file system has errors of its own
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(WAIT * 2**attempt)
    raise AssertionError("unreachable")


@contextmanager
def _reported(url: str) -> Iterator[None]:
    """Errors of file systems as one message."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{url}: missing; pack the data there with `vla pack`") from error
    except ImportError as error:
        raise DataError(f"{url}: {error}; pip install 'vla[remote]'") from error
    except Exception as error:  # each file system has errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{url}: cannot be read or written ({reason})") from error
