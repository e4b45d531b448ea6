"""The shard reader: memory-mapped samples, arrays, damaged shards."""

from __future__ import annotations

import gc
import io
import json
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from memory_data import MemorySource, make_episode

from vla.data import shards
from vla.data.config import DataConfig, WindowConfig
from vla.data.index import SampleRow, read_index
from vla.data.pack import pack
from vla.data.pipeline import BatchStream
from vla.data.samples import episode_to_sample, read_json, read_steps
from vla.data.shards import read_samples
from vla.errors import BadSample, DataError
from vla.utils.metrics import MetricMeans


def samples(shard: Path) -> list[dict[str, Any]]:
    return list(read_samples(shard.parent, rows_of(shard)))


def rows_of(shard: Path) -> list[SampleRow]:
    return [r for r in read_index(shard.parent / "samples.jsonl") if r.shard == shard.name]


def test_samples_equal_the_tar_members_and_outlive_the_file(tmp_path: Path) -> None:
    pack(MemorySource([make_episode(i) for i in range(4)]), tmp_path, shard_size=4, progress=False)
    shard = next(tmp_path.glob("shard-*.tar"))
    with tarfile.open(shard) as tar:
        kept = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    found = samples(shard)
    shard.unlink()
    parts = {
        f"{s['__key__']}.{part}": data
        for s in found
        for part, data in s.items()
        if not part.startswith("__")
    }
    assert {name: bytes(data) for name, data in parts.items()} == kept
    assert all(data.readonly for data in parts.values())


def test_many_small_shards_stay_below_the_limit_of_open_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(MemorySource([make_episode(i) for i in range(9)]), tmp_path, shard_size=1, progress=False)
    paths = sorted(tmp_path.glob("shard-*.tar"))
    mapped = [samples(p)[0] for p in paths]
    gc.collect()
    before = len(shards._MAPPED)
    monkeypatch.setattr(shards, "MAX_MAPPED", before + 2)
    unmapped = [samples(p)[0] for p in paths]
    assert len(shards._MAPPED) == before + 2
    assert [{k: bytes(v) if k[0] != "_" else v for k, v in s.items()} for s in unmapped] == [
        {k: bytes(v) if k[0] != "_" else v for k, v in s.items()} for s in mapped
    ]
    assert all(part.readonly for s in unmapped for k, part in s.items() if k[0] != "_")
    del unmapped, mapped
    gc.collect()
    assert len(shards._MAPPED) < before  # unused files are unmapped


@pytest.mark.parametrize("left", [0, 100, 700, -3000])
def test_a_truncated_shard_is_named(tmp_path: Path, left: int) -> None:
    pack(MemorySource([make_episode(i) for i in range(4)]), tmp_path, shard_size=4, progress=False)
    shard = next(tmp_path.glob("shard-*.tar"))
    data = shard.read_bytes().rstrip(b"\0")
    shard.write_bytes(data[:left])
    with pytest.raises(DataError, match=rf"{shard.name}: damaged shard .*vla data verify"):
        samples(shard)


KINDS = st.sampled_from(
    [np.dtype(k) for k in ("float32", "float64", ">f4", "int64", "uint8", "bool", "<U3")]
)


@settings(max_examples=60, deadline=None)
@given(
    KINDS.flatmap(
        lambda kind: arrays.arrays(
            kind, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
        )
    ),
    st.booleans(),
)
def test_arrays_equal_those_of_numpy(values: np.ndarray, turned: bool) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        actions=np.asfortranarray(values) if turned else values,
        **{"another.name": np.arange(3)},
    )
    sample = {"__key__": "0", "steps.npz": memoryview(buffer.getvalue())}
    read = read_steps(sample)
    with np.load(io.BytesIO(buffer.getvalue()), allow_pickle=False) as theirs:
        assert read.keys() == set(theirs.files)
        for name, array in read.items():
            assert (
                array.dtype == theirs[name].dtype
                and array.shape == theirs[name].shape
                and array.flags.writeable
            )
            assert np.array_equal(array, theirs[name], equal_nan=array.dtype.kind == "f")


def test_arrays_larger_than_the_sample_are_refused_before_memory_is_needed() -> None:
    small, header = io.BytesIO(), io.BytesIO()
    np.savez_compressed(small, actions=np.zeros((400_000, 7), np.float32))
    about = {"descr": "<f4", "fortran_order": False, "shape": (1 << 38, 7)}
    np.lib.format.write_array_header_1_0(header, about)
    claimed = io.BytesIO()
    with zipfile.ZipFile(claimed, "w") as archive:
        archive.writestr("actions.npy", header.getvalue() + bytes(28))
    for data, why in ((small, "larger than the file"), (claimed, "cannot reshape")):
        tracemalloc.start()
        with pytest.raises(BadSample, match=rf"unreadable \.steps\.npz \(.*{why}"):
            read_steps({"__key__": "7", "steps.npz": memoryview(data.getvalue())})
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        tracemalloc.stop()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "film"},
        {"kind": None},
        {"cameras": ["top"]},
        {"instruction": 3},
        {"plans": "reach"},
        {"fps": "fast"},
    ],
)
def test_metadata_of_another_form_is_a_bad_sample(change: dict[str, Any]) -> None:
    sample = episode_to_sample(make_episode())
    meta = read_json(sample)
    with pytest.raises(BadSample, match=r"unreadable \.json"):
        read_json(sample | {"json": json.dumps(meta | change).encode()})
    with pytest.raises(BadSample, match=r"unreadable \.json"):
        read_json(sample | {"json": b"[" * 100_000})
    missing = {k: v for k, v in meta.items() if k not in change}
    with pytest.raises(BadSample, match=r"unreadable \.json"):
        read_json(sample | {"json": json.dumps(missing).encode()})


def test_damaged_arrays_and_python_objects_are_refused() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, actions=np.array([{"a": 1}], dtype=object))
    for data, why in (
        (buffer.getvalue(), "never unpickled"),
        (buffer.getvalue()[:-30], "not a zip file"),
        (b"", "not a zip file"),
    ):
        with pytest.raises(
            BadSample, match=rf"sample '7': unreadable \.steps\.npz \(.*{why}.*pack the data again"
        ):
            read_steps({"__key__": "7", "steps.npz": data})


def test_images_are_reordered_in_memory_only_by_batch_to(tmp_path: Path) -> None:
    pack(MemorySource([make_episode(i) for i in range(4)]), tmp_path, shard_size=2, progress=False)
    config = DataConfig({"d": str(tmp_path)}, {"d": 1.0}, WindowConfig(history=3), shuffle=20)
    batch = next(iter(BatchStream(config, 4, True)))
    read, used = batch.robots[0].images_BVTCHW, batch.to("cpu").robots[0].images_BVTCHW
    assert read.shape == (4, 1, 3, 3, 16, 16) and read.stride(3) == 1
    assert used.is_contiguous() and torch.equal(read, used)


def test_metric_means_are_weighted_and_propagate_nan() -> None:
    means, device = MetricMeans(), torch.device("cpu")
    means.update("train/a", torch.tensor([1.0, 2.0, 6.0]), torch.tensor([True, True, False]))
    means.update("train/a", torch.tensor([[5.0]]))
    means.update("train/b", torch.tensor([1.0, float("nan")]))
    found = means.compute_and_reset("train", device)
    assert found["train/a"] == pytest.approx(8 / 3) and np.isnan(found["train/b"])
