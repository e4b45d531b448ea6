"""``vla diagnose``: a healthy policy is silent, and each planted fault is named."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blob_data import DotPolicy, pack_recorded, pack_world, subject_of, write_world

from vla.diagnose import lines as names
from vla.diagnose import senses
from vla.diagnose.checks import diagnose
from vla.diagnose.lines import Line, clearly_lower, p_lower
from vla.diagnose.looks import camera_looks
from vla.diagnose.statistics import statistics
from vla.diagnose.windows import sample_windows
from vla.doctor.views import open_dataset

NAMES = {
    "gripper": ("action signs", names.GRIPPER),
    "video": ("video timing", names.VIDEO),
    "statistics": ("statistics", names.STATISTICS),
    "cameras": ("cameras", names.CAMERAS),
    "instructions": ("language", names.INSTRUCTIONS),
    "action type": ("action type", names.ACTION_TYPE),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The packed world with a fault, packed once."""
    root = tmp_path_factory.mktemp("worlds")
    return functools.cache(lambda fault: pack_world(root / (fault or "healthy"), fault))


def found(policy: Any, folder: Path, *training: Path) -> list[Line]:
    return list(diagnose(subject_of(policy, folder, training), {}, limit=96))


def verdicts(lines: list[Line]) -> dict[str, str]:
    return {line.check: f"{line.verdict}: {line.finding}" for line in lines if line.verdict != "ok"}


def test_a_healthy_policy_on_its_data_has_only_ok_lines(data: Callable[[str], Path]) -> None:
    healthy = data("")
    lines = found(DotPolicy(healthy), healthy, healthy)
    assert verdicts(lines) == {}
    checks = {line.check for line in lines}
    assert checks >= {
        *("data", "statistics", "packed data", "replay", "open-loop error", "language", "vision"),
        *("cameras", "video timing", "action signs", "action type", "server", "preprocessing"),
    }


@pytest.mark.parametrize("fault", NAMES)
def test_data_with_a_fault_that_the_policy_does_not_know_is_named(
    fault: str, data: Callable[[str], Path]
) -> None:
    lines = found(DotPolicy(data("")), data(fault), data(""))
    failed = {(line.check, line.fault) for line in lines if line.verdict == "fail"}
    assert NAMES[fault] in failed
    assert {f for _, f in failed if f} == {NAMES[fault][1]}, verdicts(lines)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["gripper", "cameras", "action type"])
def test_a_policy_that_learned_a_fault_is_named_on_sound_data(
    fault: str, data: Callable[[str], Path]
) -> None:
    lines = found(DotPolicy(data(fault), relearned=fault), data(""))
    failed = {(line.check, line.fault) for line in lines if line.verdict == "fail"}
    assert NAMES[fault] in failed, verdicts(lines)


def test_a_policy_that_ignores_language_or_images_is_named(data: Callable[[str], Path]) -> None:
    episodes = list(open_dataset(data("")).episodes())
    deaf: Any = DotPolicy(data(""), follows=False)
    windows = sample_windows(deaf, episodes, 96)
    target = windows.recorded_NSA
    (line,) = senses.language(windows, windows.images(), target, episodes)
    assert (line.verdict, line.fault) == ("warn", "")
    assert "ignores the instruction" in line.finding
    blind: Any = DotPolicy(data(""))
    blind.predict, windows.policy = _blank(blind.predict), blind
    (line,) = senses.vision(windows, windows.images(), target)
    assert line.verdict == "fail"
    assert "ignores the images" in line.finding


def _blank(predict: Any) -> Any:
    return lambda images, texts, **extra: predict(0 * images + 50, texts, **extra)


def test_video_that_lags_its_own_state_is_named_without_the_policy(
    data: Callable[[str], Path],
) -> None:
    from vla.diagnose.timing import recorded_shift

    (line,) = recorded_shift(list(open_dataset(data("video")).episodes()), 10.0)
    assert (line.verdict, line.fault) == ("fail", names.VIDEO)
    assert "4 rows (0.40 s) later" in line.finding
    (line,) = recorded_shift(list(open_dataset(data("")).episodes()), 10.0)
    assert line.verdict == "ok"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s | {"std": [3 * v for v in s["std"]]}, "y (spread 3.00 times"),
        (lambda s: s | {k: [s[k][1], s[k][0], s[k][2]] for k in ("mean", "std")}, "of y"),
        (lambda s: s | {"q99": [s["q99"][0] * 1.2, *s["q99"][1:]]}, "x (spread 1.00 times"),
    ],
)
def test_an_edited_robot_spec_is_named_by_dimension(
    change: Any, said: str, data: Callable[[str], Path]
) -> None:
    policy, healthy = DotPolicy(data("")), data("")
    changed = {"actions": change(policy.spec.statistics["actions"])}
    policy.spec = replace(policy.spec, statistics=policy.spec.statistics | changed)
    lines = statistics(
        subject_of(policy, healthy, (healthy,)), list(open_dataset(healthy).episodes())
    )
    assert [line.fault for line in lines] == [names.STATISTICS]
    assert said in lines[0].finding


def test_cameras_are_known_by_their_look_where_the_policy_does_not_care(
    data: Callable[[str], Path],
) -> None:
    policy, healthy = DotPolicy(data("")), data("")
    sound, swapped = (list(open_dataset(data(f)).episodes()) for f in ("", "cameras"))
    assert camera_looks(subject_of(policy, healthy), sound) == []
    (line,) = camera_looks(subject_of(policy, data("cameras"), (healthy,)), swapped)
    assert (line.verdict, line.fault) == ("fail", names.CAMERAS)
    assert "24 of 24 episodes front looks like wrist" in line.finding
    (line,) = camera_looks(subject_of(policy, healthy), [*sound[:20], *swapped[20:]])
    assert "4 of 24 episodes" in line.finding
    run = replace(subject_of(policy, healthy), cameras=("wrist", "front"))
    (line,) = camera_looks(run, sound)
    assert "robot_spec.json has the cameras front, wrist" in line.finding


def test_few_episodes_are_not_judged(tmp_path: Path) -> None:
    folder = pack_world(tmp_path / "few", "cameras", episodes=3)
    lines = found(DotPolicy(folder), folder)
    judged = {line.check: line for line in lines}
    for check in ("cameras", "language", "action signs"):
        assert "not judged: " in judged[check].finding
        assert judged[check].verdict == "ok"


@pytest.mark.parametrize(
    ("fault", "mapping", "named"),
    [
        ("gripper", {}, names.GRIPPER),
        ("video", {}, names.VIDEO),
        ("cameras", {}, names.CAMERAS),
        ("instructions", {}, names.INSTRUCTIONS),
        ("action type", {}, names.ACTION_TYPE),
        ("", {"cameras": {"front": "wrist", "wrist": "front"}}, names.CAMERAS),
    ],
)
def test_packed_data_that_differs_from_its_recording_is_named(
    fault: str, mapping: dict[str, Any], named: str, tmp_path: Path
) -> None:
    from vla.data.manifest import load_manifest
    from vla.diagnose.source import open_source, packed_against_source

    raw = write_world(tmp_path / "raw", fault, episodes=8)
    packed = pack_recorded(raw, tmp_path / "packed", **mapping)
    if not mapping:  # the recording is sound, the packed data is not
        shutil.rmtree(raw)
        write_world(raw, episodes=8)
    manifest = load_manifest(packed)
    episodes = list(open_dataset(packed).episodes())
    lines = packed_against_source(open_source(manifest), manifest, episodes)
    assert {line.fault for line in lines if line.verdict != "ok"} == {named}


def test_significance_needs_size_and_number() -> None:
    rng = np.random.default_rng(0)
    high = rng.normal(1.0, 0.1, 12)
    assert clearly_lower(high - 0.5, high, 0.9)
    assert not clearly_lower(high - 0.01, high, 0.9)  # significant, but small
    assert not clearly_lower((high - 0.5)[:4], high[:4], 0.9)  # too few
    assert p_lower(high, rng.permutation(high)) > 0.05


def test_json_lists_the_faults_and_the_exit_code_is_the_worst_verdict(
    data: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from vla.diagnose import report

    subject = subject_of(DotPolicy(data("")), data("gripper"))
    monkeypatch.setattr(report, "open_subject", lambda *_: subject)
    page = tmp_path / "page.html"
    code = report.run_diagnose(Path("run"), None, {}, None, 96, 4, True, page)
    result = json.loads(capsys.readouterr().out)
    assert (code, result["faults"]) == (2, [names.GRIPPER])
    assert {"check", "verdict", "finding", "fix", "fault", "judged"} == set(result["lines"][0])
    assert "inverted gripper" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "expected a training run or a saved policy"),
        ({"config.yaml": "data: {}"}, "a training run without a saved policy"),
        ({"manifest.json": "{}"}, "packed data; give a run or a policy"),
    ],
)
def test_what_is_not_a_policy_is_said_in_one_line(
    files: dict[str, str], said: str, tmp_path: Path
) -> None:
    from vla.diagnose.subject import open_subject

    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        open_subject(tmp_path, None)
