"""Plans of a policy in results, videos, offline evaluation, replies of the server, and commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from command_line import call, here, line  # noqa: F401
from conftest import TINY_POLICY
from fake_policies import RecordingPolicy, observation
from policies import WORDS

from vla.benchmarks.base import EpisodeResult
from vla.config import build
from vla.data.manifest import load_manifest
from vla.evaluation import captions
from vla.evaluation.offline import offline
from vla.evaluation.rollout import rollouts
from vla.evaluation.video import animation, contact_sheet
from vla.inference.runner import PolicyRunner
from vla.models.decoders.tokenizer import train_tokenizer
from vla.policies.checkpoint import save_policy
from vla.policies.spec import RobotSpec

FRAMES = [np.full((8, 8, 3), 200, np.uint8)] * 3


def result(plans: list[str]) -> EpisodeResult:
    return EpisodeResult("pick", 0, "pick the apple", True, 2, plans=plans)


def below(plans: list[str]) -> np.ndarray:
    """The space for plans of a contact sheet of one episode."""
    sheet = np.asarray(contact_sheet([FRAMES], [result(plans)]))
    return sheet[-captions.HEIGHT :]


def test_plans_stand_below_the_frames_of_a_video() -> None:
    heights = [contact_sheet([FRAMES], [result(p)]).height for p in ([], ["pick", "lift"])]
    assert heights[1] - heights[0] == captions.HEIGHT
    one, other, partly = below(["pick", "lift"]), below(["pick", "pick"]), below(["", "pick"])
    assert one.min() < 100 and (one.min(0) == 255).any()  # dark text on white
    cell = one.shape[1] // 9
    assert np.array_equal(one[:, :cell], other[:, :cell])  # frame 0 has the first plan
    assert not np.array_equal(one[:, cell : 2 * cell], other[:, cell : 2 * cell])
    assert np.array_equal(one[:, 2 * cell : 3 * cell], one[:, cell : 2 * cell])  # the last frame
    assert 100 < partly[:, :cell].min() < 200  # grey: no plan
    videos, results = [FRAMES, FRAMES], [result(["pick", "lift"]), result([])]
    for kind, start in (("GIF", b"GIF8"), ("WEBP", b"RIFF")):
        assert animation(videos, results, kind=kind)[:4] == start


def test_long_plans_are_wrapped_to_three_lines() -> None:
    assert captions.wrapped("pick the red apple", len, 8) == ["pick the", "red", "apple"]
    assert captions.wrapped("incomprehensible", len, 6) == ["incomp", "rehens", "ible"]
    assert captions.wrapped("a bb ccc dddd eeeee", len, 5) == ["a bb", "ccc", "dd..."]


def test_offline_evaluation_keeps_the_plan_of_every_frame(tiny_data: dict[str, str]) -> None:
    manifest = load_manifest(tiny_data["robot"])
    assert manifest.action_space is not None

    class Planning(RecordingPolicy):
        normaliser = build_normaliser(manifest.action_space)

    policy = Planning(manifest.action_space, plans=True, image_size=(32, 32))
    found = offline(policy, tiny_data["robot"], episodes=2, progress=False)
    for trajectory in found.trajectories:
        steps = len(trajectory.recorded)
        assert trajectory.plans == [str(n + 1) for n in range(steps)]


def build_normaliser(space: Any) -> Any:
    from vla.models.actions.normalise import Normaliser

    return Normaliser(space, None)


def test_the_servers_replies_have_the_plan() -> None:
    pytest.importorskip("starlette")
    from protocol_clients import IMAGE, ask, encoded, http_client, wire

    with http_client(plans=True) as http, http.websocket_connect("/") as ws:
        ws.receive_bytes()
        plans = [ask(ws, image=wire(IMAGE), prompt="pick")["plan"] for _ in range(2)]
        assert plans == ["1", "2"]
        body = {"image": encoded(IMAGE), "instruction": "push"}
        assert unquote(http.post("/act", json=body).headers["X-Plan"]) == "1"


def test_the_plan_belongs_to_the_action_that_is_executed() -> None:
    policy = RecordingPolicy(plans=True, horizon=2)
    runner = PolicyRunner(policy)  # type: ignore[arg-type]
    assert runner.plan(0) == ""
    plans = []
    for _ in range(3):
        runner.act([0], [observation()])
        plans.append(runner.plan(0))
    assert plans == ["1", "1", "2"]


@pytest.fixture
def planner(tiny_data: dict[str, str], tmp_path: Path) -> Path:
    """A saved policy with ``plan: auto``, untrained, for the benchmark of the tiny data."""
    manifest = load_manifest(tiny_data["robot"])
    spec = RobotSpec(
        manifest.action_space,  # type: ignore[arg-type]
        ("top",),
        (32, 32),
        statistics=manifest.statistics,
        benchmark=manifest.benchmark | {"max_steps": 3},
    )
    config = TINY_POLICY | {"head": {"name": "token", "plan": "auto", "plan_tokens": 4}}
    policy = build("policy", config, specs={"robot": spec}, tokenizer=train_tokenizer(WORDS, 800))
    return save_policy(policy.eval(), config, tmp_path / "policy")


def test_commands_change_plans_and_sampling(
    planner: Path,
    tiny_data: dict[str, str],
    tmp_path: Path,
    here: None,  # noqa: F811
) -> None:
    def episodes(name: str, *options: str) -> Any:
        out = ("--out", str(tmp_path / name))
        assert call("eval", planner, "--task", "pick", "--episodes", "2", *out, *options) == 0
        rows = json.loads((tmp_path / name / "results.json").read_text())["episodes"]
        return [row["plans"] for row in rows]

    hot = ("--plan", "true", "--temperature", "3", "--sampling-seed")
    planned = episodes("one", *hot, "1")
    assert all(len(plans) == 3 and all(plans) for plans in planned)
    assert episodes("again", *hot, "1", "--num-envs", "1") == planned
    assert episodes("direct", "--plan", "false") == [[], []]
    offline_options = (*hot, "1", "--episodes", "1", "--out", tmp_path / "offline")
    assert call("eval-offline", planner, tiny_data["robot"], *offline_options) == 0
    report = json.loads((tmp_path / "offline" / "offline.json").read_text())
    assert all(all(e["plans"]) for e in report["episodes"])


@pytest.mark.parametrize("verb", ["eval", "serve"])
def test_options_that_a_policy_cannot_follow_are_one_line(
    verb: str,
    planner: Path,
    line: Callable[..., str],  # noqa: F811
) -> None:
    pytest.importorskip("uvicorn")
    assert "top_k=5: temperature 0 is greedy decoding" in line(verb, planner, "--top-k", "5")


def test_an_actor_without_plans_has_none() -> None:
    from vla.benchmarks.tabletop.benchmark import TabletopBenchmark
    from vla.benchmarks.tabletop.layouts import LAYOUTS

    benchmark = TabletopBenchmark(size=32, max_steps=2)
    policy = RecordingPolicy(LAYOUTS["rt2"], plans=True, image_size=(32, 32))
    actor, tasks = PolicyRunner(policy), benchmark.select(["pick"])  # type: ignore[arg-type]
    found, _ = rollouts(actor, benchmark, tasks, [0], progress=False)
    assert found[0].plans == []
    found, _ = rollouts(actor, benchmark, tasks, [0], progress=False, plan_of=actor.plan)
    assert len(found[0].plans) == 2 and replace(found[0], plans=[]).steps == 2
