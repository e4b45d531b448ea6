"""Packed data at an address: the same batches as from disk, through a cache."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from memory_data import MemorySource, make_episode, stream

from vla.data import remote
from vla.data.pack import pack
from vla.data.packed import open_packed
from vla.data.shards import read_samples
from vla.data.splits import resplit
from vla.data.verification import verify
from vla.errors import DataError

URL = "memory://bucket/set"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "_opened", set())
    monkeypatch.setattr(remote, "WAIT", 0.0)
    fsspec.filesystem("memory").store.clear()
    return tmp_path / "cache"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    source = MemorySource([make_episode(i) for i in range(8)])
    pack(source, tmp_path / "data", shard_size=2, val_fraction=0.5, progress=False)
    return tmp_path / "data"


@pytest.fixture
def http(packed: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(packed.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/data"
    server.shutdown()
    server.server_close()


def copy_to_memory(packed: Path) -> None:
    fs = fsspec.filesystem("memory")
    for path in packed.iterdir():
        if path.is_file():
            fs.pipe_file(f"/bucket/set/{path.name}", path.read_bytes())


def images(path: Path | str) -> list[torch.Tensor]:
    return [b.robots[0].images_BVTCHW for b in islice(stream(path), 20)]


def assert_same_batches(path: Path | str, reference: Path) -> None:
    for ours, theirs in zip(images(path), images(reference), strict=True):
        assert torch.equal(ours, theirs)


def test_batches_from_a_web_server_are_those_from_disk(packed: Path, http: str) -> None:
    assert_same_batches(http, packed)
    assert verify(http) == []


@pytest.mark.parametrize("url", [URL, "memory:/bucket/set"])  # Path merges slashes
def test_packing_to_an_address_is_reading_from_there(
    packed: Path, url: str, tmp_path: Path
) -> None:
    source = MemorySource([make_episode(i) for i in range(8)])
    manifest = pack(source, Path(url), shard_size=2, val_fraction=0.5, progress=False)
    names = {Path(n).name for n in fsspec.filesystem("memory").find("/bucket/set")}
    assert names >= {s.name for s in manifest.shards} | {"manifest.json", "splits.json"}
    os.environ["VLA_CACHE"] = str(tmp_path / "other machine")
    remote._opened.clear()
    assert_same_batches(URL, packed)
    assert pack(source, url, shard_size=2, val_fraction=0.5, progress=False) == manifest


def test_a_process_copies_only_the_shards_of_its_rows(tmp_path: Path) -> None:
    source = MemorySource([make_episode(i) for i in range(40)])
    pack(source, Path(URL), shard_size=1, val_fraction=0.1, progress=False)
    shutil.rmtree(remote.cache())
    remote._opened.clear()
    own = stream(URL, batch_size=8, rank=3, world=8)
    assert len([*islice(own, 10)]) == 10  # one row of each batch; an episode has five
    assert 2 <= len(list(remote.cache().glob("*/shard-*.tar"))) <= 6


def test_a_damaged_shard_is_an_error(packed: Path) -> None:
    copy_to_memory(packed)
    fs = fsspec.filesystem("memory")
    data = bytearray(fs.cat_file("/bucket/set/shard-000001.tar"))
    data[len(data) // 2] ^= 1
    fs.pipe_file("/bucket/set/shard-000001.tar", bytes(data))
    folder = open_packed(URL)
    with pytest.raises(DataError, match=rf"{URL}/shard-000001.tar: damaged, its checksum differs"):
        list(read_samples(folder.folder, folder.index))
    assert not list(remote.cache().glob("*/shard-000001*t"))  # nothing of it is kept


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", ".."])
def test_a_server_cannot_write_outside_the_cache(packed: Path, http: str, name: str) -> None:
    path = packed / "manifest.json"
    content = json.loads(path.read_bytes())
    content["files"][name] = [4, ""]
    path.write_text(json.dumps(content))
    (packed.parent / "evil").write_text("evil")
    with pytest.raises(DataError, match=r"manifest\.json: files: expected names of files"):
        open_packed(http)
    assert not list((packed.parent / "cache").rglob("evil"))


def test_the_cache_is_limited(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_to_memory(packed)
    largest = max(p.stat().st_size for p in packed.glob("*.tar"))
    monkeypatch.setenv("VLA_CACHE_GB", str(2.5 * largest / 1e9))
    assert_same_batches(URL, packed)
    shards = list(remote.cache().glob("*/shard-*.tar"))
    assert 1 <= len(shards) <= 2


def test_new_data_replaces_the_cache_and_a_lost_connection_uses_it(
    packed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_to_memory(packed)
    images(URL)
    other = MemorySource([make_episode(i + 1) for i in range(8)])
    pack(other, packed, shard_size=2, val_fraction=0.5, progress=False, force=True)
    copy_to_memory(packed)
    remote._opened.clear()
    assert_same_batches(URL, packed)
    remote._opened.clear()
    memory = type(fsspec.filesystem("memory"))
    calls: list[str] = []

    def lost(self: Any, path: str, *args: Any, **options: Any) -> bytes:
        calls.append(path)
        raise OSError("the network is down")

    monkeypatch.setattr(memory, "cat_file", lost)
    assert_same_batches(URL, packed)
    assert len(calls) == remote.ATTEMPTS
    assert "the network is down); the cache" in capsys.readouterr().err


def test_processes_copy_a_shard_once(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_to_memory(packed)
    folder = remote.as_folder(URL)
    memory, copied = type(fsspec.filesystem("memory")), []
    get = memory.get_file

    def counted(self: Any, path: str, *args: Any, **options: Any) -> Any:
        copied.append(path)
        return get(self, path, *args, **options)

    monkeypatch.setattr(memory, "get_file", counted)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(remote.fetch, [folder / "shard-000000.tar"] * 4))
    assert len(copied) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/none", "memory://bucket/none/manifest.json: missing; pack the data"),
        ("nowhere://bucket/none", "nowhere://bucket/none/manifest.json: .*nowhere"),
    ],
)
def test_a_wrong_address_is_one_message(url: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_packed(url)


def test_a_split_is_changed_where_the_data_is(packed: Path) -> None:
    copy_to_memory(packed)
    with pytest.raises(DataError, match="split the data there"):
        resplit(Path(URL), 0.2)
    manifest = json.loads((packed / "manifest.json").read_text())
    fsspec.filesystem("memory").pipe_file("/bucket/set/manifest.json", b"{}")
    remote._opened.clear()
    with pytest.raises(DataError, match="not the manifest of packed data"):
        open_packed(URL)
    assert manifest["samples"] == 8


@pytest.mark.slow
def test_batches_from_an_object_store_are_those_from_disk(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    try:
        fsspec.filesystem("s3").makedirs("robots")
        source = MemorySource([make_episode(i) for i in range(8)])
        pack(source, "s3://robots/set", shard_size=2, val_fraction=0.5, progress=False)
        monkeypatch.setenv("VLA_CACHE", f"{remote.cache()} of another machine")
        remote._opened.clear()
        assert_same_batches("s3://robots/set", packed)
    finally:
        server.stop()
