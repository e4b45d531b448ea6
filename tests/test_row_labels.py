"""Instructions that change within an episode, from the recording to the loss and the errors."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_policies import RecordingPolicy
from hypothesis import given
from hypothesis import strategies as st
from memory_data import SPACE, MemorySource, make_episode, stream
from robot_files import write_folder

from vla.data.config import DataConfig, WindowConfig
from vla.data.datamodule import sample_chunks
from vla.data.manifest import load_manifest
from vla.data.mapping import Mapping
from vla.data.pack import pack
from vla.data.robot import RobotSource
from vla.data.row_texts import expand, fill_template, segments, summary, written_once
from vla.data.samples import episode_to_sample, read_instructions, read_json
from vla.data.windows import chunk_ends
from vla.errors import BadSample, DataError
from vla.evaluation.offline import offline
from vla.models.actions.normalise import Normaliser
from vla.types import Episode

TEXTS = (
    ["open the box"] * 3 + [""] * 2 + ["öffne\u2028 die Kiste", "close the box", "close the box"]
)


def labelled(texts: list[str], index: int = 0) -> Episode:
    episode = make_episode(index, len(texts))
    episode.instruction, episode.instructions = next(t for t in texts if t), texts
    return episode


def packed(texts: list[str], out: Path, count: int = 1) -> Path:
    pack(
        MemorySource([labelled(texts, i) for i in range(count)]), out, shard_size=1, progress=False
    )
    return out


@given(st.lists(st.sampled_from(["", "a", "a b", "ü", "\u2028", "[0]"]), max_size=30))
def test_segments_give_the_texts_back(texts: list[str]) -> None:
    found = segments(texts)
    assert expand([list(pair) for pair in found], len(texts)) == texts
    assert all(a[1] != b[1] for a, b in pairwise(found))


@given(st.lists(st.sampled_from(["pick", "place", ""]), min_size=1, max_size=20))
def test_an_action_chunk_ends_where_the_instruction_changes(texts: list[str]) -> None:
    for t, end in enumerate(chunk_ends(texts)):
        assert set(texts[t:end]) == {texts[t]}
        assert end == len(texts) or texts[end] != texts[t]
    assert chunk_ends(texts, cross=True) == [len(texts)] * len(texts)


@given(st.lists(st.text(max_size=8), min_size=1, max_size=12))
def test_the_packed_sample_keeps_every_instruction(texts: list[str]) -> None:
    if any(t.strip() for t in texts):
        episode = labelled([*texts, "end"])
        meta = read_json(episode_to_sample(episode))
        assert read_instructions(meta, len(texts) + 1) == episode.instructions


@pytest.mark.parametrize(
    "found",
    [[[1, "a"]], [[0, "a"], [0, "b"]], [[0, "a"], [9, "b"]], [["0", "a"]], [[0, 1]], [3], 7],
)
def test_damaged_segments_are_a_bad_sample(found: Any) -> None:
    with pytest.raises(BadSample, match="pack the data again"):
        read_instructions({"instruction": "a", "instructions": found}, 5)


def test_windows_have_the_text_of_their_step_and_none_without_text(tmp_path: Path) -> None:
    window = WindowConfig(horizon=4)
    path = packed(TEXTS, tmp_path / "d", 2)
    batches = list(islice(stream(path, window=window), 20))
    seen: dict[int, tuple[str, list[bool]]] = {}
    for part in (b.robots[0] for b in batches):
        actions = part.actions_KHA.numpy()
        for text, chunk, mask in zip(part.instructions, actions, part.mask_KH, strict=True):
            step = round(float(chunk[0, 1]) * 10)
            seen[step] = text, mask.tolist()
            last = step + int(mask.sum()) - 1  # masked steps repeat the last action
            expected = [min(step + k, last) / 10 for k in range(4)]
            assert np.allclose(chunk[:, 1], expected)
    assert {t: text for t, (text, _) in seen.items()} == {t: x for t, x in enumerate(TEXTS) if x}
    assert {t: sum(mask) for t, (_, mask) in seen.items()} == {0: 3, 1: 2, 2: 1, 5: 1, 6: 2, 7: 1}


def test_chunks_cross_a_change_if_asked(tmp_path: Path) -> None:
    window = WindowConfig(horizon=4, cross_instructions=True)
    batch = next(iter(stream(packed(TEXTS, tmp_path / "d", 2), window=window, batch_size=32)))
    part = batch.robots[0]
    steps = (part.actions_KHA[:, 0, 1] * 10).round().int()
    assert torch.equal(part.mask_KH.sum(1), (len(TEXTS) - steps).clamp(max=4))


def test_fitted_components_see_no_chunk_across_a_change(tmp_path: Path) -> None:
    path = packed(["a"] * 3 + ["b"] * 3, tmp_path / "d", 2)
    config = DataConfig({"d": str(path)}, {"d": 1.0}, WindowConfig(horizon=3))
    chunks = sample_chunks(config, padded=False)["d"][:6, :, 1]
    assert torch.isnan(chunks).sum(1).tolist() == [0, 1, 2, 0, 1, 2]


def test_packing_says_what_becomes_of_labels(tmp_path: Path) -> None:
    notes = load_manifest(packed(TEXTS, tmp_path / "d", 2)).notes
    assert any("2 episodes with an instruction that changes" in note for note in notes)
    assert any("4 rows without an instruction: not trained" in note for note in notes)
    assert load_manifest(packed(["", "a"], tmp_path / "e")).notes == (
        "1 row without an instruction: not trained",
    )


def test_every_text_is_in_the_word_counts(tmp_path: Path) -> None:
    words = load_manifest(packed(TEXTS, tmp_path / "d")).words
    assert words["open"] == words["close"] == words["öffne"] == 1 and words["box"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.instructions.pop(), "4 instructions for 5 actions"),
        (lambda e: e.instructions.__setitem__(slice(None), [" "] * 5), "empty instruction"),
        (lambda e: e.plans.append("reach"), "1 plans for 5 actions"),
    ],
)
def test_labels_that_do_not_fit_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    episode = labelled(["a", "b", "b", "b", "b"])
    change(episode)
    with pytest.raises(BadSample, match=message):
        pack(MemorySource([episode]), tmp_path, progress=False)


def test_a_kept_row_keeps_its_label(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", (8, 8))
    mapping = Mapping(size=32, instruction="subtask", rate_hz=5.0)
    episode = RobotSource(str(root), mapping)[0]
    assert episode.instructions == [f"step {t}" for t in (0, 2, 4, 6)]
    assert np.allclose(episode.actions[:, 1], [0.0, 0.2, 0.4, 0.6])


def test_a_template_is_filled_row_by_row(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", (2, 2))
    episode = RobotSource(str(root), Mapping(size=32, instruction="{task}: {subtask}"))[0]
    assert episode.instructions == ["push the red block: step 0", "push the red block: step 1"]
    assert episode.instruction == episode.instructions[0]
    same = RobotSource(str(root), Mapping(size=32, instruction="{task}, slowly"))[0]
    assert same.instructions == [] and same.instruction == "push the red block, slowly"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{tusk}", "no text field 'tusk'; fields are {task}, {subtask}"),
        ("{task", "write fields as {task}"),
        ("{}", "no text field ''"),
    ],
)
def test_a_wrong_template_names_the_fields(template: str, message: str, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", (2,))
    with pytest.raises(DataError, match=r"mapping\.instruction") as error:
        RobotSource(str(root), Mapping(size=32, instruction=template))[0]
    assert message in str(error.value) and str(root) in str(error.value)


def test_a_template_of_blank_fields_is_blank() -> None:
    fields = {"task": ["pick", "", ""], "speed": ["slowly", "fast", " "]}
    assert fill_template("{task} {speed}", fields, 3) == ["pick slowly", " fast", ""]
    assert fill_template("do it", fields, 2) == ["do it", "do it"]


def test_a_text_in_the_first_row_alone_is_that_of_the_episode() -> None:
    assert written_once(["pick", "", " "]) == ["pick"] * 3
    assert written_once(["pick", "", "place"]) == ["pick", "", "place"]
    assert written_once(["", "pick"]) == ["", "pick"] and written_once(["", ""]) == ["", ""]


def test_offline_errors_follow_the_instruction_of_each_row(tmp_path: Path) -> None:
    path = packed(TEXTS, tmp_path / "d", 2)
    policy: Any = RecordingPolicy(SPACE, image_size=(16, 16), horizon=3)
    policy.normaliser = Normaliser(SPACE, None)
    result = offline(policy, path, "train", episodes=1, progress=False)
    assert [call.instructions for call in policy.calls] == [[text] for text in TEXTS]
    assert result.frames == 6 and np.isclose(result.errors["policy"][1], 0.1)
    assert result.trajectories[0].instruction == summary(TEXTS)
    assert summary(TEXTS).startswith("open the box -> öffne")
    ahead = np.array([0, 1, 2, 0, 1, 0, 0, 0, 1, 0])  # of steps 0, 1, 2, 5, 6, 7
    assert np.isclose(result.errors["policy, chunk"][1], np.abs(0.1 - 0.09 * ahead).mean())
