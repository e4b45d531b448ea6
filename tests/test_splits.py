"""The split by sample: strata, recorded splits, new splits of packed data."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_data import MemorySource, make_episode, stream

from vla.data.config import DataConfig
from vla.data.datamodule import Streams, check_splits, sample_chunks
from vla.data.index import SampleRow
from vla.data.pack import pack
from vla.data.packed import iter_samples, open_packed
from vla.data.splits import Split, make_split, resplit
from vla.errors import DataError
from vla.types import Episode


def row(number: int, task: str = "", group: str = "", split: str = "") -> SampleRow:
    return SampleRow(f"{number:07d}", f"e{number}", "s.tar", 0, 0, 5, task, group, split)


def counts(rows: list[SampleRow], split: Split, field: str = "task") -> dict[str, Counter[str]]:
    """ "train" and "val" -> number of samples by task or group."""
    val = set(split.val)
    found = {"train": Counter[str](), "val": Counter[str]()}
    for r in rows:
        found["val" if r.id in val else "train"][getattr(r, field)] += 1
    return found


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(2, 30), min_size=1, max_size=8),
    st.sampled_from([0.02, 0.05, 0.1, 0.25, 0.5]),
    st.integers(0, 3),
)
def test_every_task_trains_and_validation_has_about_the_fraction(
    sizes: list[int], fraction: float, seed: int
) -> None:
    tasks = [f"task {n}" for n, size in enumerate(sizes) for _ in range(size)]
    rows = [row(n, task) for n, task in enumerate(tasks)]
    split = make_split(rows, fraction, seed)
    found = counts(rows, split)
    total = max(int(fraction * len(rows) + 0.5), int(len(rows) >= 3))
    room = sum(size - 1 for size in sizes)
    assert len(split.val) == min(total, room)
    assert set(found["train"]) == set(tasks)
    if total >= len(sizes):
        assert set(found["val"]) == set(tasks)
    for n, size in enumerate(sizes):  # in proportion, apart from rounding and coverage
        assert found["val"][f"task {n}"] <= max(1, fraction * size + 2)
    assert split == make_split(rows, fraction, seed)


def test_tasks_recorded_one_after_the_other_are_in_both_splits() -> None:
    rows = [row(n, "open the drawer" if n < 20 else "close the drawer") for n in range(40)]
    found = counts(rows, make_split(rows, 0.05))
    assert set(found["train"]) == set(found["val"]) == {"open the drawer", "close the drawer"}
    assert make_split(rows, 0.2, seed=0) != make_split(rows, 0.2, seed=1)


@pytest.mark.parametrize(("episodes", "validation"), [(2, 0), (3, 1), (4, 1), (5, 1), (9, 1)])
def test_small_sets_have_validation_from_three_episodes_on(episodes: int, validation: int) -> None:
    rows = [row(n, "push") for n in range(episodes)]
    assert len(make_split(rows, 0.05).val) == validation
    assert make_split(rows, 0.0).val == ()


def test_a_task_with_one_episode_trains_unless_the_texts_are_free() -> None:
    rows = [row(0, "rare"), *(row(n, "push") for n in range(1, 10))]
    assert rows[0].id not in make_split(rows, 0.5).val
    free = [row(n, f"sentence {n}") for n in range(40)]
    assert len(make_split(free, 0.1).val) == 4


def test_every_group_gives_its_share() -> None:
    rng = random.Random(0)
    people = ["ann"] * 60 + ["bo"] * 30 + ["cy"] * 10
    rows = [row(n, rng.choice(["push", "pull", "lift"]), p) for n, p in enumerate(people)]
    split = make_split(rows, 0.1)
    assert counts(rows, split, "group")["val"] == {"ann": 6, "bo": 3, "cy": 1}
    assert set(counts(rows, split)["val"]) == {"push", "pull", "lift"}
    only = make_split(rows, 0.1, by=("group",))
    assert counts(rows, only, "group")["val"] == {"ann": 6, "bo": 3, "cy": 1}


def test_recorded_splits_are_kept_if_there_is_a_validation_split() -> None:
    kept = {2: "val", 7: "test", 3: ""}
    rows = [row(n, "push", split=kept.get(n, "train")) for n in range(10)]
    split = make_split(rows, 0.5)
    assert split.val == (rows[2].id, rows[7].id) and split.origin == "recorded"
    assert len(make_split(rows, 0.5, recorded=False).val) == 5
    train = [row(n, "push", split="train") for n in range(10)]
    assert len(make_split(train, 0.2).val) == 2


def test_invalid_choices_are_refused() -> None:
    with pytest.raises(DataError, match=r"val_fraction: 1\.5 is not a share; expected 0 to 1"):
        make_split([row(0)], 1.5)
    with pytest.raises(DataError, match="split by 'robot': unknown; choose from task, group"):
        make_split([row(0)], 0.5, by=("robot",))


def episodes(count: int) -> list[Episode]:
    found = [make_episode(i) for i in range(count)]
    for i, episode in enumerate(found):
        episode.instruction, episode.key = f"task {i % 2}", f"take {i}"
    return found


def keys(folder: Path, split: str) -> list[str]:
    return [s["__key__"] for s in iter_samples(folder, split)]


def test_a_new_split_changes_one_file_only(tmp_path: Path) -> None:
    pack(MemorySource(episodes(12)), tmp_path, shard_size=5, val_fraction=0.2, progress=False)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    old = keys(tmp_path, "val")
    assert len(old) == 2 and sorted(keys(tmp_path, "all")) == sorted(
        [*keys(tmp_path, "train"), *old]
    )
    resplit(tmp_path, 0.5, seed=4)
    assert len(keys(tmp_path, "val")) == 6
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert [n for n in after if after[n] != before.get(n)] == ["splits.json"]
    chosen = tmp_path / "keys.txt"
    chosen.write_text("\ufefftake 3\r\ntake 11\n\n", encoding="utf-8")
    resplit(tmp_path, val_keys=chosen)
    assert keys(tmp_path, "val") == ["take 3", "take 11"]
    resplit(tmp_path)  # no choice: nothing changes
    assert keys(tmp_path, "val") == ["take 3", "take 11"]
    chosen.write_text("take 99\n")
    with pytest.raises(DataError, match=r'keys\.txt: no sample has the key "take 99"; .*take 0'):
        resplit(tmp_path, val_keys=chosen)
    with pytest.raises(DataError, match="recorded no validation split"):
        resplit(tmp_path, recorded=True)
    with pytest.raises(DataError, match="either options of a draw, --val-keys or --recorded"):
        resplit(tmp_path, 0.5, recorded=True)


def test_streams_train_on_training_episodes_and_validate_on_the_others(tmp_path: Path) -> None:
    pack(MemorySource(episodes(10)), tmp_path, shard_size=10, val_fraction=0.3, progress=False)
    packed = open_packed(tmp_path)
    of = {split: {int(r.id) for r in packed.rows(split)} for split in ("train", "val")}

    def shown(**options: object) -> set[int]:
        batches = zip(range(40), stream(tmp_path, **options), strict=False)
        return {round(10 * float(a)) for _, b in batches for a in b.robots[0].actions_KHA[:, 0, 0]}

    assert shown() == of["train"] and shown(train=False) == of["val"] and len(of["val"]) == 3
    # A limited validation is spread over all validation episodes.
    assert shown(train=False, limit=3) == of["val"]
    chunks = sample_chunks(DataConfig({"d": str(tmp_path)}, {"d": 1.0}))["d"]
    assert len(chunks) == 35


def test_a_run_that_needs_an_empty_split_is_refused_before_it_starts(tmp_path: Path) -> None:
    pack(MemorySource(episodes(2)), tmp_path / "d", progress=False)
    pack(MemorySource(episodes(9)), tmp_path / "e", progress=False)
    data = {"d": str(tmp_path / "d"), "e": str(tmp_path / "e")}
    check_splits(DataConfig(data, {"d": 1.0, "e": 1.0}), validation=False)
    check_splits(DataConfig(data, {"d": 0.0, "e": 1.0}), validation=True)
    with pytest.raises(DataError, match=r"d: no validation samples.*vla data split .*patience=0"):
        check_splits(DataConfig(data, {"d": 1.0, "e": 1.0}), validation=True)
    everything = tmp_path / "keys.txt"
    everything.write_text("\n".join(keys(tmp_path / "d", "all")))
    resplit(tmp_path / "d", val_keys=everything)
    with pytest.raises(DataError, match="d: no training samples; draw another one"):
        check_splits(DataConfig(data, {"d": 1.0, "e": 1.0}), validation=False)


def test_a_run_does_not_continue_after_a_new_split(tmp_path: Path) -> None:
    pack(MemorySource(episodes(9)), tmp_path, progress=False)
    streams = Streams(DataConfig({"d": str(tmp_path)}, {"d": 1.0}), 4, 0, 10)
    state = streams.state_dict()
    streams.load_state_dict(state)
    resplit(tmp_path, 0.5)
    with pytest.raises(DataError, match="split again since this run started"):
        streams.load_state_dict(state)
