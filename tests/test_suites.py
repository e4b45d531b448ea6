"""The suites of the tabletop: scenes, references, web questions, leaks, averages."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vla.benchmarks.base import EpisodeResult
from vla.benchmarks.tabletop.appearance import DARK_TABLES, LIGHT_TABLES, TRAIN_TABLES
from vla.benchmarks.tabletop.benchmark import TabletopBenchmark
from vla.benchmarks.tabletop.env import Tabletop
from vla.benchmarks.tabletop.expert import expert_command
from vla.benchmarks.tabletop.layouts import to_action
from vla.benchmarks.tabletop.leaks import find_leaks, forbidden_words
from vla.benchmarks.tabletop.scene import SceneConfig
from vla.benchmarks.tabletop.sources import TabletopSource, WebSource
from vla.benchmarks.tabletop.suites import SUITE_TASKS
from vla.benchmarks.tabletop.tasks import INSTRUCTION_TEMPLATES
from vla.benchmarks.tabletop.web.concepts import WEB_GROUPS, concepts, splits
from vla.benchmarks.tabletop.web.config import WebConfig
from vla.benchmarks.tabletop.web.questions import FIND_TEMPLATES, make_web_sample
from vla.benchmarks.tabletop.web.references import references
from vla.data.images import decode_image
from vla.data.pack import pack
from vla.errors import DataError
from vla.models.prompts import ACTION_QUESTION
from vla.testing import check_benchmark
from vla.types import QA

SCENE = SceneConfig(skills=("pick", "near"), cards=(0, 0), concepts=16)
WEB = WebConfig(concepts=16, include_web_only=False, groups=WEB_GROUPS, find_questions=3, size=32)


def key(name: str) -> str:
    return next(c.key for c in concepts().values() if c.name == name)


def find_questions(config: WebConfig, samples: int) -> list[QA]:
    return [
        q
        for k in range(samples)
        for q in make_web_sample(config, 0, k).qa
        if q.tests.startswith("find_")
    ]


@pytest.mark.parametrize("name", SUITE_TASKS)
def test_every_suite_task_is_feasible_and_differs_from_training_as_described(name: str) -> None:
    env, rule, successes = Tabletop(SCENE, size=32), SUITE_TASKS[name], 0
    for seed in range(6):
        instruction = env.reset(seed=seed, options={"task": name})[0]["instruction"]
        shown = [i.concept for i in env.world.items]
        referred = shown[env.task.target if env.task.skill == "pick" else env.task.other]
        if rule.target_groups:
            assert any(referred in splits()[g] for g in rule.target_groups)
        if rule.reference_types and "name" not in rule.reference_types:
            others = [k for k in shown if k != referred]
            fitting = [
                r.text for r in references([referred, *others], 0) if r.type in rule.reference_types
            ]
            assert any(f"the {text}" in instruction for text in fitting)
            assert f"the {concepts()[referred].name} " not in f"{instruction} "
        assert env.appearance.table in rule.tables
        assert (env.appearance.zoom != 1.0) == rule.move_camera
        assert not env.task.succeeded(env.world)
        ended = False
        while not ended:
            command = expert_command(env.world, env.task)
            *_, terminated, truncated, info = env.step(to_action("rt2", command))
            ended = terminated or truncated
        successes += info["success"]
        assert info["task"] == name
    assert successes >= 5


def test_backgrounds_of_the_suites_are_not_in_the_training_set() -> None:
    assert not set(TRAIN_TABLES) & set(DARK_TABLES + LIGHT_TABLES)
    env = Tabletop(SCENE, size=64)
    dark = env.reset(seed=3, options={"task": "environments_hard"})[0]["images"]["top"]
    normal = env.reset(seed=3, options={"task": "seen"})[0]["images"]["top"]
    assert dark.mean() < 200 < normal.mean()


def test_references_fit_exactly_one_image() -> None:
    keys = [key(n) for n in ("duck", "melon", "one", "three")]
    target = {r.text: n for n in range(4) for r in references(keys, n)}
    assert target["fruit"] == 1 and target["bird"] == 0
    assert target["sum of one plus two"] == 3 and target["smallest number"] == 2
    assert target["honigmelone in german"] == 1 and "number" not in target
    flags = [key(f"flag of {c}") for c in ("japan", "south korea", "greece")]
    by_flag = [{r.text for r in references(flags, n)} for n in range(3)]
    assert "flag of the country with the capital tokyo" in by_flag[0]
    assert not any("asia" in text for text in by_flag[0])
    assert "flag of a country in europe" in by_flag[2]
    birds = [key(n) for n in ("duck", "dove", "peacock", "melon")]
    assert "one that is not a bird" in {r.text for r in references(birds, 3)}


def test_references_by_colour_are_unambiguous() -> None:
    shapes = [key(n) for n in ("red circle", "red square", "blue circle", "duck")]
    assert "shape of the same colour as the square" in {r.text for r in references(shapes, 0)}
    # two circles: "the same colour as the circle" would be ambiguous
    ambiguous = references(shapes[1:] + shapes[:1], 0)
    assert not {r.type for r in ambiguous} & {"same_colour", "other_colour"}
    assert "shape of another colour" in {r.text for r in references([shapes[2], *shapes[:2]], 0)}


def test_find_questions_have_every_type_of_reference_of_the_suites() -> None:
    found = find_questions(WEB, 150)
    types = {f"find_{t}" for rule in SUITE_TASKS.values() for t in rule.reference_types}
    assert types <= {q.tests for q in found}
    assert all(q.question.startswith("find the ") for q in found)
    assert all(re.fullmatch(r".+ \d+ \d+", q.answer) for q in found)  # name and location


def test_varied_phrases_use_all_templates_and_backgrounds_may_be_dark() -> None:
    config = replace(WEB, varied_phrases=True, any_background=True)
    questions = [q.question for q in find_questions(config, 60)]
    for template in FIND_TEMPLATES:
        start, end = template.split("{x}")
        assert any(q.startswith(start) and q.endswith(end) for q in questions), template
    corners = [
        int(decode_image(make_web_sample(config, 0, k).image, "")[:2, :2].mean()) for k in range(60)
    ]
    assert min(corners) < 60 < 220 < max(corners)
    with pytest.raises(ValueError, match=r"web\.groups: unknown group 'cars'"):
        WebConfig(groups=("cars",))


def test_find_questions_in_the_robot_prompt_are_commands_that_robot_data_does_not_have() -> None:
    plain = replace(WEB, varied_phrases=True, single_object_share=0.1)
    prompt = replace(
        plain, robot_prompt_share=0.7, balance_reference_types=True, odd_one_out_share=0.5
    )
    start, end = ACTION_QUESTION.split("{instruction}")
    found = {config: find_questions(config, 200) for config in (plain, prompt)}
    assert not any(q.question.startswith(start) for q in found[plain])
    commands = [
        q.question.removeprefix(start).removesuffix(end)
        for q in found[prompt]
        if q.question.startswith(start)
    ]
    # 15 of the 21 templates are commands
    assert 0.4 < len(commands) / len(found[prompt]) < 0.6
    starts = {p.split("{x}")[0] for p in FIND_TEMPLATES if p.endswith("{x}.") and p[:3] != "not"}
    assert all(c.startswith(tuple({*starts, "give me the "})) for c in commands)
    robot = {t.split(" the ")[0] for forms in INSTRUCTION_TEMPLATES.values() for t in forms}
    assert not [c for c in commands if c.split(" the ")[0] in robot]
    odd = {c: sum(q.tests == "find_odd" for q in qs) / len(qs) for c, qs in found.items()}
    assert odd[prompt] > 2 * odd[plain] > 0


def test_web_data_has_no_find_questions_by_default() -> None:
    source = WebSource(WebConfig(concepts=8, include_web_only=False, size=32), 3)
    questions = [q.tests for n in range(3) for q in source[n].qa]
    assert questions and not any(t.startswith("find") for t in questions)


@pytest.mark.slow
def test_leaks_are_found_in_the_manifest(tmp_path: Path) -> None:
    manifest = pack(TabletopSource(SCENE, 60, size=16), tmp_path / "data", 20, 0.0, False)
    assert find_leaks(manifest) == []
    held_out = splits()["held_out_art"][0]
    leaking = replace(
        manifest,
        words=manifest.words | {"fruit": 1},
        tags=manifest.tags | {f"{key('rose')}:noto": 2, held_out: 1},
    )
    lines = find_leaks(leaking)
    assert len(lines) == 3
    text = "\n".join(lines)
    assert "word 'fruit': a category" in text
    assert "image of 'rose': not a robot concept" in text
    assert "held-out art of 'rabbit'" in text
    with pytest.raises(DataError, match="does not list the art"):
        find_leaks(replace(manifest, tags={}))
    command = [sys.executable, "-m", "vla.benchmarks.tabletop.leaks", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "no word or image" in done.stdout
    leaking.save(tmp_path / "data")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.splitlines() == lines


def test_capitals_are_not_forbidden_because_only_text_questions_have_them() -> None:
    words = forbidden_words()
    assert {"three", "honigmelone", "cook"} <= set(words) and "tokyo" not in words


def test_averages_are_those_of_the_paper() -> None:
    benchmark = TabletopBenchmark(SCENE, size=32)
    tasks = [
        task
        for group in ("seen", "generalisation", "emergent")
        for task in benchmark.select(group=group)
    ]
    assert [t.id for t in tasks] == list(SUITE_TASKS)
    solved = ("symbol", "maths", "category")
    results = [EpisodeResult(t.id, 0, "", t.id in solved, 5) for t in tasks]
    averages = benchmark.summarise(results)
    assert averages == pytest.approx(
        {"seen": 0.0, "generalisation": 0.0, "emergent": (1 + 2 / 6 + 0) / 3}
    )
    without_one = [r for r in results if r.task != "objects_easy"]
    assert "generalisation" not in benchmark.summarise(without_one)


def test_the_benchmark_passes_the_checks_with_the_cameras_of_a_policy() -> None:
    benchmark = check_benchmark("tabletop", policy_cameras=("wrist",), size=32)
    observation, _ = benchmark.make_env(benchmark.tasks()[0]).reset(seed=0)
    assert list(observation["images"]) == ["wrist"]


def test_the_benchmark_selects_skills_and_suites() -> None:
    benchmark = TabletopBenchmark(SCENE)
    assert [t.id for t in benchmark.select()] == ["pick", "near"]
    assert [t.id for t in benchmark.select(["maths"])] == ["maths"]
    assert len(benchmark.select(group="all")) == len(SUITE_TASKS) + len(INSTRUCTION_TEMPLATES)
    env = benchmark.make_env(benchmark.select(["maths"])[0])
    observation, info = env.reset(seed=1)
    assert info["task"] == "maths" and isinstance(observation["instruction"], str)
    assert np.shape(observation["images"]["top"]) == (128, 128, 3)
