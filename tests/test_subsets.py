"""Parts of a data set: nested, drawn from training episodes, with the same validation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from memory_data import MemorySource, make_episode

from vla.data.config import DataConfig
from vla.data.datamodule import check_splits
from vla.data.pack import pack
from vla.data.packed import PackedFolder, open_packed
from vla.data.pipeline import BatchStream
from vla.data.subset import subset_rows
from vla.errors import ConfigError


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedFolder:
    """30 episodes of six tasks, a sixth of them validation."""
    folder = tmp_path_factory.mktemp("tasks")
    episodes = [replace(make_episode(k), instruction=f"task {k % 6}") for k in range(30)]
    pack(MemorySource(episodes), folder / "d", shard_size=7, val_fraction=0.2, progress=False)
    return open_packed(folder / "d")


def config(packed: PackedFolder, **options: int) -> DataConfig:
    return DataConfig({"d": str(packed.folder)}, {"d": 1.0}, shuffle=10, **options)


def ids(packed: PackedFolder, split: str = "train", **options: int) -> set[str]:
    return {r.id for r in subset_rows(packed, config(packed, **options), split)}


def test_parts_are_nested_and_balanced_over_tasks(packed: PackedFolder) -> None:
    parts = [ids(packed, max_episodes_per_task=k) for k in (1, 2, 3)]
    assert [len(p) for p in parts] == [6, 12, 18] and parts[0] < parts[1] < parts[2]
    assert parts[2] < ids(packed) and not parts[2] & ids(packed, "val")
    assert ids(packed, "val", max_episodes_per_task=1) == ids(packed, "val")
    assert ids(packed, max_episodes_per_task=1, subset_seed=1) != parts[0]
    few, more = (ids(packed, max_tasks=k) for k in (2, 4))
    assert few < more < ids(packed)
    for split in ("train", "val"):
        own = {r.task for r in packed.index if r.id in ids(packed, split, max_tasks=2)}
        assert len(own) == 2
    both = ids(packed, max_tasks=2, max_episodes_per_task=1)
    assert len(both) == 2 and both == parts[0] & few


def test_only_the_part_is_trained_on_and_the_stream_resumes(packed: PackedFolder) -> None:
    options = config(packed, max_episodes_per_task=1, max_tasks=3)
    allowed = ids(packed, max_episodes_per_task=1, max_tasks=3)
    stream = iter(BatchStream(options, 4, train=True))
    batches = [next(stream) for _ in range(12)]
    episodes = {
        f"{round(10 * float(a[0, 0])):07d}" for b in batches for a in b.robots[0].actions_KHA
    }
    assert episodes == allowed
    again = next(iter(BatchStream(options, 4, train=True, start=9)))
    assert (again.robots[0].actions_KHA == batches[9].robots[0].actions_KHA).all()
    whole = list(BatchStream(config(packed), 4, train=False))
    part = list(BatchStream(config(packed, max_episodes_per_task=1), 4, train=False))
    assert [b.size for b in part] == [b.size for b in whole]


def test_more_than_there_is_trains_on_all_and_says_so(
    packed: PackedFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ids(packed, max_episodes_per_task=99, max_tasks=99) == ids(packed)
    check_splits(config(packed, max_episodes_per_task=99, max_tasks=99), validation=True)
    text = capsys.readouterr().err
    assert "data.max_episodes_per_task=99, but 6 of 6 tasks have fewer training episodes" in text
    assert "data.max_tasks=99, but it has 6; all of them are used" in text
    with pytest.raises(ConfigError, match="max_tasks: expected at least 1, got 0"):
        config(packed, max_tasks=0)
