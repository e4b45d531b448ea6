"""Tables in the experiments' READMEs are what their files say."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import REPOSITORY

from vla.evaluate import Result, summary
from vla.policy import VLAPolicy

DEMO = REPOSITORY / "experiments" / "demo"


@pytest.mark.parametrize("policy", ["token", "regression", "untrained"])
def test_demo_table_is_its_files(policy: str) -> None:
    episodes = [Result(**row) for row in json.loads((DEMO / f"eval_{policy}.json").read_text())["episodes"]]
    s = summary(episodes)["pick"]
    cells = f"{100 * s['success']:.1f} % | {100 * s['low']:.1f} to {100 * s['high']:.1f} | {100 * s['wrong_object']:.1f} % |"
    row = next(line for line in (DEMO / "README.md").read_text().splitlines() if line.startswith(f"| {policy}"))
    assert row.endswith(cells) and s["n"] == 200


def test_seen_table_is_its_file() -> None:
    folder = REPOSITORY / "experiments" / "tabletop_seen"
    episodes = [Result(**row) for row in json.loads((folder / "attempt_1" / "eval" / "results.json").read_text())["episodes"]]
    text = (folder / "README.md").read_text()
    for skill, s in summary(episodes).items():
        cells = f"{100 * s['success']:.1f} % | {100 * s['low']:.1f} to {100 * s['high']:.1f} | {100 * s['wrong_object']:.1f} % |"
        assert f"| {skill} | {cells}" in text


@pytest.mark.parametrize("name", ["attempt_1/policy", "web_policy"])
def test_committed_policies_load_and_act(name: str) -> None:
    policy = VLAPolicy.load(REPOSITORY / "experiments" / "tabletop_seen" / name)
    images = torch.zeros(1, 1, 1, 3, 64, 64, dtype=torch.uint8)
    assert policy.act(images, ["pick the banana"]).shape == (1, 1, 8)
