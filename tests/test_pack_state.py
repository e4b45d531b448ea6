"""Repeated packing: changed sources and settings, failed tries, two processes, full disks."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from memory_data import MemorySource, make_episode
from robot_files import write_folder

from vla.data import pack_folder
from vla.data.images import encode_image
from vla.data.manifest import load_manifest
from vla.data.pack import pack, pack_from
from vla.data.packed import open_packed
from vla.data.verification import verify
from vla.errors import BadSample, DataError, FolderLocked
from vla.types import Episode

SMALL = ["source.mapping.size=16", "shard_size=1"]


def packed_bytes(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


def test_a_source_that_changed_on_disk_is_noticed(tmp_path: Path) -> None:
    raw, out = write_folder(tmp_path / "raw"), tmp_path / "out"
    first = pack_from(raw, out, SMALL)
    assert pack_from(raw, out, SMALL) == first
    table = raw / "épisode 1/steps.csv"
    table.write_text(table.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    (raw / "notes.txt").write_text("x")
    message = r"source changed .*\(changed: épisode 1/steps\.csv; new: notes\.txt\).*--force"
    with pytest.raises(DataError, match=message):
        pack_from(raw, out, SMALL)
    assert load_manifest(out) == first  # the finished pack is kept
    pack_from(raw, out, SMALL, force=True)
    os.utime(table, ns=(1, 1))  # another time, the same size
    with pytest.raises(DataError, match=r"changed: épisode 1/steps\.csv"):
        pack_from(raw, out, SMALL)


def test_an_output_folder_within_the_source_is_not_a_change(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw")
    assert pack_from(raw, raw / "packed", SMALL) == pack_from(raw, raw / "packed", SMALL)


def test_many_files_are_compared_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla.data.fingerprint.LISTED", 3)
    raw, out = write_folder(tmp_path / "raw"), tmp_path / "out"
    pack_from(raw, out, SMALL)
    (raw / "épisode 2/top/0001.png").write_bytes(b"other")
    with pytest.raises(DataError, match=r"\(changed: épisode 2/top/\)"):
        pack_from(raw, out, SMALL)


def test_a_failed_first_try_does_not_block_the_corrected_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = write_folder(tmp_path / "raw"), tmp_path / "out"
    image = raw / "épisode 2/top/0001.png"
    good = image.read_bytes()
    image.write_bytes(good[:60])
    with pytest.raises(BadSample, match=r"0001\.png"):
        pack_from(raw, out, SMALL)
    assert (out / "shard-000001.tar").is_file() and not list(out.glob("*.tmp"))
    image.write_bytes(good)
    pack_from(raw, out, ["source.mapping.size=24", "shard_size=2"])
    assert "2 shards of another source or other settings replaced" in capsys.readouterr().err
    pack_from(raw, tmp_path / "fresh", ["source.mapping.size=24", "shard_size=2"])
    assert packed_bytes(out) == packed_bytes(tmp_path / "fresh")


def test_a_finished_pack_is_replaced_by_force_only(tmp_path: Path) -> None:
    raw, out = write_folder(tmp_path / "raw"), tmp_path / "out"
    pack_from(raw, out, SMALL)
    with pytest.raises(DataError, match=r"\(shard_size: 1, now 3\); pack again with --force"):
        pack_from(raw, out, ["source.mapping.size=16", "shard_size=3"])
    with pytest.raises(DataError, match=r"vla data split .*out --val-fraction 0\.5"):
        pack_from(raw, out, [*SMALL, "val_fraction=0.5"])
    manifest = pack_from(raw, out, ["source.mapping.size=16", "shard_size=3"], force=True)
    assert [p.name for p in sorted(out.glob("*.tar"))] == [s.name for s in manifest.shards]
    assert len(manifest.shards) == 1 and verify(out) == []
    (out / "shard-000000.tar").write_bytes(b"damaged")
    pack_from(raw, out, ["source.mapping.size=16", "shard_size=3"], force=True)
    assert verify(out) == []


def test_leaving_out_bad_episodes_keeps_the_shards_that_are_finished(tmp_path: Path) -> None:
    raw, out = write_folder(tmp_path / "raw"), tmp_path / "out"
    (raw / "épisode 2/top/0001.png").write_bytes(b"no image")
    with pytest.raises(BadSample):
        pack_from(raw, out, SMALL)
    first = (out / "shard-000000.tar").stat().st_mtime_ns
    manifest = pack_from(raw, out, [*SMALL, "val_fraction=0.5"], skip_bad=True, max_bad=0.5)
    assert (out / "shard-000000.tar").stat().st_mtime_ns == first and manifest.samples == 2
    with pytest.raises(DataError, match=r"packed without 1 bad sample.*--skip-bad, or .*--force"):
        pack_from(raw, out, [*SMALL, "val_fraction=0.5"])


def test_an_unfinished_pack_with_bad_episodes_does_not_hide_them(tmp_path: Path) -> None:
    raw, out = write_folder(tmp_path / "raw"), tmp_path / "out"
    (raw / "épisode 2/top/0001.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 3 samples are bad, more than --max-bad 0\.1"):
        pack_from(raw, out, SMALL, skip_bad=True)
    with pytest.raises(BadSample, match=r"0001\.png"):
        pack_from(raw, out, SMALL)
    assert pack_from(raw, out, SMALL, skip_bad=True, max_bad=0.5).quarantined == 1


def test_a_pack_of_an_older_version_says_how_to_replace_it(tmp_path: Path) -> None:
    source = MemorySource([make_episode()])
    (tmp_path / "manifest.json").write_text('{"version": 3}')
    with pytest.raises(DataError, match=r"another version.*pack the data again with --force"):
        pack(source, tmp_path, progress=False)
    assert pack(source, tmp_path, progress=False, force=True).samples == 1


@pytest.mark.parametrize("options", [{"shard_size": 0}, {"val_fraction": -0.1}])
def test_impossible_options_are_refused(options: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shard_size of at least 1 and a val_fraction from 0 to 1"):
        pack(MemorySource([make_episode()]), tmp_path, **options)  # type: ignore[arg-type]


def test_the_manifest_is_checked_again_under_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = MemorySource([make_episode(i) for i in range(3)])
    whole = pack(source, tmp_path / "other", progress=False)

    @contextmanager
    def slow_lock(folder: Path) -> Iterator[None]:  # another process packs in the meantime
        for path in (tmp_path / "other").iterdir():
            path.rename(folder / path.name)
        yield

    monkeypatch.setattr("vla.data.pack.exclusive_lock", slow_lock)
    monkeypatch.setattr("vla.data.pack.write_shard", None)
    assert pack(source, tmp_path / "out", progress=False) == whole


TWO = """
import sys, time
sys.path.insert(0, sys.argv[2])
from memory_data import MemorySource, make_episode
from vla.data.pack import pack
class Slow(MemorySource):
    def __getitem__(self, index):
        time.sleep(0.01)
        return super().__getitem__(index)
print("ready", flush=True)
sys.stdin.readline()
print(pack(Slow([make_episode(i) for i in range(60)]), sys.argv[1], 5, progress=False).samples)
"""


@pytest.mark.slow
def test_two_processes_that_pack_into_one_folder_end_with_one_whole_pack(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TWO, str(tmp_path / "out"), str(Path(__file__).parent)]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [p.communicate()[0].strip() for p in both] == ["60", "60"]
    assert verify(tmp_path / "out") == []
    pack(MemorySource([make_episode(i) for i in range(60)]), tmp_path / "alone", 5, progress=False)
    assert packed_bytes(tmp_path / "out") == packed_bytes(tmp_path / "alone")


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files cannot grow above ``size`` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_message_and_the_same_command_continues(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [encode_image(rng.integers(0, 256, (128, 128, 3), np.uint8)) for _ in range(5)]
    episodes: list[Episode] = [make_episode(i) for i in range(4)]
    episodes[2].images = {"top": noise}
    source, out = MemorySource(episodes), tmp_path / "out"
    with (
        file_size_limit(30_000),
        pytest.raises(DataError, match=r"out: cannot be written \(.*\).*the same command cont"),
    ):
        pack(source, out, 2, progress=False)
    assert not list(out.glob("*.tmp")) and not (out / "shard-000001.tar").exists()
    first = (out / "shard-000000.tar").stat()
    pack(source, out, 2, progress=False)
    assert (out / "shard-000000.tar").stat().st_mtime_ns == first.st_mtime_ns
    assert verify(out) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/out: cannot be written \(Not a directory\)"):
        pack(MemorySource([make_episode()]), tmp_path / "file/out", progress=False)


def test_a_finished_pack_in_a_read_only_folder_is_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = MemorySource([make_episode()])
    whole = pack(source, tmp_path, progress=False)

    def refused(folder: Path) -> None:
        raise FolderLocked(str(folder))

    monkeypatch.setattr("vla.data.pack.exclusive_lock", refused)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")  # nor is the cache writable
    assert pack(source, tmp_path, progress=False) == whole
    assert len(list(open_packed(tmp_path).samples())) == 1


def test_a_damaged_plan_starts_again(tmp_path: Path) -> None:
    source = MemorySource([make_episode(i) for i in range(3)])
    (tmp_path / pack_folder.PARTS).mkdir()
    (tmp_path / pack_folder.PARTS / "plan.json").write_text(json.dumps([1])[:-1])
    assert pack(source, tmp_path, 1, progress=False).samples == 3
