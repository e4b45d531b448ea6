"""Language-Table: a fake checkout for the logic, and the user's own one behind the slow marker."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from command_line import call, here  # noqa: F401
from fake_language_table import write_checkout, write_packages

from vla.benchmarks.language_table import questions
from vla.benchmarks.language_table.benchmark import REWARDS
from vla.benchmarks.language_table.questions import LanguageTableQuestions
from vla.benchmarks.recording import BenchmarkSource
from vla.config import build, configs_dir, load_config
from vla.data.images import decode_image
from vla.data.pack import PackConfig
from vla.errors import ConfigError
from vla.evaluation.groups import comparison_rows, group_summary
from vla.evaluation.rollout import evaluate, open_benchmark
from vla.testing import check_benchmark

NAME = "language_table"
REAL = os.environ.get("LANGUAGE_TABLE")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake checkout, named by the environment variable."""
    monkeypatch.syspath_prepend(str(write_packages(tmp_path / "packages")))
    fake = ModuleType("pybullet")
    fake.__spec__ = ModuleSpec("pybullet", None)
    monkeypatch.setitem(sys.modules, "pybullet", fake)  # until the end of the test
    folder = write_checkout(tmp_path / "checkout", REWARDS)
    monkeypatch.setenv("LANGUAGE_TABLE", str(folder))
    return folder


def test_five_families_are_compared_with_the_table_of_rt2(checkout: Path) -> None:
    benchmark = open_benchmark({"name": NAME})
    assert [task.id for task in benchmark.tasks()] == list(REWARDS) and len(REWARDS) == 5
    assert (benchmark.episodes, benchmark.max_steps) == (50, 200)
    rows = {row.model: row.shares["average"] for row in benchmark.published()}
    assert rows == {"BC-Zero": 72, "RT-1": 74, "LAVA": 77, "RT-2-PaLI-3B": 90}
    results, _ = evaluate(None, benchmark, benchmark.tasks(), 1, progress=False, workers=0)
    assert len(results) == 5 and all(result.success for result in results)
    table = comparison_rows(benchmark, group_summary(benchmark, results), "expert")
    assert [row["model"] for row in table] == [*rows, "expert"]
    assert benchmark.facts() == {
        "images": "320 x 180 px",
        "language-table": "unknown",
        "pybullet": "0",
    }


@pytest.mark.usefixtures("here")
def test_a_missing_checkout_is_one_line_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LANGUAGE_TABLE", raising=False)
    assert call("record", NAME, tmp_path / "out") == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert "git clone https://github.com/google-research/language-table" in printed
    assert "LANGUAGE_TABLE" in printed and "Traceback" not in printed
    with pytest.raises(ConfigError, match=rf"benchmark.checkout: {tmp_path} has no language_table"):
        open_benchmark({"name": NAME, "checkout": str(tmp_path)})
    monkeypatch.setenv("LANGUAGE_TABLE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"LANGUAGE_TABLE in the environment: .*none has no"):
        open_benchmark({"name": NAME})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 35}, "benchmark.height: expected 36 to 720, got 35"),
        ({"max_steps": 201}, "benchmark.max_steps: expected 1 to 200, got 201"),
    ],
)
def test_bad_options_are_one_clear_message(
    checkout: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_benchmark({"name": NAME, **options})
    with pytest.raises(ConfigError, match="has one camera; the policy uses a, b"):
        open_benchmark({"name": NAME}, ("a", "b"))


@pytest.mark.parametrize("package", ["pybullet", "absl"])
def test_a_missing_package_is_named_with_its_extra(
    checkout: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = open_benchmark({"name": NAME})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else name)
    with pytest.raises(ConfigError, match=rf"{package} is missing.*vla\[language-table\]"):
        benchmark.make_env(benchmark.tasks()[0])


def test_a_checkout_of_another_version_is_one_line(checkout: Path) -> None:
    broken = checkout / "language_table" / "environments" / "blocks.py"
    broken.write_text("from language_table import nothing", encoding="utf-8")
    benchmark = open_benchmark({"name": NAME})
    with pytest.raises(ConfigError, match=r"cannot import the simulator \(ImportError.*git pull"):
        benchmark.make_env(benchmark.tasks()[0])


def episode(env: Any, expert: Any, seed: int) -> tuple[str, np.ndarray, bool]:
    """Instruction, actions and success of the expert's episode."""
    observation, _ = env.reset(seed=seed)
    actions, ended = [], False
    while not ended:
        actions.append(expert(env, observation))
        observation, _, terminated, truncated, info = env.step(actions[-1])
        ended = terminated or truncated
    return observation["instruction"], np.array(actions), info["success"]


def test_the_seed_alone_determines_an_episode(checkout: Path) -> None:
    benchmark = check_benchmark(NAME, height=36, max_steps=20)
    task = benchmark.tasks()[1]
    env, expert = benchmark.make_env(task), benchmark.expert(task)
    text, actions, success = episode(env, expert, 5)
    assert success and np.abs(actions).max() <= 0.1
    np.random.seed(1)  # noqa: NPY002  # other code draws from the global generator, too
    following = np.random.RandomState(1).uniform()
    other, *_ = episode(env, expert, 6)
    assert np.random.uniform() == following and other != text  # noqa: NPY002
    for again in (env, benchmark.make_env(task)):
        same, repeated, _ = episode(again, expert, 5)
        assert same == text and np.array_equal(repeated, actions)


def test_images_are_rendered_when_they_are_read(checkout: Path) -> None:
    benchmark = open_benchmark({"name": NAME, "height": 45}, ("front",))
    env: Any = benchmark.make_env(benchmark.tasks()[0])
    observation, _ = env.reset(seed=0)
    client = env.simulator.pybullet_client
    env.step(np.array([0.5, -0.5], np.float32))  # beyond the bounds, which clip it
    assert client.rendered == 0
    observation = env.step(np.zeros(2, np.float32))[0]
    assert observation["images"]["front"].shape == (45, 80, 3) and client.rendered == 1
    assert observation["state"].dtype == np.float32 and observation["state"].shape == (2,)


def test_the_import_leaves_no_stand_in_behind(checkout: Path) -> None:
    before = {name: sys.modules.get(name) for name in ("gym", "tensorflow", "cv2", "tf_agents")}
    benchmark = open_benchmark({"name": NAME})
    benchmark.make_env(benchmark.tasks()[0])
    assert {name: sys.modules.get(name) for name in before} == before
    assert not any(name.split(".")[0] == "language_table" for name in sys.modules)
    assert str(checkout) not in sys.path


def test_recordings_have_the_text_of_each_episode_and_no_path(checkout: Path) -> None:
    source = BenchmarkSource({"name": NAME}, 10, in_a_row=2)
    episodes = [source[k] for k in range(10)]
    assert len({e.instruction for e in episodes}) == 10
    assert [e.info["task"] for e in episodes] == [t for t in REWARDS for _ in range(2)]
    assert all(e.actions.shape == (len(e.images["rgb"]), 2) for e in episodes)
    assert decode_image(episodes[0].images["rgb"][0], "").shape == (180, 320, 3)
    assert str(checkout) not in str(source.describe())
    plans = {plan for e in episodes for plan in e.plans}
    assert plans == {"red moon 128 127 255 0"} and len(episodes[0].plans) == len(
        episodes[0].actions
    )


def test_questions_ask_for_the_place_of_every_block(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "GROUP", 3)
    source = LanguageTableQuestions(8, seed=1, height=36)
    samples = [source[k] for k in range(len(source))]
    assert all(s.qa[0].question == "where is the red moon?" for s in samples)
    assert all(q.answer.startswith(f"red moon {p.answer}") for p, q in (s.qa for s in samples))
    assert len({s.qa[0].answer for s in samples}) > 6
    assert decode_image(samples[0].image, "").shape == (36, 64, 3)
    other = LanguageTableQuestions(8, seed=1, height=36)
    for index in (5, 1, 6, 7, 3):  # in any order
        assert other[index] == samples[index]
    assert LanguageTableQuestions(8, seed=2, height=36)[0] != samples[0]
    assert str(checkout) not in str(source.describe())
    pack = load_config(configs_dir() / "pack" / "language_table_questions.yaml", [], PackConfig)
    assert len(build("source", pack.source)) == 6000
    found = questions.questions({"red moon": "1 2", "blue cube": "3 4"}, np.random.default_rng(0))
    assert [q.answer for q in found] == ["1 2", "3 4", "red moon 1 2 3 4", "blue cube 3 4 1 2"]
    assert all("red moon" in q.question and "blue cube" in q.question for q in found[2:])


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="LANGUAGE_TABLE names no checkout")
@pytest.mark.filterwarnings("ignore")  # of the packages
def test_the_real_simulator_passes_the_checks_and_its_oracle_wins() -> None:
    benchmark = check_benchmark(NAME, height=36, max_steps=6, policy_cameras=("front",))
    assert benchmark.facts()["language-table"] != ""
    benchmark = open_benchmark({"name": NAME})
    task = benchmark.select(["blocktoblock"])[0]
    env, expert = benchmark.make_env(task), benchmark.expert(task)
    text, actions, success = episode(env, expert, 5)
    assert success and text.count(" ") > 3 and np.abs(actions).max() < 0.036
    assert env.reset(seed=5)[0]["images"]["rgb"].std() > 20
    env.close()
    env.reset(seed=5)
    info = env.step(np.zeros(2, np.float32))[-1]
    env.simulator.reset = lambda: None  # the same layout
    block, places = info["plan"].split(" ", 2)[:2], env.draw_blocks()
    assert info["plan"].startswith(f"{' '.join(block)} {places[' '.join(block)]}")
    assert any(info["plan"].endswith(place) for place in places.values())  # that of the other block
    first, again = (LanguageTableQuestions(2, seed=5, height=36)[1] for _ in range(2))
    assert first == again and len(first.qa) == 16
