"""Damaged packed data: every change is found at the first opening, or changes nothing."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from memory_data import MemorySource, make_episode

from vla.data import verification
from vla.data.manifest import load_manifest, pooled_statistics
from vla.data.pack import pack
from vla.data.packed import open_packed
from vla.data.verification import verify
from vla.errors import DataError
from vla.utils.sealed import read_sealed, write_sealed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "packed"
    pack(MemorySource([make_episode(i) for i in range(8)]), out, 3, 0.3, False)
    return out


def content(folder: Path) -> list[Any]:
    """Everything that training and evaluation use."""
    packed = open_packed(folder)
    plain = {split: [dict(s) for s in packed.samples(split)] for split in ("train", "val")}
    samples = {
        split: [{k: v if isinstance(v, str) else bytes(v) for k, v in s.items()} for s in found]
        for split, found in plain.items()
    }
    return [samples, packed.manifest, pooled_statistics([folder, folder]), packed.split]


def damage(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "flip", "zero", "cut", "insert", "append", "other byte"])
    at = rng.randrange(len(data))
    if kind == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "zero":
        data[at : at + 16] = bytes(len(data[at : at + 16]))
    elif kind == "cut":
        del data[at:]
    elif kind == "insert":
        data[at:at] = rng.randbytes(3)
    elif kind == "append":
        data += rng.randbytes(8)
    else:
        data[at] = rng.randrange(256)
    path.write_bytes(data)


def test_no_damage_becomes_training_data(folder: Path, tmp_path: Path) -> None:
    whole, found = content(folder), 0
    rng = random.Random(7)
    files = sorted(p.name for p in folder.iterdir() if p.name != ".lock")
    for number in range(60):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(folder, copy)
        name = files[number % len(files)]
        damage(copy / name, rng)
        try:
            assert content(copy) == whole, f"{number}: damage of {name} is not noticed"
        except DataError as error:
            found += 1
            assert str(copy) in str(error) and "\n" not in str(error)
        shutil.rmtree(copy)
    assert found > 40


def test_an_account_without_a_home_packs_and_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers often have a user id without an account; the checks are then not remembered."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    pack(MemorySource([make_episode(0), make_episode(1)]), tmp_path / "d", progress=False)
    assert open_packed(tmp_path / "d").manifest.samples == 2
    assert verify(tmp_path / "d") == []


def test_files_are_compared_once_until_they_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_packed(folder)
    with monkeypatch.context() as patch:
        patch.setattr(verification, "sha256", None)  # nothing is read again
        open_packed(folder)
    shard = folder / "shard-000001.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 4
    shard.write_bytes(data)
    for _ in range(2):
        with pytest.raises(DataError, match=r"shard-000001\.tar: damaged, its checksum differs"):
            open_packed(folder)
    assert verify(folder) == [
        f"{shard}: damaged, its checksum differs; copy it again, or pack again with --force"
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "\ufeff{}", '{"version": true}', "1e999", '"x"', "[" * 9999]
)
def test_malformed_manifests_are_one_line(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: .*pack the data again") as error:
        load_manifest(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["manifest.json", "splits.json", "source_files.json"])
def test_edited_files_and_old_formats_are_refused(folder: Path, name: str) -> None:
    path = folder / name
    data = json.loads(path.read_text())
    source = MemorySource([make_episode(i) for i in range(8)])
    for change, message in [({"new": 1}, "damaged or edited"), ({"version": 2}, "another version")]:
        path.write_text(json.dumps(data | change))
        with pytest.raises(DataError, match=rf"{name}: .*{message}"):
            open_packed(folder)
            pack(source, folder, 3, 0.3, False)


@pytest.mark.parametrize("key", ["shards", "files", "action_space", "identity", "kind"])
def test_wrong_content_with_a_right_checksum_is_one_line(folder: Path, key: str) -> None:
    path = folder / "manifest.json"
    data = read_sealed(path, 4, "")
    for value in (3, "x", [1], {"a": [1]}) if key != "identity" else (3, [1]):
        write_sealed(path, data | {key: value})
        with pytest.raises(DataError, match=r"manifest\.json: wrong content .*pack the data again"):
            load_manifest(folder)
    write_sealed(path, {k: v for k, v in data.items() if k != key})
    with pytest.raises(DataError, match=rf"manifest\.json: wrong content .*{key}"):
        load_manifest(folder)
